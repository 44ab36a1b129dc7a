"""The lecture's update rules in NumPy float64, written from the equations and independent of torch.

A rule is a generator function: it takes the starting point and a gradient ``g(x, t)``, and yields the point after
each step, for ever. ``lr`` may be a number or a function of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Gradient = Callable[[Vector, int], Vector]
Rate = float | Callable[[int], float]


def rate(lr: Rate, t: int) -> float:
    return lr(t) if callable(lr) else lr


def sgd(x: Vector, g: Gradient, *, lr: Rate, weight_decay: float = 0.0) -> Iterator[Vector]:
    t = 0
    while True:
        x = x - rate(lr, t) * (g(x, t) + weight_decay * x)
        t += 1
        yield x


def momentum(x: Vector, g: Gradient, *, lr: Rate, rho: float) -> Iterator[Vector]:
    """v = ρv + g; x −= αv."""
    v, t = np.zeros_like(x), 0
    while True:
        v = rho * v + g(x, t)
        x = x - rate(lr, t) * v
        t += 1
        yield x


def momentum_rate_inside(x: Vector, g: Gradient, *, lr: Rate, rho: float) -> Iterator[Vector]:
    """v = ρv − αg; x += v: the other convention, equal only while the rate is constant."""
    v, t = np.zeros_like(x), 0
    while True:
        v = rho * v - rate(lr, t) * g(x, t)
        x = x + v
        t += 1
        yield x


def nesterov_lookahead(x: Vector, g: Gradient, *, lr: float, rho: float) -> Iterator[tuple[Vector, Vector]]:
    """v = ρv − α∇f(x + ρv); x += v. Yields x and the look-ahead point x + ρv."""
    v, t = np.zeros_like(x), 0
    while True:
        v = rho * v - lr * g(x + rho * v, t)
        x = x + v
        t += 1
        yield x, x + rho * v


def nesterov_changed(x: Vector, g: Gradient, *, lr: float, rho: float) -> Iterator[Vector]:
    """With x̃ = x + ρv: v' = ρv − α∇f(x̃); x̃ += −ρv + (1 + ρ)v'. Yields x̃."""
    v, t = np.zeros_like(x), 0
    while True:
        new = rho * v - lr * g(x, t)
        x = x - rho * v + (1 + rho) * new
        v = new
        t += 1
        yield x


def adagrad(x: Vector, g: Gradient, *, lr: Rate, eps: float) -> Iterator[Vector]:
    s, t = np.zeros_like(x), 0
    while True:
        d = g(x, t)
        s = s + d * d
        x = x - rate(lr, t) * d / (np.sqrt(s) + eps)
        t += 1
        yield x


def rmsprop(x: Vector, g: Gradient, *, lr: Rate, alpha: float, eps: float) -> Iterator[Vector]:
    s, t = np.zeros_like(x), 0
    while True:
        d = g(x, t)
        s = alpha * s + (1 - alpha) * d * d
        x = x - rate(lr, t) * d / (np.sqrt(s) + eps)
        t += 1
        yield x


def rmsprop_tensorflow(x: Vector, g: Gradient, *, lr: float, alpha: float, eps: float) -> Iterator[Vector]:
    """Epsilon inside the root, and the mean square starts at one."""
    s, t = np.ones_like(x), 0
    while True:
        d = g(x, t)
        s = alpha * s + (1 - alpha) * d * d
        x = x - lr * d / np.sqrt(s + eps)
        t += 1
        yield x


def adam(
    x: Vector,
    g: Gradient,
    *,
    lr: Rate,
    betas: tuple[float, float],
    eps: float,
    corrected: bool = True,
    coupled: float = 0.0,
    decoupled: float = 0.0,
) -> Iterator[Vector]:
    """Adam, with and without bias correction, with coupled L2 (Adam) or decoupled decay (AdamW)."""
    first, second, t = np.zeros_like(x), np.zeros_like(x), 0
    beta1, beta2 = betas
    while True:
        d = g(x, t) + coupled * x
        t += 1
        first = beta1 * first + (1 - beta1) * d
        second = beta2 * second + (1 - beta2) * d * d
        m = first / (1 - beta1**t) if corrected else first
        s = second / (1 - beta2**t) if corrected else second
        x = x - rate(lr, t - 1) * (m / (np.sqrt(s) + eps) + decoupled * x)
        yield x


def quadratic() -> tuple[Vector, Gradient]:
    """½ xᵀAx with curvatures from 0.01 to 10 (condition number 1,000), in axes that are not the coordinates'."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    matrix = axes @ np.diag(np.geomspace(0.01, 10.0, 5)) @ axes.T
    return np.array([3.0, -2.0, 1.0, 0.5, -4.0]), lambda x, t: matrix @ x


def saddle() -> tuple[Vector, Gradient]:
    """x²/2 − y²/2 + y⁴/4: a saddle at the origin between minima at y = ±1, from just off its stable axis."""
    return np.array([2.0, 1e-3]), lambda x, t: np.array([x[0], x[1] ** 3 - x[1]])


def noisy_logistic() -> tuple[Vector, Gradient]:
    """Logistic regression, a fifth of its labels flipped, on another fixed batch of 8 of its 64 rows each step."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((64, 5))
    labels = (rows @ rng.standard_normal(5) > 0) ^ (rng.random(64) < 0.2)
    batches = rng.integers(0, 64, (1000, 8))

    def gradient(x: Vector, t: int) -> Vector:
        a, y = rows[batches[t]], labels[batches[t]]
        return np.asarray(a.T @ (1 / (1 + np.exp(-a @ x)) - y) / len(y))

    return np.zeros(5), gradient


PROBLEMS = {"quadratic": quadratic, "saddle": saddle, "noisy_logistic": noisy_logistic}
