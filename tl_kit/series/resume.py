"""``resume``: continues a run that ended early from its last saved state, with its original options."""

from __future__ import annotations

from pathlib import Path

from tl_kit.config import FinetuneConfig, RunsConfig, VaryConfig
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.result import FinetuneResult
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.process_group import group_of_environment
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.series.cross_validate import CrossValidation, cross_validate
from tl_kit.series.finetune_members import MemberRuns, finetune_members
from tl_kit.series.records import SeriesRecords, read_config
from tl_kit.storage.atomic import remove_leftovers
from tl_kit.storage.checkpoint import FOLDS, MEMBERS, META
from tl_kit.storage.lock import FolderLock
from tl_kit.storage.relocation import relocated
from tl_kit.storage.saved_states import StateFolder
from tl_kit.storage.unfinished import UNFINISHED, Unfinished, facts_of_run, open_unfinished, read_run

__all__ = ["began_with", "resume"]


@undisturbed()
@takes_plain_values
def resume(folder: Path | str, *, reporter: Reporter = SILENT) -> FinetuneResult | CrossValidation | MemberRuns | None:
    """Continue the run, the cross-validation or the members in ``folder``.

    The final weights are those of an uninterrupted run: on a CPU equal to the last bit, with the same versions and the
    same number of threads. A run that had saved nothing yet starts over. Returns None for a finished run. It may be
    called from any folder, and run and images may have been moved together. A run of several processes goes on in as
    many (accelerate launch, torchrun). Raises CheckpointError for a folder without a run, with a run on which another
    process works, or with damaged states; DataError if the images have changed or are missing.
    """
    folder = Path(folder)
    for what, file in (("folds", FOLDS), ("members", MEMBERS)):
        if (folder / file).is_file():
            _remove_records(folder)
            reporter.message(f"{folder}: all {what} are finished; there is nothing to resume")
            return None
    for what in ("folds", "members"):
        if SeriesRecords(folder.parent, what).began():
            raise CheckpointError(f"--resume {folder}: is one of the {what} in {folder.parent}; give that folder")
    group = group_of_environment()
    if (series := _series(folder, reporter)) is not None:
        if group is not None:
            raise ConfigError(
                f"--resume {folder}: folds and members are resumed in a single process, and this process is one of "
                f"{group.size} ({group}); start it without accelerate or torchrun"
            )
        records, config, runs = series
        if runs.folds is not None:
            return cross_validate(config, folds=runs.folds, reporter=reporter, unfinished=records)
        return finetune_members(
            config, members=runs.members, vary=runs.vary or VaryConfig.vary, reporter=reporter, unfinished=records
        )
    return _resume_run(folder, reporter) if group is None or group.rank == 0 else _follow_run(folder)


@takes_plain_values
def began_with(folder: Path | str, *, reporter: Reporter = SILENT) -> tuple[FinetuneConfig, RunsConfig]:
    """The options of the run, the cross-validation or the members in ``folder``, as ``resume`` would use them.

    Raises the errors of ``resume`` for a folder without a run; a single run may be finished.
    """
    folder = Path(folder)
    if (series := _series(folder, reporter)) is not None:
        return series[1:]
    content = read_run(folder)
    resumes = content.get("resume")
    born = resumes.get("born") if isinstance(resumes, dict) else None
    return relocated(read_config(content.get("config"), folder / META), born, folder, reporter), RunsConfig()


def _series(folder: Path, reporter: Reporter) -> tuple[SeriesRecords, FinetuneConfig, RunsConfig] | None:
    """The records and options of the unfinished folds or members in a folder."""
    for what in ("folds", "members"):
        records = SeriesRecords(folder, what)
        if records.began():
            config, count, content = records.read()
            runs = RunsConfig(folds=count) if what == "folds" else RunsConfig(members=count, vary=content.get("vary"))
            return records, relocated(config, content.get("born"), folder, reporter), runs
    return None


def _remove_records(folder: Path) -> None:
    """Remove the records of a series that was killed after its last run had finished."""
    if not StateFolder(folder).folder.exists():
        return
    lock = FolderLock(folder)
    try:
        StateFolder(folder).remove()
        remove_leftovers(folder)
    finally:
        lock.release()


def _follow_run(folder: Path) -> FinetuneResult | None:
    """One of several processes, but the first: that one opens the folder, and this one reads the state with it."""
    if _is_over(folder):
        return None
    config = read_config(read_run(folder).get("config"), folder / META)
    facts = facts_of_run(folder)
    config = relocated(config, facts.get("born"), folder, SILENT)
    return finetune_on(None, config, unfinished=Unfinished(folder, None, facts, None)).result


def _resume_run(folder: Path, reporter: Reporter) -> FinetuneResult | None:
    if _is_over(folder) and not StateFolder(folder).folder.exists():
        reporter.message(f"{folder}: the run is finished; there is nothing to resume")
        return None
    lock = FolderLock(folder)
    try:
        if _is_over(folder):  # killed just before its end, or finished since we looked
            StateFolder(folder).remove()
            remove_leftovers(folder)
            reporter.message(f"{folder}: the run is finished; there is nothing to resume")
            return None
        config = read_config(read_run(folder).get("config"), folder / META)
        unfinished = open_unfinished(folder, lock, reporter)
        config = relocated(config, unfinished.facts.get("born"), folder, reporter)
        if unfinished.state is None:
            reporter.message(f"{folder}: nothing had been saved yet; the run starts over")
        return finetune_on(None, config, reporter=reporter, unfinished=unfinished).result
    finally:
        lock.release()


def _is_over(folder: Path) -> bool:
    status = read_run(folder).get("status")
    if status == "failed":
        raise CheckpointError(f"{folder}: the run failed, and would fail again; start a new one with a lower --lr")
    return status not in UNFINISHED
