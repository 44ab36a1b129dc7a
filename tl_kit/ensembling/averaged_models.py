"""Averages of the members' weights as models: what each predicts for the validation images, found once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_kit.combining.average_choice import Mix
from tl_kit.config import AugmentConfig, AugmentLevels
from tl_kit.data.exclusions import tell_left_out
from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.ensembling.evidence import Evidence, KeptReader
from tl_kit.ensembling.weight_averaging import aligned_state, check_ingredients, differ_below_the_head
from tl_kit.errors import DataError
from tl_kit.images.augmentation import TrainTransform, level_of
from tl_kit.images.batched import vary
from tl_kit.images.transforms import normalize
from tl_kit.inference.held_out_heads import as_scored_on
from tl_kit.inference.run_models import FileReader, Scorer, run_probabilities
from tl_kit.machine.runtime import Runtime
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.training.averaging import average_weights
from tl_kit.training.batchnorm import reestimate_statistics, statistics_layers

__all__ = ["Mixtures", "agreed_augmentation"]

_SEED = 0


class Mixtures:
    """Members that may be averaged, numbered in ``evidence.order``. Raises MemberError where they may not be.

    One model is in memory for all averages; the members are read one after the other. If a final head was fitted to an
    image that chooses among the averages, these are of the heads that were fitted without it.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        predictor = as_scored_on(evidence.predictor, evidence.val)
        self.members = [predictor.members[index] for index in evidence.order]
        check_ingredients(predictor.members)
        self._columns = [predictor.columns[index] for index in evidence.order]
        for member, columns in zip(self.members, self._columns, strict=True):
            aligned_state(member, columns)  # refused before anything is computed
        self._digests = [evidence.digests[index] for index in evidence.order]
        self._alone = evidence.stack[list(evidence.order)]
        self._found: dict[Mix, NDArray[np.float64]] = {}
        self._statistics: dict[Mix, dict[str, Tensor]] = {}

    def options(self, weights: Sequence[float]) -> tuple[Mix, ...]:
        """The mixes with these weights, in any scale: as averaged and, where BatchNorm averages too, re-estimated.

        Copies of a member count as one, and one member is what it was.
        """
        total: dict[str, float] = defaultdict(float)
        for digest, weight in zip(self._digests, weights, strict=True):
            total[digest] += weight / sum(weights)
        first = [self._digests.index(digest) == index for index, digest in enumerate(self._digests)]
        heavy = [total[d] if is_first else 0.0 for d, is_first in zip(self._digests, first, strict=True)]
        mix = Mix(tuple(1.0 if weight > 1 - 1e-9 else weight for weight in heavy))
        return (mix, replace(mix, reestimated=True)) if mix.member is None and self.has_statistics else (mix,)

    def probabilities(self, mix: Mix) -> NDArray[np.float64]:
        """Of the validation images, (n, k)."""
        if mix.member is not None:
            alone: NDArray[np.float64] = self._alone[mix.member]
            return alone
        if mix not in self._found:
            self.load(mix)
            reporter, ingredients = self.evidence.reporter, np.count_nonzero(mix.weights)
            reporter.start(f"average of {ingredients}", len(self._val))
            self._found[mix] = run_probabilities([self._scorer], self._val, reporter=reporter)[0]
            for index, reason in self._val.reader.failures.items():
                raise DataError(f"{self.evidence.val[index].path}: {reason}; start anew")
        return self._found[mix]

    @property
    def scored(self) -> int:
        """Number of averages that have been run on the validation images."""
        return len(self._found)

    def load(self, mix: Mix) -> nn.Module:
        """The model with these weights, in eval mode; the next call changes it."""
        pairs = [(m, c, w) for m, c, w in zip(self.members, self._columns, mix.weights, strict=True) if w]
        states = (aligned_state(member, columns) for member, columns, _ in pairs)
        self._model.load_state_dict(average_weights(states, [weight for *_, weight in pairs]))
        if mix.reestimated:
            self._reestimate(mix)
        return self._model

    @cached_property
    def images(self) -> int:
        """Number of training images on which BatchNorm's statistics are estimated."""
        return min(len(self.evidence.train), self.evidence.config.soups.batchnorm_images)

    @cached_property
    def _model(self) -> nn.Module:
        return load_checkpoint(self.members[0].path).model

    @cached_property
    def _scorer(self) -> Scorer:
        """In the members' precision, fp32 where they differ."""
        runtimes = [self.evidence.predictor.scorers[index].runtime for index in self.evidence.order]
        alike = len({runtime.precision for runtime in runtimes}) == 1
        runtime = runtimes[0] if alike else replace(runtimes[0], precision="fp32")
        scorer = Scorer(self._model, self.members[0].preprocessing, runtime)
        scorer.prepare()
        return scorer

    @cached_property
    def has_statistics(self) -> bool:
        """True where BatchNorm sees other activations in an average than in its ingredients."""
        return self.images > 1 and bool(statistics_layers(self._model)) and differ_below_the_head(self.members)

    @cached_property
    def _val(self) -> KeptReader:
        paths = [sample.path for sample in self.evidence.val]
        digests = [sample.digest for sample in self.evidence.val]
        config = self.evidence.config
        device = self.evidence.predictor.decoding_device
        preprocessings = [self.members[0].preprocessing]
        reader = FileReader(paths, preprocessings, config.crops, config.decode, digests, device=device)
        return KeptReader(reader, config.store)

    @cached_property
    def augment_name(self) -> str:
        """The level of augmentation that the runs agree on; standard where they do not, or had one of their own."""
        return _agreed_level(self._settings)

    @cached_property
    def _augment(self) -> AugmentConfig:
        return agreed_augmentation(self._settings)

    @property
    def _settings(self) -> list[object]:
        return [member.meta.get("settings") for member in self.members]

    @cached_property
    def _train(self) -> tuple[PixelStore, list[Sample]]:
        """Decoded training images, as augmentation draws from them, and the samples that could be decoded."""
        evidence, samples = self.evidence, self.evidence.train[: self.images]
        store = PixelStore(
            self.members[0].preprocessing,
            evidence.config.store,
            limits=evidence.config.decode,
            device=evidence.predictor.decoding_device,
        )
        evidence.reporter.start("decode", len(samples))
        failures = store.fill(samples, crop=not self._augment.active, on_image=evidence.reporter.advance)
        tell_left_out(evidence.manifest.named(failures), evidence.manifest.root, evidence.reporter)
        broken = {exclusion.path for exclusion in failures}
        return store, [sample for sample in samples if sample.path not in broken]

    def _reestimate(self, mix: Mix) -> None:
        """The statistics are remembered: the model that is saved is the one that was scored."""
        layers = statistics_layers(self._model)
        if mix not in self._statistics:
            runtime = self._scorer.runtime  # made first: it puts the model into eval mode
            reestimate_statistics(self._model, self._batches(runtime))
            self._statistics[mix] = {
                f"{name}.{key}": buffer.detach().cpu().clone()
                for name, layer in layers.items()
                for key, buffer in layer.named_buffers(recurse=False)
            }
        self._model.load_state_dict(self._statistics[mix], strict=False)

    def _batches(self, runtime: Runtime) -> Iterator[Tensor]:
        """Training images as training saw them, normalised, in batches of nearly equal size."""
        preprocessing = self.members[0].preprocessing
        store, samples = self._train
        transform = TrainTransform(preprocessing, self._augment)
        self.evidence.reporter.start("batchnorm statistics", len(samples))
        for part in np.array_split(np.arange(len(samples)), max(1, round(len(samples) / runtime.batch_size))):
            chosen = [samples[index] for index in part]
            pixels = store.get(chosen, crop=not self._augment.active)
            if self._augment.active:
                keys = [sample.digest for sample in chosen]
                batch = vary(pixels, transform, seed=_SEED, epoch=0, keys=keys, device=runtime.device)
            else:
                batch = torch.stack(pixels)
            if len(batch) > 1:
                yield normalize(runtime.batch(batch), preprocessing)
            self.evidence.reporter.advance(len(chosen))


def _agreed_level(settings: Sequence[object]) -> str:
    """The level of augmentation that runs with these settings agree on; standard where they do not, or have others."""
    found = (each.get("augment") for each in settings if isinstance(each, Mapping))
    names = {level_of(str(name)) for name in found if name is not None}
    known = names & set(AugmentLevels().levels)
    return known.pop() if len(names) == len(known) == 1 else "standard"


def agreed_augmentation(settings: Sequence[object]) -> AugmentConfig:
    """The augmentation of that level, with mirror images as often as the runs agree on."""
    level = AugmentLevels().levels[_agreed_level(settings)]
    flips = {each.get("flip", level.flip) for each in settings if isinstance(each, Mapping)}
    flip = flips.pop() if len(flips) == 1 else level.flip
    return replace(level, flip=flip) if isinstance(flip, int | float) and 0 <= flip <= 1 else level
