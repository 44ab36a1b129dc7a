"""Opening of trackers: the names that accelerate knows, and the arguments with which each of them begins or goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_kit.config import TrackingConfig
from tl_kit.errors import ConfigError, nearest
from tl_kit.optional_packages import needs, pip_install

__all__ = ["GOES_ON", "Beginning", "check_trackers", "identity_of", "names_in", "open_tracker"]

_INSTALL = {"tensorboard": pip_install("track")}


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Beginning of a tracked run. ``run``: its name for people; ``identity``: a new one, or that of a run that goes on.

    ``first_step``: the first step that follows, where the run was tracked before.
    """

    folder: Path
    project: str
    run: str
    identity: str
    resumed: bool
    first_step: int | None


def names_in(config: TrackingConfig) -> tuple[str, ...]:
    """The names of the trackers, each once; a text may hold several, with commas between."""
    found = (name.strip() for text in config.track for name in text.split(","))
    return tuple(dict.fromkeys(name for name in found if name))


def check_trackers(config: TrackingConfig) -> None:
    """Raises ConfigError for a tracker that accelerate does not know, or whose package is missing."""
    names = names_in(config)
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    builtin, here = {str(each) for each in LoggerType}, {str(each) for each in get_available_trackers()}
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            hint = "" if meant is None else f"; did you mean {meant}?"
            raise ConfigError(f"--track {name}: known are {', '.join(sorted(known))}{hint}")
        if name in builtin and name not in here:
            raise ConfigError(needs(f"--track {name}", [name], _INSTALL.get(name, f"pip install {name}")))


def open_tracker(name: str, beginning: Beginning) -> Any:
    """A started tracker of accelerate's. It says no word itself about the process: this one is told to write."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    arguments = _ARGUMENTS.get(name)
    if arguments is not None:
        tracker = kind(**arguments(beginning))
    elif kind.requires_logging_directory:
        tracker = kind(beginning.project, str(beginning.folder / name))
    else:
        tracker = kind(beginning.project)
    tracker.main_process_only = False
    tracker.start()
    return tracker


def identity_of(tracker: Any, beginning: Beginning) -> str:
    """The name by which the tracker's server or files know this run."""
    if tracker.name == "mlflow":
        return str(tracker.tracker.info.run_id)
    return beginning.identity


def _tensorboard(beginning: Beginning) -> dict[str, Any]:
    purge = {} if beginning.first_step is None else {"purge_step": beginning.first_step}
    return {"run_name": "tensorboard", "logging_dir": str(beginning.folder), **purge}


def _mlflow(beginning: Beginning) -> dict[str, Any]:
    own = {"run_id": beginning.identity} if beginning.resumed else {"run_name": beginning.run}
    return {"experiment_name": beginning.project, **own}


def _wandb(beginning: Beginning) -> dict[str, Any]:
    return {
        "run_name": beginning.project,
        "name": beginning.run,
        "id": beginning.identity,
        "resume": "allow",
        "dir": str(beginning.folder),
    }


def _trackio(beginning: Beginning) -> dict[str, Any]:
    name = f"{beginning.run.replace('/', '-')}-{beginning.identity}"
    return {"run_name": beginning.project, "name": name, "resume": "allow"}


_ARGUMENTS: Mapping[str, Callable[[Beginning], dict[str, Any]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}
GOES_ON: Sequence[str] = tuple(_ARGUMENTS)
"""Trackers that go on with the run that they began; others begin another one when a run is resumed."""
