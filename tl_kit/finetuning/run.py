"""One fine-tuning run: its given parts, such as configuration, model and folder; and its images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_kit.clock import Clock
from tl_kit.config import AugmentConfig, FinetuneConfig
from tl_kit.data.exclusions import tell_left_out, unscored_now
from tl_kit.data.manifest import Exclusion, Manifest, Sample, check_trainable
from tl_kit.data.pixel_store import PixelStore
from tl_kit.freezing.audit import tensor_digest
from tl_kit.freezing.policies import Layers, Policy
from tl_kit.freezing.train_mode import apply_policy, forward_order
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.runtime import Runtime
from tl_kit.optimization.cases import Reasoned
from tl_kit.optimization.class_weights import image_weights
from tl_kit.optimization.network_traits import ScaleFree, find_scale_free
from tl_kit.reporting import Reporter, tell
from tl_kit.storage.fingerprint import digest_of, network_settings
from tl_kit.storage.seen_images import Uses
from tl_kit.storage.unfinished import Unfinished
from tl_kit.tracking.trackers import Tracking
from tl_kit.zoo.build_model import WeightsReport
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["Run", "RunImages", "Settled", "Taught", "apply_trainable"]

_FOUND: OrderedDict[str, ScaleFree] = OrderedDict()
_KEPT = 16


@dataclass
class RunImages:
    """The images of a run and of the runs made from it: their list, and their pixels once decoded.

    They have one owner: an image that cannot be decoded leaves ``manifest`` for everybody, and is found once; another
    crop mode has another ``store``. ``content``: the content hash of the whole data set, where the training images are
    a sample of it.
    """

    manifest: Manifest
    store: PixelStore
    content: str | None = None

    def decode(
        self, samples: Sequence[Sample], *, crop: bool, on_image: Callable[[], object] | None = None
    ) -> tuple[frozenset[str], list[Exclusion]]:
        """Decode samples into the store; returns digests and files, copies too, of those that cannot be decoded."""
        failures = self.store.fill(samples, crop=crop, on_image=on_image)
        paths = {exclusion.path: exclusion.reason for exclusion in failures}
        reasons = {s.digest: paths[s.path] for s in samples if s.path in paths}
        found = {s.path: reasons[s.digest] for s in self.manifest.samples if s.digest in reasons}
        broken = [Exclusion(path, reason) for path, reason in found.items()]
        if broken:
            self.manifest = self.manifest.without(broken)
        return frozenset(reasons), broken

    def content_hash(self) -> str:
        """The content hash of the whole data set; of the images that are left, where the run has all of it."""
        return self.content or self.manifest.content_hash()


@dataclass(frozen=True)
class Taught:
    """A teacher's probabilities (k,) by the digests of training images, and what the teacher has seen."""

    targets: Mapping[str, Tensor]
    uses: Uses


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Settled choices of a second training: what the first one kept. Both train, the second on validation images too.

    ``alpha``: the trained network's share of the weights, above 0 and at most 1; the rest is that of the head, fitted
    to the pretrained features. ``temperature``: what the classifier is divided by. ``first``: the folder of the first
    training, whose network scores the validation images from then on, and ``record`` its record.
    """

    first: Path
    record: Mapping[str, Any]
    alpha: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """The given parts of a fine-tuning run, which all of its steps read.

    None of them is replaced in a run. A step that settles one, such as the policy, returns another run, which has the
    images, the model, the clock and the folder in common with the first.

    ``cleanup``: what is undone when the run ends. ``folder``: the run's own, unless it is a ``dry`` one.
    ``balance``: what is done about classes of uneven size; ``select``: the validation figure that chooses the epoch.
    ``resumed``: the run that this one takes up again. ``taught``: by the teacher, once that has been asked.
    ``tracking``: the experiment trackers that follow the run. ``settled``: None where validation images decide.
    """

    config: FinetuneConfig
    reporter: Reporter
    runtime: Runtime
    accelerator: Accelerator
    clock: Clock
    cleanup: ExitStack
    folder: Path
    dry: bool
    images: RunImages
    model: nn.Module
    weights: WeightsReport
    policy: Policy
    augment: AugmentConfig
    augment_name: str
    balance: Reasoned[str]
    select: Reasoned[str]
    resumed: Unfinished | None = None
    taught: Taught | None = None
    tracking: Tracking = field(default_factory=Tracking)
    settled: Settled | None = None

    def decode(self, samples: Sequence[Sample], *, crop: bool, show: bool = True) -> frozenset[str]:
        """Decode samples into the pixel store; those that cannot be decoded leave the manifest, with all their copies.

        Returns the digests of what left. Raises DataError if too few images are left to train on.
        """
        samples = list({sample.digest: sample for sample in samples}.values())  # a bootstrap sample has copies
        if show:
            self.reporter.start("decode", len(samples))
        with self.clock("data"):
            before = self.manifest
            gone, broken = self.images.decode(samples, crop=crop, on_image=self.reporter.advance if show else None)
        tell(self.reporter)
        if broken:
            tell_left_out(before.named(broken), self.config.data, self.reporter)
            for line in unscored_now(before, self.manifest):
                self.reporter.message(line)
            check_trainable(self.manifest, validates=self.settled is None)
        return gone

    @property
    def manifest(self) -> Manifest:
        """The images that are left."""
        return self.images.manifest

    @property
    def store(self) -> PixelStore:
        """Their pixels."""
        return self.images.store

    @property
    def preprocessing(self) -> Preprocessing:
        """The way from an image file to the network's input."""
        return self.images.store.preprocessing

    @property
    def writes(self) -> bool:
        """True where this process writes the run's files: the main process, unless the run is a dry one."""
        return bool(self.accelerator.is_main_process) and not self.dry

    def image_weights(self, labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Weights (n,) of images in a fit to all of them at once; None where nothing is done about uneven classes."""
        return image_weights(labels) if self.balance.value != "none" else None

    @cached_property
    def scale_free(self) -> ScaleFree:
        """The network's scale-free weights, as it was when they were first asked for."""
        return _scale_free(self.model, self.preprocessing.input_size)

    def trainable(self, epoch: int = 0) -> frozenset[str]:
        """Names of the parameters that train in ``epoch``."""
        heads = classifier_names(self.model)
        classifier = frozenset(name for name, _ in self.model.named_parameters() if in_modules(name, heads))
        return self.policy.trainable(Layers(self.model, classifier), epoch=epoch)


def _scale_free(model: nn.Module, input_size: Sequence[int]) -> ScaleFree:
    """:func:`find_scale_free`, which looks at no parameter's values: done once for equal networks, such as members."""
    shapes = {name: [str(parameter.device), *parameter.shape] for name, parameter in model.named_parameters()}
    buffers = {
        f"{prefix}.{name}": tensor_digest(buffer)
        for prefix, module in model.named_modules()
        if not isinstance(module, _BatchNorm)  # whose statistics start afresh
        for name, buffer in module.named_buffers(recurse=False)
    }
    key = digest_of([network_settings(model), shapes, buffers, list(input_size)])
    found = _FOUND.get(key) or find_scale_free(model, input_size)
    _FOUND[key] = found
    while len(_FOUND) > _KEPT:
        _FOUND.popitem(last=False)
    return found


def apply_trainable(run: Run, names: Collection[str]) -> list[str]:
    """Let exactly these parameters train, and place the model; returns the forward order of its modules."""
    apply_policy(run.model, names)
    run.runtime.place(run.model)
    return forward_order(run.model, run.runtime.batch(torch.zeros((2, *run.preprocessing.input_size))))
