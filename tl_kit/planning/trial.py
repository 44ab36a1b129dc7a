"""A trial: runs a run's own code on a few of its images, and measures the time of each kind of work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tl_kit.clock import Clock
from tl_kit.config import EstimateConfig
from tl_kit.data.manifest import spread
from tl_kit.data.pixel_store import PixelStore
from tl_kit.finetuning.batch_sources import Source, open_source
from tl_kit.finetuning.build_task import build_task
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.run import Run, RunImages, apply_trainable
from tl_kit.finetuning.settings import Settings
from tl_kit.finetuning.teacher import teach
from tl_kit.finetuning.trunk_reuse import open_reuse
from tl_kit.freezing.train_mode import set_train_mode
from tl_kit.machine.random_state import restored_random_state
from tl_kit.optimization.schedules import set_lr
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.checkpoint import save_weights
from tl_kit.training.loop import train_step
from tl_kit.training.task import Indices

__all__ = ["Rates", "apply", "closed_form_rates", "gradient_rates"]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds to decode an image, compute a row of features, train a step, score an image, and save.

    ``pixel_bytes``: bytes of a decoded image, by whether it is cropped as for evaluation.
    """

    decode: float
    row: float
    step: float = 0.0
    score: float = 0.0
    save: float = 0.0
    pixel_bytes: dict[bool, float]


def apply(run: Run, names: Collection[str], settings: Settings) -> list[str]:
    """Let these parameters train; returns the model's forward order."""
    order = apply_trainable(run, names)
    set_train_mode(run.model, order, batchnorm=settings.batchnorm)
    return order


def gradient_rates(
    run: Run, names: Collection[str], settings: Settings, *, views: int, epochs: int, reporter: Reporter = SILENT
) -> Rates:
    """Rates of epochs in which these parameters train on ``views`` augmented views of an image (0: not augmented)."""
    with _miniature(run, views=views, reporter=reporter) as small, restored_random_state(run.runtime.device):
        small = teach(small)
        order = apply(small, names, settings)
        source, _ = open_source(small, open_reuse(small, order), epochs=epochs)
        trained, seen = (len(small.manifest.split(split)) for split in ("train", "val"))
        step = _step_seconds(small, order, settings, source)
        score = _timed(lambda: source.logits("val")) / seen if seen else 0.0
        save = _timed(lambda: save_weights(small.folder, small.model))
        return _rates(small, rows=trained * max(1, views) + seen, step=step, score=score, save=save)


def closed_form_rates(run: Run, reporter: Reporter = SILENT) -> Rates:
    """Rates of a pass over images under the evaluation transform."""
    with _miniature(run, views=0, reporter=reporter) as small:
        head, reuse = head_run(small)
        assert reuse is not None
        reuse.fill("train")
        return _rates(head, rows=len(head.manifest.split("train")))


@contextmanager
def _miniature(run: Run, *, views: int, reporter: Reporter) -> Iterator[Run]:
    """The run on a few images, with nothing decoded or cached yet; it writes no permanent files."""
    limits = EstimateConfig()
    wanted = {"train": limits.train_images, "val": limits.val_images}
    kept = [s for split, most in wanted.items() for s in spread(run.manifest.split(split), most)]
    with tempfile.TemporaryDirectory(prefix="tlkit-") as folder:
        cache = replace(run.config.cache, directory=Path(folder), views=views or None)
        yield replace(
            run,
            config=replace(run.config, cache=cache if run.config.cache.size_gb > 0 else run.config.cache),
            images=RunImages(
                replace(run.manifest, samples=tuple(kept)),
                PixelStore(run.preprocessing, run.config.store, limits=run.config.decode, device=run.store.device),
            ),
            clock=Clock(),
            reporter=reporter,
            folder=Path(folder),
        )


def _rates(run: Run, *, rows: int, step: float = 0.0, score: float = 0.0, save: float = 0.0) -> Rates:
    stages, store = run.clock.stages, run.store
    return Rates(
        decode=stages["data"] / max(1, sum(store.counts().values())),
        row=stages["features"] / rows,
        step=step,
        score=score,
        save=save,
        pixel_bytes={crop: store.mean_bytes(crop=crop) for crop in (False, True)},
    )


def _step_seconds(run: Run, order: list[str], settings: Settings, source: Source) -> float:
    """The median time of a few steps; the first, which chooses kernels, is not counted."""
    task = build_task(run, order, settings, source)
    task.set_mode(2)
    batches = task.order(0)
    seconds = []
    for step in range(1 + EstimateConfig.steps):
        indices = batches[step % len(batches)]
        set_lr(task.optimizer, 0.0)

        def one(indices: Indices = indices, step: int = step) -> None:
            inputs, labels = task.batch(indices, step)
            float(train_step(task, run.accelerator, inputs, labels, step=step))  # waits for a GPU

        seconds.append(_timed(one))
        run.reporter.advance(len(indices))
    return median(seconds[1:])


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
