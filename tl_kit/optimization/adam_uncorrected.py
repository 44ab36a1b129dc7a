"""Adam without bias correction: the first version of the lecture, kept to show why the correction matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

__all__ = ["AdamUncorrected"]


class AdamUncorrected(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) with the moments used as they are.

    ::

        g = ∇f(x) + weight_decay · x
        m = β1 m + (1 − β1) g
        s = β2 s + (1 − β2) g²
        x = x − lr · m / (√s + eps)

    Both moments start at zero, and β2 is closer to one than β1, so the second one is the further from its true size:
    the first step is (1 − β1) / √(1 − β2) times as long as Adam's, 3.2 times with the usual betas. ``weight_decay``
    is coupled (an L2 penalty), as in ``torch.optim.Adam``.

    Raises ``ValueError`` for a negative rate, decay or epsilon, and for betas outside [0, 1).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr {lr}, eps {eps} and weight_decay {weight_decay} must be at least 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must be at least 0 and below 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what ``closure`` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        parameter.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-group["lr"])
