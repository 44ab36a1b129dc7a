"""The exception tree: every mistake that a user can make derives from :class:`TlKitError`.

::

    TlKitError                  one clear line, exit code 2
    ├── ConfigError             an option's value is wrong
    │   ├── InputError          an input of predict is not an image (also a TypeError)
    │   └── PolicyError         a freezing policy does not fit the model
    ├── DataError               a folder, a CSV file or a split is wrong
    │   ├── ImageError          one image cannot be decoded
    │   └── SamplesError        images or labels given to an estimator cannot be used (also a ValueError)
    ├── WeightsError            pretrained weights are not available, or do not fit
    ├── CheckpointError         a checkpoint or ensemble folder is missing, foreign or broken
    │   └── MemberError         members of an ensemble do not belong together
    ├── PublishError            the hub refuses an upload, or cannot be reached
    ├── TrainingError           training cannot continue, or there is nothing to train
    │   └── NonFiniteError      a loss, a weight or an output is NaN or infinite
    ├── ExportError             an exported file would not predict as its checkpoint does
    ├── ResourceError           the machine's memory is not enough
    └── AuditError              a tensor that the policy freezes changed (a defect of ours)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AuditError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExportError",
    "ImageError",
    "InputError",
    "MemberError",
    "NonFiniteError",
    "PolicyError",
    "PublishError",
    "ResourceError",
    "SamplesError",
    "TlKitError",
    "TrainingError",
    "WeightsError",
    "first_line",
    "nearest",
]


class TlKitError(Exception):
    """Base of all errors raised on purpose; its text is one line that names the file or option and says what to do."""


class ConfigError(TlKitError):
    """An option has an invalid value."""


class InputError(ConfigError, TypeError):
    """An input of ``predict`` is not an image, or has a form that is not accepted."""


class PolicyError(ConfigError):
    """A freezing policy does not fit the model."""


class DataError(TlKitError):
    """The images, their labels or their splits cannot be used as they are."""


class ImageError(DataError):
    """One image cannot be decoded; the text is the reason, without the path."""


class SamplesError(DataError, ValueError):
    """Images ``X`` or labels ``y`` of an estimator cannot be used."""


class WeightsError(TlKitError):
    """Pretrained weights cannot be found, are damaged or do not fit the model."""


class CheckpointError(TlKitError):
    """A checkpoint or ensemble folder is missing, written by something else, or broken."""


class MemberError(CheckpointError):
    """Checkpoints cannot be members of one ensemble."""


class PublishError(TlKitError):
    """A checkpoint or ensemble cannot be published."""


class TrainingError(TlKitError):
    """Training cannot go on, or cannot start."""


class NonFiniteError(TrainingError):
    """A loss, a weight or an output is not finite."""


class ExportError(TlKitError):
    """An exported file would not predict as its checkpoint does, or its 8 bits would cost too much accuracy."""


class ResourceError(TlKitError):
    """The machine has too little memory for this."""


class AuditError(TlKitError):
    """A frozen tensor changed during training."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for use in tl-kit's own message; the error's class if it has no text."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is most similar to a mistyped one, ignoring case; None if none is similar.

    ``cutoff`` from 0 to 1: the required similarity (:func:`difflib.get_close_matches`).
    """
    by_lower = {each.lower(): each for each in sorted(known)}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None
