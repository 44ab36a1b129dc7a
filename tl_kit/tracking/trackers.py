"""Trackers that follow one run: what happens is sent to each of them, and none of them can stop or change the run."""

from __future__ import annotations

import os
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tl_kit.config import TrackingConfig
from tl_kit.errors import CheckpointError, TlKitError, first_line
from tl_kit.machine.process_group import alone, join
from tl_kit.plain_values import plain_value
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import write_json
from tl_kit.tracking.openings import GOES_ON, Beginning, identity_of, names_in, open_tracker
from tl_kit.tracking.tables import ScoreTable
from tl_kit.untrusted import read_json

__all__ = ["TRACKING", "Tracking", "track"]

TRACKING = "tracking.json"
"""The file in a run's folder by which a resumed run finds its runs at the trackers again."""
_COMPARED = ("val/accuracy", "val/nll", "train/loss")


class Tracking:
    """The trackers of one run, by name; without any, every method does nothing.

    A tracker that fails is reported in one line and left out from then on. Random numbers that one draws are not
    missing in the run. ``fresh``: those that know nothing yet of a run that is resumed.
    """

    def __init__(self, reporter: Reporter = SILENT) -> None:
        self._reporter = reporter
        self._open: dict[str, Any] = {}
        self._fresh: set[str] = set()
        self._unconfigured: set[str] = set()
        self._prefix = ""
        self._record: Callable[[str], None] = lambda name: None

    @property
    def takes_pictures(self) -> bool:
        """True while a tracker is open, and this is not a part of the run alone."""
        return bool(self._open) and not self._prefix

    def begin(self, config: TrackingConfig, folder: Path, *, first_step: int | None = None) -> None:
        """Open the trackers of a run in ``folder``. ``first_step``: the next one of a run that is resumed, or None."""
        known = _read(folder)
        written: dict[str, Any] = dict(known)

        def record(name: str) -> None:
            written[name]["configured"] = True
            _write(folder, written)

        self._record = record
        for name in names_in(config):
            before = known.get(name) if name in GOES_ON else None
            beginning = Beginning(
                folder=folder,
                project=config.project,
                run="/".join(folder.absolute().parts[-2:]),
                identity=str(before["id"]) if before else uuid.uuid4().hex[:8],
                resumed=before is not None,
                first_step=first_step if before else None,
            )
            with self._guarded(name):
                tracker = open_tracker(name, beginning)
                self._open[name] = tracker
                configured = before is not None and before["configured"]
                written[name] = {"id": identity_of(tracker, beginning), "configured": configured}
                self._fresh |= set() if before else {name}
                self._unconfigured |= set() if configured else {name}
        if written != known:
            _write(folder, written)

    def within(self, name: str) -> Tracking:
        """The same trackers for one part of the run: its scalars begin with the ``name``, all else is left out."""
        part = Tracking(self._reporter)
        part._open, part._prefix = self._open, f"{name}/"
        return part

    def configure(self, options: Mapping[str, Any]) -> None:
        """Send the effective options; only the first call counts, also over the sessions of a run that is resumed."""
        if self._prefix:
            return
        flat = dict(_scalars(options))
        for name in list(self._unconfigured):
            with self._guarded(name):
                _send_options(self._open[name], dict(flat))
                self._record(name)
        self._unconfigured.clear()

    def epoch(self, row: Mapping[str, float]) -> None:
        """Send an epoch's figures, under the epoch's number."""
        self.scalars(_epoch_scalars(row), step=int(row["epoch"]))

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Send the epochs before a run was resumed to trackers that begin anew."""
        for row in rows:
            self.scalars(_epoch_scalars(row), step=int(row["epoch"]), only=self._fresh)

    def scalars(self, values: Mapping[str, float], *, step: int, only: set[str] | None = None) -> None:
        """Send figures by name."""
        named = {f"{self._prefix}{name}": float(value) for name, value in values.items()}
        for name in list(self._open):
            if named and (only is None or name in only) and name in self._open:
                with self._guarded(name):
                    self._open[name].log(dict(named), step=step)

    def table(self, table: ScoreTable, *, step: int) -> None:
        """Send a table, as the tracker shows one: as a table, as text, or as a file."""
        for name, tracker in {} if self._prefix else dict(self._open).items():
            with self._guarded(name):
                _send_table(tracker, table, step)

    def pictures(self, files: Mapping[str, Path], *, step: int) -> None:
        """Send PNG files by name; one that does not exist is left out."""
        for name, tracker in {} if self._prefix else dict(self._open).items():
            for title, file in files.items():
                if file.is_file() and name in self._open:
                    with self._guarded(name):
                        _send_picture(tracker, title, file, step)

    def close(self) -> None:
        """Let the trackers finish what they have."""
        for name in list(self._open):
            with self._guarded(name):
                self._open[name].finish()
        self._open.clear()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Report an error in one line and leave the tracker out; give the run back the random state that it had."""
        python, numpy = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tracker does, the run goes on
            self._open.pop(name, None)
            self._reporter.message(f"warning: --track {name}: {first_line(error)}; the work goes on without it")
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def track(
    config: TrackingConfig, folder: Path, *, cpu: bool, reporter: Reporter = SILENT, first_step: int | None = None
) -> Iterator[Tracking]:
    """Trackers for work that has no accelerator of its own, closed at the end of the block. ``cpu``: it uses no GPU."""
    tracking = Tracking(reporter)
    if names_in(config):
        with alone():  # accelerate's trackers write log lines, which need its state
            join(cpu=cpu, reporter=SILENT)
        tracking.begin(config, folder, first_step=first_step)
    try:
        yield tracking
    finally:
        tracking.close()


def _epoch_scalars(row: Mapping[str, float]) -> dict[str, float]:
    """``val_accuracy`` as ``val/accuracy``, what training measures as ``train/loss``."""
    return {
        f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}": value
        for name, value in row.items()
        if name != "epoch"
    }


def _scalars(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Options as names and single values, which is all that trackers take; None as text, lists with commas between."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{name}", value
        else:
            several = isinstance(value, list | tuple)
            yield f"{prefix}{name}", ", ".join(map(str, value)) if several else str(value).lower()


def _send_options(tracker: Any, options: dict[str, Any]) -> None:
    """Send options; to TensorBoard as the run's own hyperparameters and as text, not as another run beside it."""
    if tracker.name != "tensorboard":
        tracker.store_init_configuration(options)
        return
    from torch.utils.tensorboard.summary import hparams  # tensorboard's own needs TensorFlow

    figures = dict.fromkeys(_COMPARED, 0.0)  # of which it takes the names alone
    for summary in hparams(options, figures):  # type: ignore[no-untyped-call]
        tracker.tracker.file_writer.add_summary(summary)
    rows = tuple((name, value if isinstance(value, float) else str(value)) for name, value in options.items())
    tracker.log({"options": ScoreTable("options", ("option", "value"), rows).markdown}, step=0)


def _send_table(tracker: Any, table: ScoreTable, step: int) -> None:
    if hasattr(tracker, "log_table"):
        rows = [[str(cell) for cell in row] for row in table.rows]
        tracker.log_table(table.name, columns=list(table.columns), data=rows, step=step)
    elif tracker.name == "tensorboard":
        tracker.log({table.name: table.markdown}, step=step)
    elif hasattr(tracker, "log_artifact"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{table.name}.md"
            file.write_text(table.markdown + "\n", encoding="utf-8")
            tracker.log_artifact(str(file))


def _send_picture(tracker: Any, title: str, file: Path, step: int) -> None:
    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    if tracker.name == "tensorboard":
        tracker.log_images({title: pixels[None]}, step=step, dataformats="NHWC")
    elif hasattr(tracker, "log_images"):
        tracker.log_images({title: [pixels]}, step=step)
    elif hasattr(tracker, "log_artifact"):
        tracker.log_artifact(os.fspath(file))


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """Content of the folder's record, by tracker; a record that is missing or damaged is none."""
    try:
        content = read_json(folder / TRACKING, error=CheckpointError)
        return {
            name: {"id": plain_value(str, entry["id"], name), "configured": entry["configured"] is True}
            for name, entry in content.items()
        }
    except (TlKitError, KeyError, TypeError):
        return {}


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    with suppress(CheckpointError):  # a full disk: a run that is resumed begins another one at the trackers
        write_json(folder / TRACKING, dict(content))
