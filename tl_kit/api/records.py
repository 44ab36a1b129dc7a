"""What a cross-validation notes as it goes, so that ``--resume`` keeps the folds that are finished."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from tl_kit.api.configuration import from_json, to_json
from tl_kit.api.finetuning import FinetuneResult, Trained
from tl_kit.api.unfinished import Unfinished, open_unfinished
from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Exclusion, Manifest
from tl_kit.errors import CheckpointError, DataError, TlKitError
from tl_kit.reporting import Reporter
from tl_kit.stopping import TERMINATED, StoppedError
from tl_kit.training.checkpoint import is_checkpoint
from tl_kit.training.files import remove_leftovers, write_json, writing
from tl_kit.training.lock import FolderLock
from tl_kit.training.states import STATE, StateFolder, read_state, write_state

__all__ = ["FoldRecords", "read_config"]

_FILE = "folds.json"


class FoldRecords:
    """``folder/state``: the options, and for each finished fold its result, its outputs and what it left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = folder / STATE

    def began(self) -> bool:
        """Whether a cross-validation was begun here and is not finished."""
        return (self.states / _FILE).is_file()

    def begin(self, config: FinetuneConfig, folds: int, manifest: Manifest) -> None:
        """Note what ``--resume`` needs to begin the same again."""
        with writing(self.folder):
            self.states.mkdir(exist_ok=True)
        content = {"folds": folds, "content": manifest.content_hash(), "config": to_json(config)}
        write_json(self.states / _FILE, content)

    def read(self) -> tuple[FinetuneConfig, int]:
        """The options and the number of folds. Raises CheckpointError, in one line, for a damaged file."""
        content = self._content()
        if not isinstance(content.get("folds"), int):
            raise CheckpointError(f"{self.states / _FILE}: has no number of folds; start anew")
        return read_config(content.get("config"), self.states / _FILE), content["folds"]

    def take_up(self, config: FinetuneConfig, manifest: Manifest, cleanup: ExitStack) -> None:
        """Lock the folder until the ``cleanup``. Raises DataError for other images than those it began with."""
        cleanup.callback(FolderLock(self.folder).release)
        if self._content().get("content") != manifest.content_hash():
            raise DataError(
                f"{config.data}: not the images that {self.folder} began with; start anew in another folder"
            )
        remove_leftovers(self.folder)
        remove_leftovers(self.states)

    def save(self, number: int, trained: Trained, known: int) -> None:
        """A fold is finished; of its exclusions, the first ``known`` were there before it."""
        tree = {
            "result": trained.result.to_dict(),
            "exclusions": [(str(e.path), e.reason) for e in trained.manifest.exclusions[known:]],
            "logits": dict(trained.logits),
        }
        write_state(self.states, f"fold-{number}", tree)

    def finished(self, number: int, manifest: Manifest, reporter: Reporter) -> Trained | None:
        """A fold's outcome, where it is finished; ``manifest`` is that which it was given."""
        if not (self.states / f"fold-{number}.json").is_file():
            return None
        try:
            saved = read_state(self.states, f"fold-{number}")
            exclusions = [Exclusion(Path(path), reason) for path, reason in saved["exclusions"]]
            return Trained(
                result=_result(saved["result"]), manifest=manifest.without(exclusions), logits=_logits(saved)
            )
        except CheckpointError as error:
            reporter.message(f"{error}; the fold is trained again")
        except (ValueError, TypeError, KeyError) as error:
            reporter.message(f"{self.states}: the record of fold {number} is none ({error}); it is trained again")
        return None

    def unfinished(self, number: int, reporter: Reporter) -> Unfinished | None:
        """The fold that was under way, where its folder is there."""
        folder = self.folder / f"fold-{number}"
        if not folder.is_dir():
            return None
        return open_unfinished(folder, FolderLock(folder), reporter)

    def remove(self) -> None:
        """All is finished, or nothing is left that could go on."""
        StateFolder(self.folder).remove()

    @contextmanager
    def kept(
        self, done: Sequence[Trained], folds: int, cleanup: ExitStack, *, main: bool, reporter: Reporter
    ) -> Iterator[None]:
        """Whatever ends the work early, what is left is said, and a folder that holds none of it goes."""
        stopped = False
        try:
            yield
        except KeyboardInterrupt:
            left = self._left_over(len(done), folds)
            raise KeyboardInterrupt(*([left] if left else [])) from None
        except TlKitError:
            if left := self._left_over(len(done), folds):
                reporter.message(left)
            raise
        except StoppedError as error:
            stopped = error.code == TERMINATED
            raise
        finally:
            if main and self.states.is_dir() and not stopped and not any(self.folder.glob("fold-*")):
                self.remove()
            if main and self.states.is_dir():
                reporter.message(f"tlkit finetune --resume {self.folder} goes on from here")
            cleanup.close()
            if main and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _left_over(self, finished: int, folds: int) -> str:
        """What an early end leaves behind; empty if it is nothing."""
        stopped = self.folder / f"fold-{finished + 1}"
        kept = is_checkpoint(stopped)
        if not finished and not kept:
            return ""
        unfinished = f"; the best checkpoint so far of the next one is in {stopped}" if kept else ""
        return f"{finished} of {folds} folds are finished, in {self.folder}{unfinished}"

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads((self.states / _FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.states / _FILE}: cannot be read as JSON ({error})") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.states / _FILE}: not in a format that this version of tl-kit reads")
        return content


def read_config(content: object, file: Path) -> FinetuneConfig:
    """A run's options. Raises CheckpointError for what is none."""
    try:
        return from_json(FinetuneConfig, content)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: has no options that this version of tl-kit reads ({error})") from error


def _result(saved: Mapping[str, Any]) -> FinetuneResult:
    return FinetuneResult(**{**saved, "classes": tuple(saved["classes"])})


def _logits(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    logits = dict(saved["logits"])
    if not all(isinstance(value, Tensor) for value in logits.values()):
        raise ValueError("it has no outputs")
    return logits
