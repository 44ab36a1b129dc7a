"""``load``: opens a checkpoint or an ensemble for prediction."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tl_kit.combining.class_order import align_classes
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig, DecodeConfig, MembersConfig, RuntimeConfig, StreamConfig
from tl_kit.errors import CheckpointError, ConfigError, NonFiniteError
from tl_kit.images.crops import check_crops, check_fit
from tl_kit.images.deep import Deep, outside_warning, unknown_warning
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.decoders import decoded_here
from tl_kit.inference.inputs import Given, named_sources, sources
from tl_kit.inference.mc_dropout import McDropout, find_dropout
from tl_kit.inference.members_in_memory import Members, arrange, weigh_too_much
from tl_kit.inference.prediction import Prediction, Predictions, prediction_of
from tl_kit.inference.run_models import Attempt, FileReader, Reader, Scorer, run_probabilities
from tl_kit.inference.streaming.groups import stream
from tl_kit.inference.streaming.placed import Placed
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.forks import ForkLock, unforked
from tl_kit.machine.precision import recorded_precision
from tl_kit.machine.runtime import detect, prepare_process
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter, note
from tl_kit.storage.checkpoint import Checkpoint, load_checkpoint, map_weights
from tl_kit.storage.ensemble_folder import EnsembleFolder, is_ensemble, read_ensemble
from tl_kit.storage.fit_folder import best_of
from tl_kit.storage.seen_images import NO_USES, Uses, uses_of, uses_together
from tl_kit.storage.unfinished import is_unfinished

__all__ = ["Predictor", "check_passes", "load", "load_members"]


@dataclass(frozen=True, repr=False)
class Predictor:
    """One or more models with one class order. ``columns[m]`` reorders member m's outputs into it.

    Every member sees the same ``crops`` of an image, each at its own input size. With ``sharing``, common layers of
    members run once and are in memory once, so do not change a member's weights in place. ``memory``: how much of the
    members stays in memory. ``mc_dropout``: the number of forward passes with dropout that are averaged, 0 for one
    without. ``decode``: limits on images. ``fitted_on``: the images that chose or fitted the rule.

    It may be used by several threads, which take turns, and in forked processes. A pickle or a deep copy, even of a
    used predictor, gives the same predictions.
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
    fitted_on: Uses = NO_USES
    _lock: ForkLock = field(default_factory=ForkLock, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        """The model's folder and networks, in a line; all of its fields would be pages long."""
        networks = ", ".join(dict.fromkeys(str(member.meta.get("model", "a network")) for member in self.members))
        members = "1 member" if len(self.members) == 1 else f"{len(self.members)} members"
        return f"<Predictor {str(self.path)!r}: {members} ({networks}), {len(self.classes)} classes>"

    @cached_property
    def uses(self) -> Uses:
        """Images that its members have seen, by use, and images that its rule was fitted on."""
        return uses_together([*map(uses_of, self.members), self.fitted_on])

    @property
    def decoding_device(self) -> torch.device | None:
        """The GPU that the members run on, which decodes plain JPEGs for those that ask for it."""
        return self.scorers[0].runtime.gpu

    @property
    def arranged(self) -> Members:
        """Arrangement of the members in groups that run together, and in memory; made at the first use."""
        with unforked(), self._lock:
            return self._arranged

    @cached_property
    def _arranged(self) -> Members:
        return arrange(self.members, self.scorers, sharing=self.sharing, config=self.memory)

    def __getstate__(self) -> dict[str, Any]:
        """The state between two predictions, with a copy of the models; the copy arranges its members again."""
        with ExitStack() as stack:
            if "_arranged" in vars(self):
                stack.enter_context(self.arranged.lock)
            stack.enter_context(unforked())
            return copy.deepcopy({name: value for name, value in vars(self).items() if name != "_arranged"})

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        if any(scorer.runtime.channels_last for scorer in self.scorers):  # not in plain mode
            prepare_process()

    def __deepcopy__(self, memo: dict[int, Any]) -> Predictor:
        twin = object.__new__(type(self))
        vars(twin).update(self.__getstate__())
        return twin

    @undisturbed()
    def member_probabilities(
        self,
        sources: Sequence[Attempt],
        *,
        digests: Sequence[str] = (),
        before: int = 0,
        filled: bool = False,
        deep: Counter[Deep] | None = None,
        reporter: Reporter = SILENT,
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Probabilities (members, n, classes), and index and reason of each image that cannot be decoded.

        ``digests`` are those of scanned images: a file that has changed since then counts as undecodable. ``before``
        images of the first one's batch were predicted in another call; ``filled``: the last batch is computed as a full
        one. ``deep`` counts images of more than 8 bits, in place of a warning. Raises CheckpointError if
        weights that are read in turns are gone, or if a member's outputs are not finite.
        """
        if not len(sources):
            return np.empty((len(self.members), 0, len(self.classes))), {}
        files = self.reader(sources, digests)
        total = before + len(sources)
        total += -total % self.per_batch if filled else 0
        reader = Placed(files, before, total) if total > len(sources) else files
        reporter.start("predict", len(sources))
        stack = self.read_probabilities(reader, reporter=reporter)
        kinds = Counter(files.deep.values())
        if deep is None:
            self.tell_deep(kinds, reporter)
        else:
            deep.update(kinds)
        if reader is not files:
            stack = stack[:, before : before + len(sources)].copy()
        return stack, dict(files.failures)

    def reader(self, sources: Sequence[Attempt], digests: Sequence[str] = ()) -> FileReader:
        """The decoder of these images for all members, within the limits. ``digests`` as above."""
        return FileReader(sources, self._preprocessings, self.crops, self.decode, digests, device=self.decoding_device)

    @undisturbed()
    def read_probabilities(self, reader: Reader, *, reporter: Reporter = SILENT) -> NDArray[np.float64]:
        """Probabilities (members, n, classes) of the images that a reader decodes. Raises as above."""
        stack = np.empty((len(self.members), len(reader), len(self.classes)))
        if not len(reader):
            return stack
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
        return stack

    def tell_deep(self, deep: Counter[Deep], reporter: Reporter) -> None:
        """Warn about deep images that lie outside the known range, or are read over their type's for lack of one."""
        known = [p.ranges for p in self._preprocessings]
        if (text := outside_warning(deep)) is not None:
            reporter.message(text)
        if (text := unknown_warning(deep, known)) is not None:
            reporter.message(text)

    @property
    def _preprocessings(self) -> list[Preprocessing]:
        return list(dict.fromkeys(member.preprocessing for member in self.members))

    @property
    def per_batch(self) -> int:
        """Images of a batch."""
        return max(1, min(scorer.runtime.batch_size for scorer in self.scorers) // self.crops.views)

    @property
    def at_once(self) -> int:
        """Number of images that a stream predicts together: several batches on a GPU, or where members take turns."""
        batches = StreamConfig.gpu_batches if self.decoding_device is not None else 1
        if len(self.arranged.passes) > 1:
            image = sum(math.prod(p.input_size) for p in self._preprocessings) * self.crops.views
            batches = max(batches, self.memory.pixel_bytes // (image * self.per_batch))
        return self.per_batch * batches

    def combine(self, stack: NDArray[np.float64]) -> NDArray[np.float64]:
        """Combine the members' probabilities (members, n, classes) by the ensemble's rule; returns (n, classes)."""
        return self.rule(stack)

    def predict(self, images: Given | Iterable[Given], *, reporter: Reporter = SILENT) -> list[Prediction]:
        """One Prediction for each image, in order; from one image, a list of one.

        An image is a path; an image file's bytes; a file opened in binary mode, read from its current position; a
        Pillow image; a uint8 array (h, w), (h, w, 3) or (h, w, 4), RGB; or a uint8 tensor (h, w), (1, h, w), (3, h, w)
        or (4, h, w), as torchvision reads them. Several images are an iterable of these, also of mixed types, an array
        (n, h, w, c) or a tensor (n, c, h, w). The ``source`` of an image without a path is its number and type.

        An image that cannot be decoded gives a Prediction with its ``error``. Raises InputError, a TypeError, before
        any model runs, for any other input: None, addresses, floats, uint16, other shapes, dictionaries.
        """
        found, names = sources(images, self.decode)
        stack, failures = self.member_probabilities(found, reporter=reporter)
        combined = self.combine(stack)
        return Predictions(
            prediction_of(name, row, self.classes, failures.get(index))
            for index, (name, row) in enumerate(zip(names, combined, strict=True))
        )

    def stream(self, images: Given | Iterable[Given], *, reporter: Reporter = SILENT) -> Iterator[Prediction]:
        """:meth:`predict` for an iterable that is taken as it comes: the same Predictions, each once its batch is full.

        Memory holds a few batches. Raises InputError where an image is not one of those that ``predict`` takes.
        """
        return stream(self, named_sources(images, self.decode), reporter=reporter)


@undisturbed()
@takes_plain_values
def load(
    path: Path | str,
    *,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
) -> Predictor:
    """Open a checkpoint, an ensemble or a fit's folder for prediction. Raises CheckpointError for any other folder.

    ``crops``: None means the crops with which the ensemble was made, or one crop for a checkpoint. ``mc_dropout``: the
    number of forward passes with dropout, whose probabilities are averaged (Gal & Ghahramani 2016); 0 means one pass
    without dropout, None the number with which the ensemble was made. Raises ConfigError for invalid crops, for crops
    larger than the resized image, and for dropout in a model that has none.
    """
    folder = best_of(Path(path))
    if is_ensemble(folder):
        ensemble = read_ensemble(folder)
        members = [load_checkpoint(member, mapped=True) for member in ensemble.members]
        classes, rule, crops = ensemble.classes, ensemble.rule, crops or _stored_crops(ensemble, members)
        mc_dropout = ensemble.mc_dropout if mc_dropout is None else mc_dropout
        fitted_on = ensemble.fitted_on
    else:
        members = [load_checkpoint(folder)]
        classes, rule, crops = members[0].classes, FittedRule(), crops or CropConfig()
        fitted_on = NO_USES
    return load_members(
        folder,
        members,
        classes=classes,
        rule=rule,
        crops=crops,
        mc_dropout=mc_dropout or 0,
        decode=decode,
        runtime=runtime,
        fitted_on=fitted_on,
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
    fitted_on: Uses = NO_USES,
) -> Predictor:
    """Combine loaded members into a predictor with the class order ``classes``.

    Raises MemberError if their class names differ, ConfigError for ``crops`` that do not fit a member, or for
    ``mc_dropout`` with a member that has no dropout.
    """
    check_crops(crops)
    check_passes(mc_dropout)
    members = [decoded_here(member, runtime, crops) for member in members]
    for member in members:
        check_fit(crops, member.preprocessing, name=str(member.path))
        _tell_mirrored(member, crops)
        _tell_cut_short(member)
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
        fitted_on=fitted_on,
    )


def _tell_mirrored(member: Checkpoint, crops: CropConfig) -> None:
    """Say that the crops have mirror images, where the member's training left them out."""
    settings = member.meta.get("settings")
    if crops.crops < 10 or not isinstance(settings, Mapping):
        return
    if settings.get("flip") == 0 and settings.get("augment") != "none":
        note(
            f"{member.path}: was trained without mirror images, and --crops {crops.crops} averages them in: use "
            "--crops 5 where left and right are different classes"
        )


def _tell_cut_short(member: Checkpoint) -> None:
    """Say that the member's training was killed: its record has no end."""
    if member.meta.get("status") == "running":
        goes_on = f"; tlkit finetune --resume {member.path} goes on" if is_unfinished(member.path) else ""
        note(f"warning: {member.path}: its training was cut short; these are its best weights until then{goes_on}")


def check_passes(mc_dropout: int) -> None:
    """Raises ConfigError, naming ``--mc-dropout``, for an impossible number of passes."""
    if type(mc_dropout) is not int or mc_dropout < 0:
        raise ConfigError(f"--mc-dropout {mc_dropout}: must be a number of forward passes, or 0 for none with dropout")


def _scorers(members: Sequence[Checkpoint], config: RuntimeConfig, mc_dropout: int) -> tuple[Scorer, ...]:
    """One scorer for each member; weights that the search for dropout loads are released if they are too large."""
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
    """A scorer in the precision in which the run scored the member; if this device lacks it, the user is told."""
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
