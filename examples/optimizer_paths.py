"""How optimizers go downhill: the paths of our own registry on a bowl, past a saddle and down a slope.

python examples/optimizer_paths.py --out optimizer_paths.png

Both the bowl and the saddle are 20 times as steep across as along. Their axes are the coordinates' own, as RMSProp
and AdaGrad like it: they scale each coordinate by itself, and would gain less on a bowl that lies askew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.optimization.optimizers import create_optimizer
from tl_kit.reports.learning_curves import OKABE_ITO

Array = NDArray[np.float64]
Surface = Callable[[Tensor], Tensor]

STEEPNESS = 20.0  # curvature across; along it is 1 on the bowl, and -1 at the saddle
FASTEST_SGD = 2 / (1 + STEEPNESS)  # the constant rate at which plain SGD gets down the bowl in the fewest steps
BOWL_START, SADDLE_START, SLOPE_START = (-8.0, 2.0), (-0.01, 0.4), (0.0, 0.0)


@dataclass(frozen=True)
class Walk:
    """One optimizer at one learning rate, and how it is drawn."""

    name: str
    lr: float
    colour: str
    line: str = "-"
    marker: str = "o"
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.name}, lr {self.lr:.2g}"


SGD = Walk("sgd", FASTEST_SGD, "vermillion", "-", "o")
MOMENTUM = Walk("momentum", 0.03, "blue", "-", "s")
NESTEROV = Walk("nesterov", 0.03, "orange", "--", "D")
RMSPROP = Walk("rmsprop", 0.3, "green", "-", "^")
ADAGRAD = Walk("adagrad", 1.5, "purple", "--", "v")
SADDLE_WALKS = (
    SGD,
    Walk("momentum", FASTEST_SGD, "blue", "-", "s"),
    Walk("rmsprop", 0.02, "green", "-.", "^"),
    Walk("adam", 0.05, "black", ":", "D"),
)
ADAM_WALKS = (Walk("adam-uncorrected", 0.001, "vermillion", "--", "s"), Walk("adam", 0.001, "blue", "-", "o"))


def bowl(point: Tensor) -> Tensor:
    """(x² + 20 y²) / 2, lowest at (0, 0)."""
    return (point[0] ** 2 + STEEPNESS * point[1] ** 2) / 2


def saddle(point: Tensor) -> Tensor:
    """(20 y² − x²) / 2 + x⁴ / 4: a saddle at (0, 0) between two minima at (±1, 0)."""
    return (STEEPNESS * point[1] ** 2 - point[0] ** 2) / 2 + point[0] ** 4 / 4


def slope(point: Tensor) -> Tensor:
    """x: the same gradient everywhere."""
    return point[0]


def path(
    name: str,
    function: Surface,
    start: tuple[float, float],
    *,
    lr: float,
    steps: int,
    options: Mapping[str, object] | None = None,
) -> Array:
    """The points that optimizer ``name`` visits from ``start``, which is the first: (steps + 1, 2), in float64."""
    point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = create_optimizer(name, [point], lr=lr, options=options)
    visited = [point.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(function(point))
        optimizer.step()
        visited.append(point.detach().clone())
    points: Array = torch.stack(visited).numpy()
    return points


def walk_path(walk: Walk, function: Surface, start: tuple[float, float], *, steps: int) -> Array:
    """:func:`path` with a walk's optimizer, rate and options."""
    return path(walk.name, function, start, lr=walk.lr, steps=steps, options=walk.options)


def step_lengths(points: Array) -> Array:
    """(steps + 1, 2) -> the length of each step, (steps,)."""
    lengths: Array = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return lengths


def detour(points: Array) -> float:
    """The length of the path over the distance from its start to its end: 1 is a straight line."""
    return float(step_lengths(points).sum() / np.linalg.norm(points[-1] - points[0]))


def overshoot(points: Array) -> float:
    """How far a path from the left goes past the minimum along the shallow axis; negative if it never gets there."""
    return float(points[:, 0].max())


def _contours(panel: Axes, function: Surface, xs: Array, ys: Array, levels: Array) -> None:
    grid = torch.from_numpy(np.stack(np.meshgrid(xs, ys)))
    panel.contour(xs, ys, function(grid).numpy(), levels=levels, colors="0.82", linewidths=0.7, linestyles="solid")
    panel.set(xlabel="x (shallow)", ylabel="y (20 times as steep)", xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]))


def _trail(panel: Axes, walk: Walk, points: Array, *, label: str) -> None:
    style: dict[str, Any] = {"color": OKABE_ITO[walk.colour], "linestyle": walk.line, "linewidth": 1.5}
    panel.plot(*points.T, marker=walk.marker, markersize=3.5, label=label, **style)


def draw_bowl(panel: Axes, walks: tuple[Walk, ...], *, title: str, steps: int = 30) -> None:
    """Paths on the bowl, over its contours; a cross marks the start, a star the minimum."""
    xs, ys = np.linspace(-9, 5, 200), np.linspace(-2.7, 2.7, 160)
    _contours(panel, bowl, xs, ys, np.geomspace(0.3, 90, 9))
    for walk in walks:
        points = walk_path(walk, bowl, BOWL_START, steps=steps)
        _trail(panel, walk, points, label=f"{walk.label}: {detour(points):.2f} times the straight way")
    panel.plot(*BOWL_START, "kX", markersize=8, zorder=5)
    panel.plot(0, 0, "k*", markersize=12, zorder=5)
    panel.set_title(f"{title} ({steps} steps)")
    panel.legend(loc="lower left")


def draw_saddle(panel: Axes, *, steps: int = 25) -> None:
    """Paths that begin a hundredth beside the ridge of the saddle."""
    xs, ys = np.linspace(-1.35, 0.25, 200), np.linspace(-0.48, 0.48, 160)
    _contours(panel, saddle, xs, ys, np.linspace(-0.24, 2.0, 11))
    for walk in SADDLE_WALKS:
        _trail(panel, walk, walk_path(walk, saddle, SADDLE_START, steps=steps), label=walk.label)
    panel.plot(*SADDLE_START, "kX", markersize=8, zorder=5)
    panel.plot(-1, 0, "k*", markersize=12, zorder=5)
    panel.set_title(f"A saddle at (0, 0), seen from above ({steps} steps)")
    panel.set_xlabel("x (downhill, away from the saddle)")
    panel.legend(loc="upper left", fontsize=9)


def draw_escape(panel: Axes, *, steps: int = 70) -> None:
    """The same paths' distance from the saddle, along the way out."""
    for walk in SADDLE_WALKS:
        away = np.abs(walk_path(walk, saddle, SADDLE_START, steps=steps)[:, 0])
        style: dict[str, Any] = {"color": OKABE_ITO[walk.colour], "linestyle": walk.line, "linewidth": 1.8}
        panel.semilogy(away, marker=walk.marker, markersize=4.5, markevery=10, label=walk.label, **style)
    panel.set(xlabel="step", ylabel="|x|: distance from the saddle", title="The same saddle: the way out, step by step")
    panel.grid(color="0.92")
    panel.legend(loc="lower right")


def draw_adam(panel: Axes, *, steps: int = 3000) -> None:
    """The length of each step on a slope, in learning rates, with and without bias correction."""
    for walk in ADAM_WALKS:
        lengths = step_lengths(walk_path(walk, slope, SLOPE_START, steps=steps)) / walk.lr
        style: dict[str, Any] = {"color": OKABE_ITO[walk.colour], "linestyle": walk.line, "linewidth": 1.8}
        marks = [0, 1, 3, 9, 29, 99, 299, 999]
        label = f"{walk.label}: first step {lengths[0]:.2f} lr"
        panel.semilogx(np.arange(1, steps + 1), lengths, marker=walk.marker, markevery=marks, label=label, **style)
    panel.set(xlabel="step number", ylabel="step length / learning rate", ylim=(0, 8.4))
    panel.set_title("First steps of Adam on a constant slope")
    panel.grid(color="0.92")
    panel.legend(loc="upper right")


def draw() -> Figure:
    """The six panels."""
    figure = Figure(figsize=(11.5, 12.5), dpi=85, layout="constrained")
    panels = figure.subplots(3, 2)
    draw_bowl(panels[0, 0], (SGD,), title="SGD zig-zags")
    draw_bowl(panels[0, 1], (MOMENTUM, NESTEROV), title="Momentum overshoots, Nesterov less")
    draw_bowl(panels[1, 0], (RMSPROP, ADAGRAD), title="RMSProp and AdaGrad go almost straight")
    draw_adam(panels[1, 1])
    draw_saddle(panels[2, 0])
    draw_escape(panels[2, 1])
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def main(out: Path) -> Path:
    """Draw everything into a PNG file."""
    figure = draw()
    FigureCanvasAgg(figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png", pil_kwargs={"optimize": True})
    sys.stdout.write(f"{out}\n")
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("optimizer_paths.png"), help="the picture")
    main(parser.parse_args().out)
