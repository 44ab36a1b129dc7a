"""Putting a run together: scan, build, choose the precision, make the folder; nothing is computed on images yet."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from tl_kit.clock import Clock
from tl_kit.config import FinetuneConfig, RuntimeConfig
from tl_kit.data.exclusions import scan_images
from tl_kit.data.folds import pool_of
from tl_kit.data.manifest import Manifest
from tl_kit.data.near_copies import link_near_copies
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.ranges import measure_ranges, range_note
from tl_kit.diagnosis.split_checks import check_discipline, doubts
from tl_kit.errors import CheckpointError, ConfigError, TlKitError
from tl_kit.finetuning.checks import augment_options, check, check_policy
from tl_kit.finetuning.choices.crop_mode import begin_crop_mode
from tl_kit.finetuning.run import Run, RunImages, Settled
from tl_kit.freezing.policies import HEAD, Policy, is_auto, parse_policy
from tl_kit.images.augmentation import resolve_augment
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.decoders import choose_decoder
from tl_kit.machine.precision import choose_precision, recorded_precision
from tl_kit.machine.process_group import first_answer, join
from tl_kit.machine.runtime import PRECISIONS, Runtime, check_gradients, detect
from tl_kit.optimization.cases import Reasoned
from tl_kit.optimization.rules import balance, selection
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import check_name, new_numbered_folder, safe_name
from tl_kit.storage.checkpoint import digest_prefix, is_checkpoint, read_meta, refit_digests
from tl_kit.storage.fit_folder import is_fit
from tl_kit.storage.lock import LOCK, FolderLock
from tl_kit.storage.seen_images import uses_in
from tl_kit.storage.unfinished import Unfinished, follow_unfinished, is_unfinished
from tl_kit.tracking.openings import check_trackers
from tl_kit.zoo.build_model import WeightsReport, build_model
from tl_kit.zoo.names import local_folder
from tl_kit.zoo.patches import unseen_edge
from tl_kit.zoo.spelling import expanded

__all__ = ["open_folder", "prepare", "shared_folder", "training_images"]


def prepare(
    config: FinetuneConfig,
    reporter: Reporter,
    *,
    manifest: Manifest | None = None,
    dry: bool = False,
    unfinished: Unfinished | None = None,
    content: str | None = None,
    settled: Settled | None = None,
) -> Run:
    """Everything before the first forward pass. A ``manifest`` given is not scanned, and is not judged.

    Under ``--policy auto`` the run stands at ``head``, until the policy is chosen. A ``dry`` run has no folder; an
    ``unfinished`` one has its own, and what it has settled stays. ``content`` as in :class:`RunImages`; ``settled`` as
    in :class:`Run`.
    """
    check(config)
    if unfinished is None:  # a run that goes on does so without a tracker that has gone
        check_trackers(config.tracking)
    changes = augment_options(config)
    clock, runtime = Clock(), detect(config.runtime)
    check_gradients()
    # precision is the runtime's: accelerate's would stay wrapped around the model when it is evaluated
    accelerator = join(cpu=runtime.device.type == "cpu", reporter=reporter)
    reporter = reporter if accelerator.is_main_process else SILENT
    if unfinished is not None and accelerator.num_processes > 1:
        accelerator.wait_for_everyone()  # until the first process has cleaned the folder up
        unfinished = unfinished if accelerator.is_main_process else follow_unfinished(unfinished)
    if manifest is None:
        with clock("scan"):
            manifest = training_images(config, reporter)
    for note in manifest.notes:
        reporter.message(note)
    return _assemble(
        config,
        manifest,
        content=content,
        augment_changes=changes,
        runtime=replace(runtime, device=_device(config.runtime, runtime, accelerator)),
        accelerator=accelerator,
        clock=clock,
        reporter=reporter,
        unfinished=unfinished,
        settled=settled,
        dry=dry,
    )


def _device(config: RuntimeConfig, runtime: Runtime, accelerator: Accelerator) -> torch.device:
    """The device of ``--device``; of several processes on GPUs, each takes its own. Raises ConfigError otherwise."""
    if accelerator.num_processes == 1:
        return runtime.device if config.device != "auto" else accelerator.device
    if runtime.device.index is not None:
        raise ConfigError(
            f"--device {config.device}: each of the {accelerator.num_processes} processes takes a GPU of its own; use "
            f"--device {runtime.device.type}"
        )
    return accelerator.device


def _assemble(
    config: FinetuneConfig,
    manifest: Manifest,
    *,
    content: str | None,
    augment_changes: Mapping[str, object],
    runtime: Runtime,
    accelerator: Accelerator,
    clock: Clock,
    reporter: Reporter,
    unfinished: Unfinished | None,
    settled: Settled | None,
    dry: bool,
) -> Run:
    policy = _policy(config)
    per_class = len(manifest.split("train")) / len(manifest.classes)
    augment, augment_name = resolve_augment(config.augment, augment_changes, images_per_class=per_class)
    model, weights = _build(config, manifest, reporter)
    begin_crop_mode(config, model, unfinished)
    preprocessing = replace(Preprocessing.from_model(model), ranges=manifest.ranges)
    runtime = _precision(config, model, runtime, unfinished, reporter)
    preprocessing = replace(preprocessing, decoder=_decoder(config, preprocessing, runtime, unfinished, reporter))
    store = PixelStore(preprocessing, config.store, limits=config.decode, device=runtime.gpu)
    classes, select = _balance(config, manifest, reporter)
    cleanup = ExitStack()
    return Run(
        config=config,
        reporter=reporter,
        runtime=runtime,
        accelerator=accelerator,
        clock=clock,
        cleanup=cleanup,
        folder=_run_folder(config, accelerator, cleanup, unfinished, dry=dry),
        dry=dry,
        images=RunImages(manifest, store, content),
        model=model,
        weights=weights,
        policy=policy,
        augment=augment,
        augment_name=augment_name,
        balance=classes,
        select=select,
        resumed=unfinished,
        settled=settled,
    )


def _policy(config: FinetuneConfig) -> Policy:
    if is_auto(config.policy):
        return HEAD
    policy = parse_policy(config.policy)
    check_policy(config, policy)
    return policy


def _build(config: FinetuneConfig, manifest: Manifest, reporter: Reporter) -> tuple[nn.Module, WeightsReport]:
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
    if config.img_size is not None and (edge := unseen_edge(model, config.img_size)):
        reporter.message(edge)
    _tell_learnt(config, manifest, reporter)
    return model, weights


def _tell_learnt(config: FinetuneConfig, manifest: Manifest, reporter: Reporter) -> None:
    """Say how many of the images that will score the run have trained the checkpoint that it starts from."""
    start = local_folder(config.model) if config.weights == "auto" else expanded(Path(config.weights))
    folder = start.parent if start is not None and start.is_file() else start
    if folder is None or not is_checkpoint(folder):
        return
    try:
        meta = read_meta(folder)
    except TlKitError:  # its weights are read all the same
        return
    learnt = uses_in(meta.get("data", {}), str(folder)).trained | refit_digests(meta)
    scored = [sample for split in ("val", "test") for sample in manifest.split(split)]
    count = sum(digest_prefix(sample) in learnt for sample in scored)
    if count:
        reporter.message(
            f"{folder}, which this run starts from, was trained on {count:,} of the {len(scored):,} validation and "
            "test images: scores on these are too good"
        )


def _precision(
    config: FinetuneConfig, model: nn.Module, runtime: Runtime, unfinished: Unfinished | None, reporter: Reporter
) -> Runtime:
    """The precision of an unfinished run; else the one that processor and network call for, if it is left to them."""
    settled = None if unfinished is None else unfinished.settled("precision")
    if settled in PRECISIONS:
        found, line = recorded_precision(settled, model, runtime, config.runtime)
    else:
        found, decision = choose_precision(model, runtime, config.runtime)
        line = None if decision is None else decision.summary()
    precision = first_answer(found.precision)  # processes on several machines may have different processors
    if line is not None:
        reporter.message(line)
    return replace(found, precision=precision)


def _decoder(
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    runtime: Runtime,
    unfinished: Unfinished | None,
    reporter: Reporter,
) -> str:
    """The decoder of plain JPEGs, which all processes must have; an unfinished run keeps its own where it is here."""
    facts = {} if unfinished is None else unfinished.facts
    recorded = facts.get("decoder", "pillow") if facts else None
    found = choose_decoder(preprocessing, runtime.device, config.runtime, recorded=recorded)
    found = "pillow" if "pillow" in gather_object([found]) else found
    if recorded == "nvjpeg" and found != recorded:
        reporter.message(
            "the run began with JPEGs decoded by nvjpeg, and goes on with those of pillow, whose levels differ a little"
        )
    return found


def _balance(config: FinetuneConfig, manifest: Manifest, reporter: Reporter) -> tuple[Reasoned[str], Reasoned[str]]:
    """Class balance, and the figure that chooses the epoch; the reason is told where the images ask for a balance."""
    counts = manifest.counts()["train"].values()
    found = balance(counts, config.balance, config.uneven)
    if config.balance == "auto" and found.value != "none":
        reporter.message(f"balance {found.value}: {found.reason}")
    return found, selection(counts, config.select, config.uneven)


def _run_folder(
    config: FinetuneConfig, accelerator: Accelerator, cleanup: ExitStack, unfinished: Unfinished | None, *, dry: bool
) -> Path:
    """Its own where a run is taken up again; else a new one. A dry run makes none: of its folder there is the name."""
    if unfinished is None:
        return Path(config.default_out) if dry else shared_folder(config, accelerator, cleanup)
    if unfinished.lock is not None:
        cleanup.callback(unfinished.lock.release)
    return unfinished.folder


def shared_folder(config: FinetuneConfig, accelerator: Accelerator, cleanup: ExitStack) -> Path:
    """The folder that the first process makes, in all processes; its error is raised in all of them.

    It is locked until the ``cleanup``.
    """
    made: Path | TlKitError | None = None
    if accelerator.is_main_process:
        try:
            made = _folder(config, cleanup)
        except TlKitError as error:
            made = error
    made = first_answer(made)
    if not isinstance(made, Path):
        raise made if made is not None else CheckpointError("the run's folder is unknown in this process")
    return made


def _folder(config: FinetuneConfig, cleanup: ExitStack) -> Path:
    """The run's folder: ``--out``, or the next numbered one under ``ckpts``."""
    return open_folder(config.out, Path(config.default_out), config.model, cleanup)


def open_folder(out: Path | None, parent: Path, name: str, cleanup: ExitStack) -> Path:
    """The new folder ``out``, or else the next numbered one of that ``name`` in ``parent``; locked until the cleanup.

    Raises CheckpointError for a folder that is not empty or cannot be made.
    """
    if out is None:
        folder = new_numbered_folder(parent, safe_name(name))
        cleanup.callback(FolderLock(folder).release)
        return folder
    out = Path(out)
    check_name(out)
    _check_empty(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"--out {out}: cannot be made ({error.strerror})") from error
    lock = FolderLock(out)
    cleanup.callback(lock.release)
    return out


def _check_empty(out: Path) -> None:
    """Raises CheckpointError unless ``out`` is a new folder, or an empty one that nobody else works on."""
    if (out / LOCK).exists():
        FolderLock(out).release()
    if is_unfinished(out) and not is_fit(out):
        raise CheckpointError(
            f"--out {out}: is not empty, a run ended early there; go on with tlkit finetune --resume {out}, or choose "
            "another folder"
        )
    if is_fit(out):
        raise CheckpointError(
            f"--out {out}: is not empty, it holds a fit; go on with tlkit fit --resume {out}, or choose another folder"
        )
    if is_checkpoint(out):
        raise CheckpointError(f"--out {out}: holds a checkpoint already; choose another folder or remove it")
    if out.is_dir() and {path.name for path in out.iterdir()} - {LOCK}:
        raise CheckpointError(f"--out {out}: is not empty; choose another folder")


def training_images(config: FinetuneConfig, reporter: Reporter, *, pooled: bool = False) -> Manifest:
    """:func:`scan_images`; the faults that ``config.allow`` names are told. Raises DataError for any other.

    Images of more than 8 bits a sample are looked at once more, for the range of their values; test images are not.
    ``pooled``: training and validation images will be split anew, and only they are judged; near copies are linked, so
    that they stay together.
    """
    manifest = scan_images(
        config.data, config.split, decode=config.decode, strict=config.strict, reporter=reporter, judged=True
    )
    judged = replace(manifest, samples=pool_of(manifest)) if pooled else manifest
    for line in check_discipline(judged, allow=config.allow, pooled=pooled):
        reporter.message(line)
    for text in doubts(manifest):
        reporter.message(f"warning: {text}")
    manifest = _with_ranges(manifest, config, reporter, pooled=pooled)
    if pooled:
        return _linked(manifest, config, reporter)
    if {sample.split for sample in manifest.samples} - {"train", *manifest.made_splits}:
        reporter.message(
            "near copies across the given splits were not looked for: "
            f"tlkit doctor --data {shlex.quote(str(config.data))} does"
        )
    return manifest


def _with_ranges(manifest: Manifest, config: FinetuneConfig, reporter: Reporter, *, pooled: bool) -> Manifest:
    """The manifest with the range of values of its deep images, which is told."""

    def progress(done: int, total: int) -> None:
        if done == 1:
            reporter.start("range of values", total)
        reporter.advance()

    known = pool_of(manifest) if pooled else (*manifest.split("train"), *manifest.split("val"))
    manifest = replace(manifest, ranges=measure_ranges(known, decode=config.decode, progress=progress))
    note = range_note(manifest)
    if note is not None:
        reporter.message(note)
    return manifest


def _linked(manifest: Manifest, config: FinetuneConfig, reporter: Reporter) -> Manifest:
    """Near copies linked over all images that will be split anew, where the scan has not done it."""
    if manifest.made_splits:
        for note in manifest.notes:
            if not note.startswith("no "):  # which splits the scan has made does not matter here
                reporter.message(note)
        return manifest
    linked, notes = link_near_copies(pool_of(manifest), config=config.split, decode=config.decode)
    for note in notes:
        reporter.message(note)
    near = {sample.path: sample for sample in linked}
    return replace(manifest, samples=tuple(near.get(sample.path, sample) for sample in manifest.samples))
