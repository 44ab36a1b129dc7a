"""``load``: a checkpoint or an ensemble, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.api.members import Members, arrange, weigh_too_much
from tl_kit.config import CropConfig, DecodeConfig, MembersConfig, RuntimeConfig
from tl_kit.data.crops import check_crops, check_fit
from tl_kit.data.limits import check_limits
from tl_kit.ensembling.alignment import align_classes
from tl_kit.ensembling.fitted import FittedRule
from tl_kit.ensembling.folder import EnsembleFolder, is_ensemble, read_ensemble
from tl_kit.errors import CheckpointError, ConfigError, NonFiniteError
from tl_kit.inference import FileReader, Scorer, Source, run_probabilities
from tl_kit.precision import recorded_precision
from tl_kit.reporting import SILENT, Reporter, note
from tl_kit.runtime import detect
from tl_kit.training.checkpoint import Checkpoint, load_checkpoint, map_weights
from tl_kit.zoo.dropout import McDropout, find_dropout

__all__ = ["Prediction", "Predictor", "check_passes", "load", "load_members"]


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
    """One or more models with one class order. ``columns[m]`` brings member m's outputs into it.

    Every member sees the same ``crops`` of an image, each at its own input size. With ``sharing``, layers that members
    have in common run once, and are in memory once: change no member's weights in place. ``memory`` says how much of
    the members stays there. ``mc_dropout``: forward passes with dropout that are averaged, 0 for one without.
    ``decode``: which images are too large.
    """

    path: Path
    classes: tuple[str, ...]
    members: tuple[Checkpoint, ...]
    columns: tuple[tuple[int, ...], ...]
    rule: FittedRule
    scorers: tuple[Scorer, ...]
    crops: CropConfig = CropConfig()
    mc_dropout: int = 0
    decode: DecodeConfig = DecodeConfig()
    sharing: bool = True
    memory: MembersConfig = MembersConfig()

    @cached_property
    def arranged(self) -> Members:
        """Who runs with whom, and who stays in memory; found out when it is first needed."""
        return arrange(self.members, self.scorers, sharing=self.sharing, config=self.memory)

    def member_probabilities(
        self, sources: Sequence[Source], *, digests: Sequence[str] = (), reporter: Reporter = SILENT
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Probabilities (members, n, classes), and index and reason of each image that cannot be decoded.

        ``digests``, of images that were scanned: a file that has changed since is one of those. Raises CheckpointError
        if weights that are read in turns are gone, and where a member's outputs are not finite.
        """
        preprocessings = list(dict.fromkeys(member.preprocessing for member in self.members))
        reader = FileReader(sources, preprocessings, self.crops, self.decode, digests)
        reporter.start("predict", len(sources))
        stack = np.empty((len(self.members), len(sources), len(self.classes)))
        if not len(sources):
            return stack, {}
        together = self.arranged
        try:
            with together.lock:
                found = run_probabilities(
                    together.passes, reader, pixel_bytes=self.memory.pixel_bytes, reporter=reporter
                )
        except NonFiniteError as error:
            raise CheckpointError(f"{self.path}: {error}, so it predicts nothing; train again") from error
        for owners, probabilities in zip(together.owners, found, strict=True):
            for place, member in enumerate(owners):
                stack[member] = probabilities[:, place, self.columns[member]]
        return stack, dict(reader.failures)

    def combine(self, stack: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rule's probabilities (n, classes) from those of the members (members, n, classes)."""
        return self.rule(stack)

    def predict(
        self, images: Source | str | Iterable[Source | str], *, reporter: Reporter = SILENT
    ) -> list[Prediction]:
        """One Prediction for each image, in order. Images are paths, bytes of image files, or Pillow images."""
        items = [images] if isinstance(images, (str, Path, bytes, Image.Image)) else list(images)
        sources = [Path(item) if isinstance(item, str) else item for item in items]
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


def load(
    path: Path | str,
    *,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
) -> Predictor:
    """Open a checkpoint or an ensemble folder. Raises CheckpointError if it is neither, or broken.

    ``crops`` ``None``: those that the ensemble was made with; one crop for a checkpoint. ``mc_dropout``: so many
    forward passes with dropout, whose probabilities are averaged (Gal & Ghahramani 2016); 0: one without; None: as the
    ensemble was made. Raises ConfigError for crops that are none, or that are larger than the resized image, and where
    dropout is asked of a model that has none.
    """
    folder = Path(path)
    if is_ensemble(folder):
        ensemble = read_ensemble(folder)
        members = [load_checkpoint(member, mapped=True) for member in ensemble.members]
        classes, rule, crops = ensemble.classes, ensemble.rule, crops or _stored_crops(ensemble, members)
        mc_dropout = ensemble.mc_dropout if mc_dropout is None else mc_dropout
    else:
        members = [load_checkpoint(folder)]
        classes, rule, crops = members[0].classes, FittedRule(), crops or CropConfig()
    return load_members(
        folder,
        members,
        classes=classes,
        rule=rule,
        crops=crops,
        mc_dropout=mc_dropout or 0,
        decode=decode,
        runtime=runtime,
    )


def _stored_crops(ensemble: EnsembleFolder, members: Sequence[Checkpoint]) -> CropConfig:
    try:
        for member in members:
            check_fit(ensemble.crops, member.preprocessing, name=str(member.path))
    except ConfigError as error:
        raise CheckpointError(f"{ensemble.path}: was not made with these members: {error}") from error
    return ensemble.crops


def load_members(
    path: Path,
    members: Sequence[Checkpoint],
    *,
    classes: Sequence[str],
    rule: FittedRule,
    crops: CropConfig = CropConfig(),
    mc_dropout: int = 0,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig,
) -> Predictor:
    """Put loaded members together, in the class order ``classes``.

    Raises MemberError if their names differ, ConfigError for ``crops`` that a member cannot take, if one has no dropout
    that ``mc_dropout`` could let act, or for limits that no image can keep.
    """
    check_limits(decode)
    check_crops(crops)
    check_passes(mc_dropout)
    for member in members:
        check_fit(crops, member.preprocessing, name=str(member.path))
    names = [str(path), *(str(member.path) for member in members)]
    _, (_, *columns) = align_classes([classes, *(member.classes for member in members)], names)
    return Predictor(
        path,
        tuple(classes),
        tuple(members),
        tuple(map(tuple, columns)),
        rule,
        _scorers(members, runtime, mc_dropout),
        crops,
        mc_dropout,
        decode,
        sharing=runtime.mode != "plain" and not mc_dropout,
    )


def check_passes(mc_dropout: int) -> None:
    """Raises ConfigError, naming ``--mc-dropout``, for a number of passes that cannot be."""
    if type(mc_dropout) is not int or mc_dropout < 0:
        raise ConfigError(f"--mc-dropout {mc_dropout}: must be a number of forward passes, or 0 for none with dropout")


def _scorers(members: Sequence[Checkpoint], config: RuntimeConfig, mc_dropout: int) -> tuple[Scorer, ...]:
    """One a member; looking for dropout brings weights into memory, which they leave again where they are many."""
    scorers = [_scorer(member, config) for member in members]
    if not mc_dropout:
        return tuple(scorers)
    sizes = [sum(parameter.nbytes for parameter in member.model.parameters()) for member in members]
    heavy = weigh_too_much(sizes, MembersConfig())
    found = []
    for member, scorer in zip(members, scorers, strict=True):
        found.append(replace(scorer, dropout=_dropout(member, mc_dropout)))
        if heavy:
            map_weights(member)
    return tuple(found)


def _scorer(member: Checkpoint, config: RuntimeConfig) -> Scorer:
    """In the precision in which the run scored it; where this device cannot, that is noted for the user."""
    recorded = str(member.meta.get("precision", "fp32"))
    runtime, line = recorded_precision(recorded, member.model, detect(config), config)
    if line is not None:
        note(f"{member.path}: {line}")
    return Scorer(member.model, member.preprocessing, runtime)


def _dropout(member: Checkpoint, passes: int) -> McDropout:
    sites = find_dropout(member.model, member.preprocessing.input_size)
    if not sites.active:
        raise ConfigError(
            f"--mc-dropout {passes}: {member.path} has no active dropout; train it with --dropout 0.2, for example, or "
            "leave the option out"
        )
    return McDropout(passes, sites)
