"""``fit``: from a folder of images and a time to the best classifier, step by step, whole after each of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tl_kit.config import FitConfig, count_of, seconds_of
from tl_kit.errors import ConfigError
from tl_kit.finetuning.preparation import open_folder, training_images
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.climb import Climb, options_of
from tl_kit.fitting.fit_result import FitResult
from tl_kit.fitting.journal import Journal, entries_of
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.process_group import alone
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import remove_leftovers
from tl_kit.storage.lock import FolderLock
from tl_kit.storage.relocation import relocated

__all__ = ["fit", "resume_fit"]


@undisturbed()
@alone()
@takes_plain_values
def fit(config: FitConfig, *, spent: float = 0.0, reporter: Reporter = SILENT) -> FitResult:
    """Find the best classifier of ``config.data`` within ``config.time``.

    Heads on the features of every network come first, the cheapest network first; then training of the most promising,
    by successive halving; then further members. After each step, the best ensemble of all runs is complete on disk.
    Validation images make all choices. Test images are predicted once, at the end, by the members of the result.
    ``spent``: seconds that are over when the call begins, such as the program's start.

    Raises a subclass of TlKitError for every mistake in the data or the options, and ConfigError where the time is too
    short for a first head. Ctrl-C raises KeyboardInterrupt; the folder is then whole, and ``resume_fit`` goes on.
    """
    config = _checked(config)
    budget = Budget(config.time if config.time is None else float(config.time), spent, config.budget.finish)
    manifest = training_images(options_of(config), reporter)
    with ExitStack() as cleanup:
        folder = open_folder(config.out, Path(config.default_out), _stem(config.data), cleanup)
        journal = Journal(folder, config, manifest.content_hash())
        return Climb(journal, manifest, budget, reporter).run()


@undisturbed()
@alone()
@takes_plain_values
def resume_fit(
    folder: Path | str, *, time: float | str | None = None, spent: float = 0.0, reporter: Reporter = SILENT
) -> FitResult:
    """Go on with the fit in ``folder``: the steps that were finished count, the one at work goes on.

    ``time``: so much more of it; None: what was left of the time that the fit was given. Raises CheckpointError for a
    folder without a fit, and DataError if its images have changed.
    """
    folder = Path(folder)
    journal, written = Journal.read(folder)
    with ExitStack() as cleanup:
        cleanup.callback(FolderLock(folder).release)
        remove_leftovers(folder)
        config = journal.config
        moved = relocated(options_of(config), journal.born, folder, reporter)
        config = replace(config, data=moved.data, cache=moved.cache, runtime=moved.runtime)
        total = config.time if time is None else journal.elapsed + _seconds(time)
        journal.config = replace(config, time=total)
        budget = Budget(total if total is None else float(total), journal.elapsed + spent, config.budget.finish)
        manifest = training_images(options_of(config), reporter)
        journal.check_images(manifest.content_hash())
        work = Climb(journal, manifest, budget, reporter)
        work.take_up(entries_of(written, journal.file))
        return work.run()


def _checked(config: FitConfig) -> FitConfig:
    time = None if config.time is None else _seconds(config.time)
    try:
        most = None if config.max_params is None else count_of(config.max_params)
    except ValueError as error:
        raise ConfigError(f"--max-params {config.max_params}: {error}") from None
    return replace(config, time=time, max_params=most)


def _seconds(time: float | str) -> float:
    try:
        seconds = seconds_of(time)
    except ValueError as error:
        raise ConfigError(f"--time {time}: {error}") from None
    if seconds <= 0:
        raise ConfigError(f"--time {time}: must be above 0")
    return seconds


def _stem(data: Path) -> str:
    return (data.stem if data.is_file() else data.resolve().name) or "images"
