"""``load``: a checkpoint or an ensemble, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit import metrics
from tl_kit.config import RuntimeConfig
from tl_kit.ensembling.alignment import align_classes
from tl_kit.ensembling.folder import is_ensemble, read_ensemble
from tl_kit.ensembling.rules import combine
from tl_kit.inference import FileReader, Scorer, Source, run_models
from tl_kit.measurement import choose_precision
from tl_kit.reporting import SILENT, Reporter
from tl_kit.runtime import detect
from tl_kit.training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["Prediction", "Predictor", "load", "load_members"]


@dataclass(frozen=True)
class Prediction:
    """One image's probabilities by class name, most probable first; or ``error``, the reason why there are none."""

    source: str
    probabilities: dict[str, float]
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class name; None where the image could not be decoded."""
        return next(iter(self.probabilities), None)


@dataclass(frozen=True)
class Predictor:
    """One or more models with one class order. ``columns[m]`` brings member m's outputs into it."""

    path: Path
    classes: tuple[str, ...]
    members: tuple[Checkpoint, ...]
    columns: tuple[tuple[int, ...], ...]
    rule: str
    scorers: tuple[Scorer, ...]

    def member_probabilities(
        self, sources: Sequence[Source], *, reporter: Reporter = SILENT
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Probabilities (members, n, classes), and index and reason of each image that cannot be decoded."""
        reader = FileReader(sources, list(dict.fromkeys(member.preprocessing for member in self.members)))
        reporter.start("predict", len(sources))
        outputs = run_models(self.scorers, reader, reporter=reporter)
        stack = np.empty((len(self.members), len(sources), len(self.classes)))
        for index, (logits, columns) in enumerate(zip(outputs, self.columns, strict=True)):
            if len(sources):
                stack[index] = metrics.softmax(logits.numpy().astype(np.float64))[:, columns]
        return stack, dict(reader.failures)

    def combine(self, stack: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rule's probabilities (n, classes) from those of the members (members, n, classes)."""
        return combine(self.rule, stack)

    def predict(
        self, images: Source | str | Iterable[Source | str], *, reporter: Reporter = SILENT
    ) -> list[Prediction]:
        """One Prediction for each image, in order. Images are paths, bytes of image files, or Pillow images."""
        single = isinstance(images, (str, Path, bytes, Image.Image))
        items = [images] if single else list(images)  # type: ignore[arg-type]
        sources: list[Source] = [Path(item) if isinstance(item, str) else item for item in items]  # type: ignore[misc]
        stack, failures = self.member_probabilities(sources, reporter=reporter)
        combined = self.combine(stack)
        return [
            self._prediction(source, row, failures.get(index))
            for index, (source, row) in enumerate(zip(sources, combined, strict=True))
        ]

    def _prediction(self, source: Source, row: NDArray[np.float64], error: str | None) -> Prediction:
        name = str(source) if isinstance(source, Path) else type(source).__name__
        if error is not None:
            return Prediction(name, {}, error)
        return Prediction(name, {self.classes[i]: float(row[i]) for i in np.argsort(-row, kind="stable")})


def load(path: Path | str, *, runtime: RuntimeConfig = RuntimeConfig()) -> Predictor:
    """Open a checkpoint or an ensemble folder. Raises CheckpointError if it is neither, or broken."""
    folder = Path(path)
    if is_ensemble(folder):
        ensemble = read_ensemble(folder)
        members = [load_checkpoint(member) for member in ensemble.members]
        return load_members(folder, members, classes=ensemble.classes, rule=ensemble.rule, runtime=runtime)
    checkpoint = load_checkpoint(folder)
    return load_members(folder, [checkpoint], classes=checkpoint.classes, rule="mean", runtime=runtime)


def load_members(
    path: Path, members: Sequence[Checkpoint], *, classes: Sequence[str], rule: str, runtime: RuntimeConfig
) -> Predictor:
    """Put loaded members together, in the class order ``classes``. Raises MemberError if their names differ."""
    names = [str(path), *(str(member.path) for member in members)]
    _, (_, *columns) = align_classes([classes, *(member.classes for member in members)], names)
    scorers = tuple(_scorer(member, runtime) for member in members)
    return Predictor(path, tuple(classes), tuple(members), tuple(map(tuple, columns)), rule, scorers)


def _scorer(member: Checkpoint, config: RuntimeConfig) -> Scorer:
    """In the precision in which the run scored it; fp32 where bf16 turns out to be no faster on this machine."""
    recorded = member.meta.get("precision", "fp32")
    if config.precision == "auto" and recorded not in ("bf16", "auto"):
        config = replace(config, precision="fp32")
    name = str(member.meta.get("config", {}).get("model", member.path.name))
    size = member.preprocessing.input_size
    runtime, _ = choose_precision(member.model, size, detect(config), name=name, config=config)
    return Scorer(member.model, member.preprocessing, runtime)
