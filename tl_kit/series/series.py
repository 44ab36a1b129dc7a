"""A series of runs (folds, members) on one scan, in one folder. Finished runs are kept and reported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tl_kit.config import FinetuneConfig, RunsConfig
from tl_kit.data.manifest import SPLITS, Exclusion, Manifest, check_trainable
from tl_kit.display import figure, marked
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.preparation import shared_folder, training_images
from tl_kit.finetuning.result import Trained
from tl_kit.html_tables import html_block, html_lines, html_table
from tl_kit.machine.process_group import join
from tl_kit.machine.runtime import detect
from tl_kit.reporting import SILENT, Reporter
from tl_kit.series.records import SeriesRecords
from tl_kit.storage.run_options import save_options

__all__ = ["Part", "PartRun", "Series", "parts_html", "run_fields"]

_SHOWN = ("accuracy", "nll", "ece")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of a series: the name of its folder, its title for the user, its configuration and its images."""

    folder: str
    title: str
    config: FinetuneConfig
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class PartRun:
    """Outcome of one run: its folder, its number of images in each split (copies counted), and its scores.

    ``kinds`` and ``chosen_by_val`` as in FinetuneResult; ``kept`` as in its ``guard``, None without one; ``seconds`` is
    the time of the whole run.
    """

    checkpoint: str
    policy: str
    epochs: int
    images: dict[str, int]
    val: dict[str, float] | None
    test: dict[str, float] | None
    kinds: dict[str, str]
    chosen_by_val: tuple[str, ...]
    kept: str | None
    seconds: float


def parts_html(title: str, parts: Sequence[tuple[str, PartRun]], lines: Sequence[str]) -> str:
    """The scores of several runs, for a notebook: a row for each, with its name."""
    kinds = [part.kinds for _, part in parts]
    splits = [split for split in ("val", "test") if any(getattr(part, split) is not None for _, part in parts)]
    rows = []
    for name, part in parts:
        scores = [getattr(part, split) or {} for split in splits]
        cells = [figure(what, found[what]) if found else "" for found in scores for what in _SHOWN]
        rows.append([name, *cells])
    header = ["", *(f"{marked(split, kinds)} {what}" for split in splits for what in _SHOWN)]
    return html_block(title, html_table(header, rows, align="l" + "r" * (len(header) - 1)), html_lines(lines))


class Series:
    """The runs of one command: their images, scanned and checked at the start, and their common folder.

    ``what`` names the runs: "folds", "members". ``main``: True in the process that writes and reports.
    """

    def __init__(self, config: FinetuneConfig, what: str, *, reporter: Reporter, pooled: bool = False) -> None:
        self._started = time.perf_counter()
        self.config, self.what = config, what
        self._accelerator = join(cpu=detect(config.runtime).device.type == "cpu", reporter=reporter)
        self.main = bool(self._accelerator.is_main_process)
        self.reporter = reporter if self.main else SILENT
        self.manifest = training_images(config, self.reporter, pooled=pooled)
        self._scanned = time.perf_counter() - self._started

    def seconds(self) -> dict[str, float]:
        """The seconds so far."""
        return {"total": time.perf_counter() - self._started, "scan": self._scanned}

    @contextmanager
    def trained(
        self,
        parts: Sequence[Part],
        runs: RunsConfig,
        *,
        unfinished: SeriesRecords | None,
        content: str | None = None,
        **more: str,
    ) -> Iterator[tuple[Path, list[Trained]]]:
        """Run all parts; yields their folder and their outcomes. The series ends with the block.

        ``runs``: the options that ask for the series, beside those of each run.
        ``unfinished``: the records of this series if it is resumed. ``content`` as for ``finetune_on``; ``more``:
        further values for ``--resume``. If the series ends early, the finished parts are kept and reported.
        """
        done: list[Trained] = []
        with ExitStack() as cleanup:
            if unfinished is None:
                records = SeriesRecords(shared_folder(self.config, self._accelerator, cleanup), self.what)
                if self.main:
                    records.begin(self.config, len(parts), self.manifest, **more)
            else:
                records = unfinished
                records.take_up(self.config, self.manifest, cleanup)
            if self.main:
                save_options(records.folder, self.config, runs, command="finetune")
            names = [part.folder for part in parts]
            with records.kept(done, names, cleanup, main=self.main, reporter=self.reporter):
                _train_parts(parts, records, done, reporter=self.reporter, content=content)
                yield records.folder, done
                if self.main:
                    records.remove()


def run_fields(trained: Trained) -> dict[str, Any]:
    """The fields of :class:`PartRun` by name."""
    result = trained.result
    return {
        "checkpoint": result.checkpoint,
        "policy": result.policy,
        "epochs": result.epochs,
        "images": {split: len(trained.manifest.split(split)) for split in SPLITS},
        "val": result.val,
        "test": result.test,
        "kinds": result.kinds,
        "chosen_by_val": result.chosen_by_val,
        "kept": None if result.guard is None else result.guard["kept"],
        "seconds": result.seconds["total"],
    }


def _train_parts(
    parts: Sequence[Part],
    records: SeriesRecords,
    done: list[Trained],
    *,
    reporter: Reporter,
    content: str | None,
) -> None:
    """Train the parts that are missing from ``records``; ``done`` is called with each finished one.

    Images that one part cannot decode are left out of the others. ``content`` as for ``finetune_on``. Raises
    KeyboardInterrupt also if a part was interrupted and has a checkpoint.
    """
    told = _Once(reporter)
    broken: tuple[Exclusion, ...] = ()
    for part in parts:
        manifest = part.manifest.without(broken)
        check_trainable(manifest)
        known = len(manifest.exclusions)
        trained = records.finished(part.folder, manifest, reporter)
        if trained is None:
            counts = ", ".join(f"{len(manifest.split(split)):,} {split}" for split in SPLITS)
            reporter.message(f"{part.title}: {counts}")
            started = records.unfinished(part.folder, reporter)
            options = replace(part.config, out=records.folder / part.folder)
            trained = finetune_on(manifest, options, reporter=told, unfinished=started, content=content)
            if trained.result.status != "finished":
                raise KeyboardInterrupt
            records.save(part.folder, trained, known)
        broken += trained.manifest.exclusions[known:]
        done.append(trained)


class _Once:
    """A reporter that passes on progress, and each message once, since most messages are the same for every part."""

    def __init__(self, reporter: Reporter) -> None:
        self.start, self.advance, self.epoch = reporter.start, reporter.advance, reporter.epoch
        self._reporter = reporter
        self._said: set[str] = set()

    def message(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._reporter.message(text)
