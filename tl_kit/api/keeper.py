"""The best epoch's weights, in memory and in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping

from accelerate.utils import broadcast_object_list
from torch import Tensor

from tl_kit.api.run import Run
from tl_kit.training.checkpoint import save_weights
from tl_kit.training.loop import FitResult

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

    def result(self) -> FitResult:
        return FitResult(epochs=self.epoch, best_epoch=self.epoch)
