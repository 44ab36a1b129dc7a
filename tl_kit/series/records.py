"""Records of a series of runs in one folder, from which ``--resume`` keeps the finished runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Exclusion, Manifest
from tl_kit.errors import CheckpointError, DataError, TlKitError
from tl_kit.finetuning.result import FinetuneResult, Snapshot, Trained
from tl_kit.options_file import OPTIONS
from tl_kit.reporting import Reporter
from tl_kit.stopping import TERMINATED, StoppedError
from tl_kit.storage.atomic import remove_leftovers, write_json, writing
from tl_kit.storage.checkpoint import is_checkpoint
from tl_kit.storage.config_json import from_json, to_json
from tl_kit.storage.lock import FolderLock
from tl_kit.storage.relocation import birthplace
from tl_kit.storage.saved_states import STATE, StateFolder, read_state, write_state
from tl_kit.storage.unfinished import Unfinished, open_unfinished
from tl_kit.untrusted import read_json

__all__ = ["SeriesRecords", "read_config"]


class SeriesRecords:
    """``folder/state``: the options, and the result, outputs and exclusions of each finished run.

    ``what`` names the runs: "folds", "members". A run is identified by the name of its folder.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self.what = what
        self.states = folder / STATE
        self.file = self.states / f"{what}.json"

    def began(self) -> bool:
        """True if such a series was begun in this folder and is not finished."""
        return self.file.is_file()

    def begin(self, config: FinetuneConfig, count: int, manifest: Manifest, **more: str) -> None:
        """Record what ``--resume`` needs to begin the same series again."""
        with writing(self.folder):
            self.states.mkdir(exist_ok=True)
        content = {self.what: count, "content": manifest.content_hash(), "config": to_json(config), **more}
        content["born"] = birthplace(self.folder)
        write_json(self.file, content)

    def read(self) -> tuple[FinetuneConfig, int, dict[str, Any]]:
        """The options, the number of runs, and the record. Raises CheckpointError, in one line, if it is damaged."""
        content = self._content()
        if not isinstance(content.get(self.what), int):
            raise CheckpointError(f"{self.file}: has no number of {self.what}; start anew")
        return read_config(content.get("config"), self.file), content[self.what], content

    def take_up(self, config: FinetuneConfig, manifest: Manifest, cleanup: ExitStack) -> None:
        """Lock the folder until the ``cleanup``. Raises DataError if the images are not those of the series."""
        cleanup.callback(FolderLock(self.folder).release)
        if self._content().get("content") != manifest.content_hash():
            raise DataError(
                f"{config.data}: not the images that {self.folder} began with; start anew in another folder"
            )
        remove_leftovers(self.folder)
        remove_leftovers(self.states)

    def save(self, name: str, trained: Trained, known: int) -> None:
        """Save a finished run; the first ``known`` of its exclusions were there before it."""
        tree = {
            "result": trained.result.to_dict(),
            "exclusions": [(str(e.path), e.reason) for e in trained.manifest.exclusions[known:]],
            "logits": dict(trained.logits),
        }
        write_state(self.states, name, tree)

    def finished(self, name: str, manifest: Manifest, reporter: Reporter) -> Trained | None:
        """The outcome of a run, if it is finished; ``manifest`` is the one that the run was given."""
        if not (self.states / f"{name}.json").is_file():
            return None
        try:
            saved = read_state(self.states, name)
            exclusions = [Exclusion(Path(path), reason) for path, reason in saved["exclusions"]]
            return Trained(
                result=_result(saved["result"]), manifest=manifest.without(exclusions), logits=_logits(saved)
            )
        except CheckpointError as error:
            reporter.message(f"{error}; {name} is trained again")
        except (ValueError, TypeError, KeyError) as error:
            reporter.message(f"{self.states}: the record of {name} is not valid ({error}); it is trained again")
        return None

    def unfinished(self, name: str, reporter: Reporter) -> Unfinished | None:
        """The run that was under way, if its folder exists."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        return open_unfinished(folder, FolderLock(folder), reporter)

    def remove(self) -> None:
        """Remove the records, once every run is finished or no run is left to resume."""
        StateFolder(self.folder).remove()

    @contextmanager
    def kept(
        self, done: Sequence[Trained], names: Sequence[str], cleanup: ExitStack, *, main: bool, reporter: Reporter
    ) -> Iterator[None]:
        """Report the runs that remain after an early end, and remove the folder if there are none."""
        stopped = False
        try:
            yield
        except KeyboardInterrupt:
            left = self._left_over(len(done), names)
            raise KeyboardInterrupt(*([left] if left else [])) from None
        except TlKitError:
            if left := self._left_over(len(done), names):
                reporter.message(left)
            raise
        except StoppedError as error:
            stopped = error.code == TERMINATED
            raise
        finally:
            nothing = not stopped and not any((self.folder / name).exists() for name in names)
            if main and self.states.is_dir() and nothing:
                self.remove()
                (self.folder / OPTIONS).unlink(missing_ok=True)
            if main and self.states.is_dir():
                reporter.message(f"tlkit finetune --resume {self.folder} goes on from here")
            cleanup.close()
            if main and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _left_over(self, finished: int, names: Sequence[str]) -> str:
        """The runs that remain after an early end, in words; empty if there are none."""
        stopped = [self.folder / name for name in names[finished : finished + 1]]
        kept = any(map(is_checkpoint, stopped))
        if not finished and not kept:
            return ""
        unfinished = f"; the best checkpoint so far of the next one is in {stopped[0]}" if kept else ""
        return f"{finished} of {len(names)} {self.what} are finished, in {self.folder}{unfinished}"

    def _content(self) -> dict[str, Any]:
        return read_json(self.file, error=CheckpointError)


def read_config(content: object, file: Path) -> FinetuneConfig:
    """A run's options. Raises CheckpointError if the content is not valid."""
    if isinstance(content, dict) and isinstance(content.get("split"), dict):
        # runs without this entry began before near copies were kept in one split
        content = {**content, "split": {"near_images": 0, **content["split"]}}
    try:
        return from_json(FinetuneConfig, content)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: has no options that this version of tl-kit reads ({error})") from error


def _result(saved: Mapping[str, Any]) -> FinetuneResult:
    snapshots = tuple(Snapshot(**{**each, **_tuples(each, "chosen_by_val")}) for each in saved.get("snapshots", ()))
    return FinetuneResult(**{**saved, **_tuples(saved, "classes", "chosen_by_val"), "snapshots": snapshots})


def _tuples(saved: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: tuple(saved[name]) for name in names if name in saved}


def _logits(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    logits = dict(saved["logits"])
    if not all(isinstance(value, Tensor) for value in logits.values()):
        raise ValueError("it has no outputs")
    return logits
