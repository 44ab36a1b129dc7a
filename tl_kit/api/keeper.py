"""The best epoch's weights, in memory and in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import Tensor

from tl_kit.api.run import Run
from tl_kit.api.saving import changing_names
from tl_kit.training.checkpoint import save_weights
from tl_kit.training.stateful import check_tensors
from tl_kit.training.task import FitResult

__all__ = ["BestKeeper"]


class BestKeeper:
    """Keeps the best epoch's weights, in memory and in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.best: dict[str, Tensor] = {}
        self.epoch = 0

    def __call__(self, epoch: int, scores: Mapping[str, float] | None) -> None:
        self.epoch = epoch
        self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.run.model.state_dict().items()}
        if self.run.writes:
            save_weights(self.run.folder, self.run.model)

    def restore(self) -> None:
        answer = [self.best]
        broadcast_object_list(answer)
        self.run.model.load_state_dict(answer[0])

    def state(self) -> dict[str, object]:
        """The tensors that the run may have changed; those that it freezes are the model's."""
        names = changing_names(self.run)
        return {"epoch": self.epoch, "tensors": {n: tensor for n, tensor in self.best.items() if n in names}}

    def load_state(self, state: Any) -> None:
        self.epoch, self.best = state["epoch"], {}
        if not state["tensors"]:  # no epoch was over
            return
        own = self.run.model.state_dict()
        names = changing_names(self.run) & own.keys()
        check_tensors({name: own[name] for name in names}, state["tensors"])
        self.best = {name: t.detach().cpu().clone() for name, t in {**own, **state["tensors"]}.items()}

    def result(self) -> FitResult:
        return FitResult(epochs=self.epoch, best_epoch=self.epoch)
