"""The journal of a fit: every step, what became of it, and what ``--resume`` needs to go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tl_kit.config import FitConfig
from tl_kit.errors import CheckpointError, DataError
from tl_kit.finetuning.result import Trained
from tl_kit.fitting.ladder import Attempt, Step
from tl_kit.fitting.speed import Speed
from tl_kit.storage.atomic import write_json, writing
from tl_kit.storage.config_json import from_json, to_json
from tl_kit.storage.relocation import birthplace
from tl_kit.storage.saved_states import STATE
from tl_kit.untrusted import read_json

__all__ = ["RUNS", "Entry", "Journal", "entries_of"]

RUNS = "runs"
_JOURNAL = "journal.json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An attempt with its run: the name of its folder, its time, its outcome and its speed.

    ``elapsed``: seconds from the start of the fit to its end. ``epochs`` are those that it was given; 0 for a head.
    ``side``: pixels a side of the images that it sees; 0 in the journal of an earlier version. ``trained`` and
    ``speed`` are None where it did not finish.
    """

    attempt: Attempt
    name: str
    seconds: float
    elapsed: float
    estimate: float | None = None
    policy: str = "head"
    epochs: int = 0
    parameters: int = 0
    side: int = 0
    trained: Trained | None = None
    speed: Speed | None = None

    @property
    def finished(self) -> bool:
        """True where it has a checkpoint."""
        return self.attempt.status == "finished"


@dataclass
class Journal:
    """``state/journal.json`` in the fit's ``folder``. ``elapsed``: seconds of all sessions before this one.

    ``candidates``: names of the networks to try. ``begun``: the step at work with its epochs, so that a resumed fit
    goes on with the same. ``readings``: how often test images were predicted. ``dropped``: whether the first network's
    last layers have dropped what matters; None: not known yet.
    """

    folder: Path
    config: FitConfig
    content: str
    candidates: list[str] = field(default_factory=list)
    elapsed: float = 0.0
    readings: int = 0
    begun: dict[str, Any] | None = None
    dropped: bool | None = None
    entries: list[Entry] = field(default_factory=list)
    born: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Its file."""
        return self.folder / STATE / _JOURNAL

    def write(self, elapsed: float) -> None:
        """Write all of it, in one atomic step."""
        with writing(self.folder):
            self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            self.file,
            {
                "config": to_json(self.config),
                "content": self.content,
                "born": dict(self.born) or birthplace(self.folder),
                "elapsed": elapsed,
                "candidates": self.candidates,
                "readings": self.readings,
                "begun": self.begun,
                "dropped": self.dropped,
                "entries": [_plain(entry) for entry in self.entries],
            },
        )

    @classmethod
    def read(cls, folder: Path) -> tuple[Journal, list[dict[str, Any]]]:
        """The journal without its entries, and these as they were written. Raises CheckpointError if it is damaged."""
        file = folder / STATE / _JOURNAL
        if not file.is_file():
            raise CheckpointError(f"--resume {folder}: no fit began in this folder; give one that tlkit fit made")
        content = read_json(file, error=CheckpointError)
        try:
            config = from_json(FitConfig, content["config"])
            entries = list(content["entries"])
            elapsed, readings = float(content["elapsed"]), int(content["readings"])
            begun, dropped = content["begun"], content.get("dropped")
            candidates = [str(name) for name in content["candidates"]]
            if begun is not None:
                Step(**begun["step"])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{file}: is not a journal that this version of tl-kit reads ({error})") from error
        born = content.get("born")
        journal = cls(folder, config, str(content.get("content")), candidates, elapsed, readings, begun)
        journal.dropped = dropped if isinstance(dropped, bool) else None
        journal.born = born if isinstance(born, dict) else {}
        return journal, entries

    def check_images(self, content: str) -> None:
        """Raises DataError if the images are not those that the fit began with."""
        if content != self.content:
            raise DataError(f"{self.config.data}: not the images that {self.folder} began with; start anew")


def _plain(entry: Entry) -> dict[str, Any]:
    attempt = entry.attempt
    return {
        "step": asdict(attempt.step),
        "status": attempt.status,
        "crop_mode": attempt.crop_mode,
        "kept": attempt.kept,
        "note": attempt.note,
        "name": entry.name,
        "seconds": entry.seconds,
        "elapsed": entry.elapsed,
        "estimate": entry.estimate,
        "policy": entry.policy,
        "epochs": entry.epochs,
        "parameters": entry.parameters,
        "side": entry.side,
        "speed": None if entry.speed is None else asdict(entry.speed),
    }


def entries_of(written: list[dict[str, Any]], file: Path) -> Iterator[Entry]:
    """The entries of a journal, without their outcomes. Raises CheckpointError if one is damaged."""
    for each in written:
        try:
            step = Step(**each["step"])
            attempt = Attempt(
                step=step, status=each["status"], crop_mode=each["crop_mode"], kept=each["kept"], note=each["note"]
            )
            names = ("name", "seconds", "elapsed", "estimate", "policy", "epochs", "parameters")
            speed = None if each["speed"] is None else Speed(**each["speed"])
            side = int(each.get("side", 0))
            yield Entry(attempt=attempt, speed=speed, side=side, **{name: each[name] for name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: an entry is damaged ({error}); start anew") from error
