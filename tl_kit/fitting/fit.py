"""``fit``: from a folder of images and a time to the best classifier, step by step, whole after each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tl_kit.config import FitConfig, count_of, seconds_of
from tl_kit.data.manifest import Manifest
from tl_kit.errors import ConfigError
from tl_kit.finetuning.checks import augment_options, check
from tl_kit.finetuning.preparation import open_folder, training_images
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.candidates import Candidate, find_candidates
from tl_kit.fitting.climb import Climb
from tl_kit.fitting.fit_result import FitResult
from tl_kit.fitting.fit_tracking import track_fit
from tl_kit.fitting.journal import Journal, entries_of
from tl_kit.fitting.step_options import options_of
from tl_kit.images.augmentation import resolve_augment
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.process_group import alone
from tl_kit.machine.runtime import detect
from tl_kit.options_file import named_values
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import remove_leftovers
from tl_kit.storage.lock import FolderLock
from tl_kit.storage.relocation import relocated
from tl_kit.storage.run_options import save_options
from tl_kit.storage.saved_states import STATE
from tl_kit.tracking.openings import check_trackers
from tl_kit.tracking.trackers import Tracking, track
from tl_kit.zoo.names import absolute_names

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
    check_trackers(config.tracking)
    budget = Budget(config.time if config.time is None else float(config.time), spent, config.budget.finish)
    _check_time(config.time, budget)
    manifest = training_images(options_of(config), reporter)
    candidates = _candidates(config, manifest, budget, reporter)
    with ExitStack() as cleanup:
        folder = open_folder(config.out, Path(config.default_out), _stem(config.data), cleanup)
        journal = Journal(folder, config, manifest.content_hash(), [candidate.name for candidate in candidates])
        save_options(folder, config, command="fit")
        tracking = cleanup.enter_context(_track(config, folder, reporter))
        result = Climb(journal, manifest, candidates, budget, reporter, tracking).run()
        track_fit(tracking, result)
        return result


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
    Journal.read(folder)  # raises for a folder without a fit, which must not be locked
    with ExitStack() as cleanup:
        cleanup.callback(FolderLock(folder).release)
        journal, written = Journal.read(folder)
        remove_leftovers(folder)
        remove_leftovers(folder / STATE)
        config = journal.config
        moved = relocated(options_of(config), journal.born, folder, reporter)
        config = replace(config, data=moved.data, cache=moved.cache, runtime=moved.runtime)
        total = config.time if time is None else journal.elapsed + _seconds(time)
        journal.config = replace(config, time=total)
        budget = Budget(total if total is None else float(total), journal.elapsed + spent, config.budget.finish)
        manifest = training_images(options_of(config), reporter)
        journal.check_images(manifest.content_hash())
        entries = list(entries_of(written, journal.file))
        if time is not None or not any(entry.finished for entry in entries):
            _check_time(config.time if time is None else _seconds(time), budget)
        named = replace(journal.config, models=",".join(journal.candidates) or config.models)
        candidates = _candidates(named, manifest, budget, reporter, again=bool(journal.candidates))
        tracking = cleanup.enter_context(_track(journal.config, folder, reporter))
        work = Climb(journal, manifest, candidates, budget, reporter, tracking)
        work.take_up(entries)
        result = work.run()
        track_fit(tracking, result)
        return result


@contextmanager
def _track(config: FitConfig, folder: Path, reporter: Reporter) -> Iterator[Tracking]:
    """The fit's experiment trackers, which know its options."""
    cpu = detect(config.runtime).device.type == "cpu"
    with track(config.tracking, folder, cpu=cpu, reporter=reporter) as tracking:
        tracking.configure(named_values(config))
        yield tracking


def _check_time(time: float | str | None, budget: Budget) -> None:
    """Raises ConfigError if no time is left for a first step."""
    if budget.left <= 0:
        beside = math.ceil((0 if time is None else float(time)) - budget.left)
        raise ConfigError(f"--time {time:g}: is too short; {beside} s pass beside the steps; give more")


def _candidates(
    config: FitConfig, manifest: Manifest, budget: Budget, reporter: Reporter, *, again: bool = False
) -> list[Candidate]:
    """The networks to try; the user reads a line about each. ``again``: the fit goes on with those that it had."""
    most = config.max_params
    found = find_candidates(
        config.models,
        img_size=config.img_size,
        classes=len(manifest.classes),
        max_params=None if most is None else float(most),
        left=budget.left,
        config=config.budget,
        reporter=reporter,
    )
    for each in found:
        cost = each.cost
        reporter.message(
            f"network {each.name}: {cost.parameters / 1e6:.1f} M parameters, {cost.side} px, licence {each.licence}; "
            f"{'as before' if again else each.why}"
        )
    return found


def _checked(config: FitConfig) -> FitConfig:
    time = None if config.time is None else _seconds(config.time)
    try:
        most = None if config.max_params is None else count_of(config.max_params)
    except ValueError as error:
        raise ConfigError(f"--max-params {config.max_params}: {error}") from None
    options = options_of(config)
    check(options)
    resolve_augment(options.augment, augment_options(options), images_per_class=1)
    return replace(config, time=time, max_params=most, models=absolute_names(config.models))


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
