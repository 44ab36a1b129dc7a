"""Features of the members: the input of their linear classifiers, computed once per trunk and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.config import CropConfig, DecodeConfig
from tl_kit.data.manifest import Sample
from tl_kit.ensembling.evidence import Evidence
from tl_kit.errors import DataError, MemberError
from tl_kit.freezing.trunk import Trunk
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.run_models import FileReader, Scorer, run_models
from tl_kit.inference.trunk_features import TrunkFeatures, feature_place, prove_features
from tl_kit.machine.runtime import Runtime
from tl_kit.storage.cache_keys import cache_key
from tl_kit.storage.checkpoint import Checkpoint, map_weights
from tl_kit.storage.feature_store import FeatureStore
from tl_kit.zoo.heads import linear_classifier

__all__ = ["MemberFeatures"]

_PROOF_SEED = 0
_NOT_LINEAR = "its classifier is not one linear layer with a bias on pooled features, which rule concat needs"


@dataclass(frozen=True)
class _TrunkPass:
    """A pass of a batch through a member up to its classifier."""

    checkpoint: Checkpoint
    scorer: Scorer
    cut: str
    width: int
    stays: bool

    @property
    def preprocessing(self) -> Preprocessing:
        return self.scorer.preprocessing

    @property
    def runtime(self) -> Runtime:
        return self.scorer.runtime

    def prepare(self) -> None:
        self.scorer.prepare()

    def release(self) -> None:
        if not self.stays:
            map_weights(self.checkpoint)

    def __call__(self, pixels: Tensor) -> Tensor:
        return Scorer(Trunk(self.checkpoint.model, self.cut), self.preprocessing, self.runtime)(pixels)

    def features(self, place: tuple[Path, int], decode: DecodeConfig) -> TrunkFeatures:
        """The member's features, cached. Raises MemberError unless its classifier is one linear layer on them."""
        model, size = self.checkpoint.model, self.preprocessing.input_size
        key = cache_key(
            model,
            self.cut,
            preprocessing=self.preprocessing,
            runtime=self.runtime,
            decode=decode,
            more={"rows": "member"},
        )

        def images(count: int) -> Tensor:
            self.prepare()
            return self.runtime.batch(torch.randn((count, *size), generator=torch.Generator().manual_seed(_PROOF_SEED)))

        store = FeatureStore(place[0], key, place[1])
        found = prove_features(model, self.cut, store, runtime=self.runtime, input_size=size, images=images)
        self.release()
        if found is None or not found.flat:
            raise MemberError(f"{self.checkpoint.path}: {_NOT_LINEAR}")
        return found


class MemberFeatures:
    """Features of each member, in ``evidence.order``; members with a common trunk share one computation.

    They are stored in the feature cache or, if it is off, in ``scratch``. Raises MemberError for a member whose
    classifier is not one linear layer on flat features.
    """

    def __init__(self, evidence: Evidence, scratch: Path) -> None:
        self.evidence = evidence
        arranged = evidence.predictor.arranged
        stays = {m: p.stays for p, owners in zip(arranged.passes, arranged.owners, strict=True) for m in owners}
        self._passes = [_trunk_pass(evidence, index, stays[index]) for index in evidence.order]
        config = evidence.config
        place = feature_place(config.cache, config.runtime, lambda: scratch, evidence.reporter)
        stores = [each.features(place, config.decode).store for each in self._passes]
        self._keys = [store.key for store in stores]
        self._stores = dict(zip(self._keys, stores, strict=True))

    @property
    def widths(self) -> list[int]:
        """The number of features of each member."""
        return [each.width for each in self._passes]

    def __call__(
        self, samples: Sequence[Sample], crops: CropConfig = CropConfig()
    ) -> tuple[list[NDArray[np.float32]], list[int]]:
        """Each member's features (n * views, f), and the positions of the n samples that can be decoded."""
        names = [f"{crops!r}/{view}" for view in range(crops.views)]
        rows = [[f"{sample.digest}/{name}" for name in names] for sample in samples]
        lacking = [i for i, names in enumerate(rows) if any(s.missing(names) for s in self._stores.values())]
        gone = self._compute([samples[i] for i in lacking], [rows[i] for i in lacking], crops) if lacking else set()
        kept = [index for index in range(len(samples)) if samples[index].digest not in gone]
        names = [name for index in kept for name in rows[index]]
        if not names:
            raise DataError(f"{self.evidence.manifest.root}: none of the {len(samples)} images can be decoded")
        return [self._stores[key].get(names).float().numpy() for key in self._keys], kept

    def _compute(self, samples: Sequence[Sample], rows: Sequence[Sequence[str]], crops: CropConfig) -> set[str]:
        """Fill the stores, decoding each image once; returns the digests of the images that cannot be decoded."""
        names = [name for each in rows for name in each]
        todo = {
            key: each for key, each in zip(self._keys, self._passes, strict=True) if self._stores[key].missing(names)
        }
        preprocessings = list(dict.fromkeys(each.preprocessing for each in todo.values()))
        reader = FileReader(
            [sample.path for sample in samples],
            preprocessings,
            crops,
            self.evidence.config.decode,
            [sample.digest for sample in samples],
            device=self.evidence.predictor.decoding_device,
        )
        self.evidence.reporter.start("features", len(samples))
        pixel_bytes = self.evidence.predictor.memory.pixel_bytes
        outputs = run_models(list(todo.values()), reader, pixel_bytes=pixel_bytes, reporter=self.evidence.reporter)
        broken = {position * crops.views + view for position in reader.failures for view in range(crops.views)}
        for key, output in zip(todo, outputs, strict=True):
            new = [position for position in self._stores[key].missing(names) if position not in broken]
            self._stores[key].add([names[position] for position in new], iter([output[new]]))
        return {samples[position].digest for position in reader.failures}


def _trunk_pass(evidence: Evidence, index: int, stays: bool) -> _TrunkPass:
    checkpoint, scorer = evidence.predictor.members[index], evidence.predictor.scorers[index]
    found = linear_classifier(checkpoint.model)
    if found is None or found[1].bias is None:
        raise MemberError(f"{checkpoint.path}: {_NOT_LINEAR}")
    return _TrunkPass(checkpoint, scorer, found[0], found[1].in_features, stays)
