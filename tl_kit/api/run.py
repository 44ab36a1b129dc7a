"""One fine-tuning run's parts, put together from a configuration: data, model, policy, folder, clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import nn

from tl_kit.api.balance import Balance, choose_balance
from tl_kit.api.options import augment_options, check, check_policy
from tl_kit.config import AugmentConfig, FinetuneConfig
from tl_kit.data.augmentation import resolve_augment
from tl_kit.data.cache import PixelStore
from tl_kit.data.manifest import Exclusion, Manifest, Sample, check_trainable
from tl_kit.data.scan import scan
from tl_kit.data.transforms import Preprocessing
from tl_kit.errors import CheckpointError, TlKitError
from tl_kit.freezing.policies import Policy, parameter_groups, parse_policy
from tl_kit.measurement import Decision, choose_precision
from tl_kit.reporting import SILENT, Reporter
from tl_kit.runtime import Runtime, detect
from tl_kit.training.checkpoint import is_checkpoint
from tl_kit.training.files import new_numbered_folder
from tl_kit.zoo.heads import classifier_names, in_modules
from tl_kit.zoo.weights import WeightsReport, build_model

__all__ = ["STAGES", "Clock", "Run", "labels_of", "prepare", "shared_folder"]

STAGES = ("scan", "data", "features", "train", "evaluate")


@dataclass
class Clock:
    """Seconds by stage. ``with clock("scan"): ...`` adds to a stage."""

    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    first_batch: float | None = None

    def start_training(self) -> None:
        """Note when the first training batch is there; later calls change nothing."""
        if self.first_batch is None:
            self.first_batch = time.perf_counter() - self.started

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        before = time.perf_counter()
        try:
            yield
        finally:
            self.stages[stage] += time.perf_counter() - before

    def seconds(self) -> dict[str, float]:
        """Total first, then the stages; what is in no stage (building the model, saving) is in the total.

        ``first_batch``, where there was one, is when it reached the training step, counted from the start.
        """
        first = {} if self.first_batch is None else {"first_batch": self.first_batch}
        return {"total": time.perf_counter() - self.started, **first, **self.stages}


@dataclass
class Run:
    """What every step of a run reads. Images that turn out to be undecodable leave ``manifest`` as that is found."""

    config: FinetuneConfig
    reporter: Reporter
    runtime: Runtime
    clock: Clock
    manifest: Manifest
    store: PixelStore
    model: nn.Module
    weights: WeightsReport
    preprocessing: Preprocessing
    policy: Policy
    folder: Path
    accelerator: Accelerator
    augment: AugmentConfig
    augment_name: str
    balance: Balance
    decision: Decision | None = None
    dry: bool = False
    cleanup: ExitStack = field(default_factory=ExitStack)

    def decode(self, samples: Sequence[Sample], *, crop: bool, show: bool = True) -> frozenset[str]:
        """Decode samples into the pixel store; those that cannot be decoded leave the manifest, with all their copies.

        Returns the digests of what left. Raises DataError if too few images are left to train on.
        """
        if show:
            self.reporter.start("decode", len(samples))
        with self.clock("data"):
            failures = self.store.fill(samples, crop=crop, on_image=self.reporter.advance if show else None)
        paths = {exclusion.path: exclusion.reason for exclusion in failures}
        reasons = {s.digest: paths[s.path] for s in samples if s.path in paths}
        broken = [Exclusion(s.path, reasons[s.digest]) for s in self.manifest.samples if s.digest in reasons]
        if broken:
            self.manifest = self.manifest.without(broken)
            for exclusion in broken:
                self.reporter.message(f"left out: {exclusion.path}: {exclusion.reason}")
            check_trainable(self.manifest)
        return frozenset(reasons)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files; with one process it is, unless the run is a dry one."""
        return bool(self.accelerator.is_main_process) and not self.dry

    def trainable(self, epoch: int = 0) -> frozenset[str]:
        """Names of the parameters that train in ``epoch``."""
        heads = classifier_names(self.model)
        classifier = [name for name, _ in self.model.named_parameters() if in_modules(name, heads)]
        if self.policy.name == "head":
            groups = [classifier]
        elif self.policy.name in ("full", "lp-ft") and self.policy.depth is None:
            groups = [[name for name, _ in self.model.named_parameters()]]
        else:
            groups = parameter_groups(self.model)
        return self.policy.trainable(groups, classifier, epoch=epoch)


def labels_of(samples: tuple[Sample, ...]) -> NDArray[np.int64]:
    """Class indices (n,)."""
    return np.array([sample.label for sample in samples], dtype=np.int64)


def prepare(config: FinetuneConfig, reporter: Reporter, *, manifest: Manifest | None = None, dry: bool = False) -> Run:
    """Scan, build, make the folder: everything before the first forward pass. A ``manifest`` given is not scanned.

    Under ``--policy auto`` the run stands at ``head``, until the policy is chosen. A ``dry`` run has no folder.
    """
    check(config)
    augment_changes = augment_options(config)
    clock, runtime = Clock(), detect(config.runtime)
    # precision is the runtime's: accelerate's would stay wrapped around the model when it is evaluated
    accelerator = Accelerator(cpu=runtime.device.type == "cpu", mixed_precision="no")
    runtime = replace(runtime, device=accelerator.device)
    if not accelerator.is_main_process:
        reporter = SILENT
    with clock("scan"):
        manifest = scan(Path(config.data), config.split) if manifest is None else manifest
    for note in manifest.notes:
        reporter.message(note)
    policy = Policy("head") if config.policy == "auto" else parse_policy(config.policy)
    if config.policy != "auto":
        check_policy(config, policy)
    per_class = len(manifest.split("train")) / len(manifest.classes)
    augment, augment_name = resolve_augment(config.augment, augment_changes, images_per_class=per_class)
    model, weights = build_model(
        config.model,
        len(manifest.classes),
        weights=config.weights,
        img_size=config.img_size,
        dropout=config.regularization.dropout,
        drop_path=config.regularization.drop_path,
        seed=config.seed,
    )
    reporter.message(weights.summary())
    preprocessing = Preprocessing.from_model(model)
    runtime, decision = choose_precision(
        model, preprocessing.input_size, runtime, name=config.model, config=config.runtime
    )
    precision = [runtime.precision]
    broadcast_object_list(precision)  # each process has measured for itself, and they must agree
    runtime = replace(runtime, precision=precision[0])
    if decision is not None:
        reporter.message(decision.summary())
    store = PixelStore(preprocessing, config.store)
    for exclusion in manifest.exclusions:
        reporter.message(f"left out: {exclusion.path}: {exclusion.reason}")
    folder = Path(config.default_out) if dry else shared_folder(config, accelerator)
    return Run(
        config=config,
        reporter=reporter,
        runtime=runtime,
        clock=clock,
        manifest=manifest,
        store=store,
        model=model,
        weights=weights,
        preprocessing=preprocessing,
        policy=policy,
        folder=folder,
        accelerator=accelerator,
        augment=augment,
        augment_name=augment_name,
        balance=_balance(config, manifest, reporter),
        decision=decision,
        dry=dry,
    )


def _balance(config: FinetuneConfig, manifest: Manifest, reporter: Reporter) -> Balance:
    counts = manifest.counts()["train"].values()
    balance, reason = choose_balance(counts, balance=config.balance, select=config.select, config=config.uneven)
    if reason is not None:
        reporter.message(reason)
    return balance


def shared_folder(config: FinetuneConfig, accelerator: Accelerator) -> Path:
    """The folder that the first process makes, in all processes; its error is raised in all of them."""
    answer: list[Path | TlKitError | None] = [None]
    if accelerator.is_main_process:
        try:
            answer = [_folder(config)]
        except TlKitError as error:
            answer = [error]
    broadcast_object_list(answer)
    if not isinstance(answer[0], Path):
        raise answer[0] if answer[0] is not None else CheckpointError("the run's folder is unknown in this process")
    return answer[0]


def _folder(config: FinetuneConfig) -> Path:
    """The run's folder: ``--out``, or the next numbered one under ``ckpts``."""
    if config.out is None:
        stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in config.model)
        return new_numbered_folder(Path(config.default_out), stem)
    out = Path(config.out)
    if is_checkpoint(out):
        raise CheckpointError(f"--out {out}: holds a checkpoint already; choose another folder or remove it")
    if out.is_dir() and any(out.iterdir()):
        raise CheckpointError(f"--out {out}: is not empty; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"--out {out}: cannot be made ({error.strerror})") from error
    return out
