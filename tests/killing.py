"""A run that is killed at a step of its own, within this process: what is on disk at that moment is what is left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tl_kit import SaveConfig
from tl_kit.finetuning import saved_state as saving

__all__ = [
    "EVERY_STEP",
    "Copies",
    "KilledError",
    "Killer",
    "assert_the_same",
    "digest",
    "killing",
    "killing_before_operation",
    "meta",
    "rows",
]

EVERY_STEP = SaveConfig(every=1e-9, most_share=1.0)
_TIMES = ("images_per_second", "data_wait")


class KilledError(BaseException):
    """Stands for SIGKILL."""


class Killer:
    """Kills at the n-th time that a fit can be taken up again; 0: never. ``seen`` counts these times."""

    def __init__(self, out: Path, at: int = 0) -> None:
        self.out, self.at, self.seen = out, at, 0
        self._kept = out.with_name(f"{out.name}-killed")

    def __call__(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            shutil.copytree(self.out, self._kept)
            raise KilledError

    def restore(self) -> None:
        """Undo what the process tidied up after it was "killed": a real one would have left it."""
        shutil.rmtree(self.out, ignore_errors=True)
        self._kept.rename(self.out)


class Copies:
    """Copies a run's folder each time that a fit can be taken up again: what a kill would have left; ``seen`` of them.

    One run then stands for all that are killed, where it is not in question that equal runs are equal.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.seen = out, 0
        self._folder = out.with_name(f"{out.name}-copies")

    def __call__(self) -> None:
        self.seen += 1
        shutil.copytree(self.out, self._folder / str(self.seen), copy_function=_keep)

    def restore(self, at: int) -> Path:
        """The run's folder, as it was at the n-th time."""
        shutil.rmtree(self.out, ignore_errors=True)
        return Path(shutil.copytree(self._folder / str(at), self.out))


def _keep(source: str, target: str) -> None:
    """A second name is enough for what is only ever replaced as a whole, and large."""
    if source.endswith((".safetensors", ".pt")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@contextmanager
def killing(killer: Killer | Copies) -> Iterator[None]:
    """Within the block the killer strikes, after the state has been saved where it was time for it."""
    save: Callable[[saving.StateSaver, Any], None] = saving.StateSaver.on_resumable

    def saved(self: saving.StateSaver, result: Any) -> None:
        save(self, result)
        killer()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving.StateSaver, "on_resumable", saved)
        try:
            yield
        except KilledError:
            assert isinstance(killer, Killer)
            killer.restore()


@contextmanager
def killing_before_operation(at: int, out: Path, left: Path) -> Iterator[list[str]]:
    """Kill before the n-th time that the block syncs, renames, removes or makes a file or a folder, or writes a text.

    ``left`` becomes a copy of ``out`` as it is then. Gives the names of the operations that were begun.
    """
    begun: list[str] = []

    def counted(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def before(*arguments: Any, **more: Any) -> Any:
            begun.append(name)
            if len(begun) == at:
                patch.undo()
                if out.exists():
                    shutil.copytree(out, left)
                raise KilledError
            return operation(*arguments, **more)

        return before

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((os, "fsync"), *((Path, n) for n in ("replace", "unlink", "mkdir", "write_text"))):
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        with suppress(KilledError):
            yield begun


def digest(folder: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def rows(folder: Path) -> list[dict[str, float]]:
    """The journal, without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in _TIMES} for line in lines]


def meta(folder: Path) -> dict[str, Any]:
    """``tlkit.json``, without times, and without the place and how often it was saved."""
    content: dict[str, Any] = json.loads((folder / "tlkit.json").read_text())
    for name in ("out", "save"):
        del content["config"][name]
    return {name: value for name, value in content.items() if name not in ("seconds", "checkpoint")}


def assert_the_same(resumed: Path, whole: Path) -> None:
    """Two finished runs, in all but times."""
    assert digest(resumed) == digest(whole)
    assert rows(resumed) == rows(whole)
    assert meta(resumed) == meta(whole)
    assert {path.name for path in resumed.iterdir()} == {path.name for path in whole.iterdir()}
