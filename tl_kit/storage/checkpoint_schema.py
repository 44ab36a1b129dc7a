"""Schema of ``tlkit.json``: types and bounds, checked before the content is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_kit.class_names import nfc_names
from tl_kit.config import DataConfig, TrustConfig
from tl_kit.data.grouping import check_group_pattern
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.images.deep import KINDS, SampleRanges
from tl_kit.images.device_decode import DECODERS
from tl_kit.untrusted import plain_number

__all__ = ["check_classes", "check_format", "check_meta", "data_problems", "ranges_of"]

_LONGEST_NAME = 1000  # of a column
_LARGEST_SAMPLE = 3.5e38  # about the largest float32


def check_format(content: Mapping[str, Any], path: Path, *, readable: tuple[int, ...]) -> None:
    """Raises CheckpointError for a file of a format that this version cannot read; for a later one, says so."""
    found = content.get("format")
    if type(found) is int and found > max(readable):
        raise CheckpointError(
            f"{path}: written by a later tl-kit, in format {found}; this one reads up to {max(readable)}: "
            "update it with pip install --upgrade tl-kit"
        )
    if type(found) is not int or found not in readable:
        raise CheckpointError(f"{path}: not in a format that this version of tl-kit reads")


def check_classes(value: object, path: Path) -> tuple[str, ...]:
    """The class names in the order of the outputs, in composed Unicode if they stay distinct.

    Raises CheckpointError if they are not class names, or not distinct.
    """
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{path}: has no class names")
    if len(value) > TrustConfig.number or any(len(name) > TrustConfig.text for name in value):
        raise CheckpointError(f"{path}: has more or longer class names than there can be")
    if not all(value):
        raise CheckpointError(f"{path}: has a class without a name")
    name, count = Counter(value).most_common(1)[0]
    if count > 1:
        raise CheckpointError(f"{path}: class names must differ, and {name!r} stands {count} times")
    return nfc_names(value)


def check_meta(meta: Mapping[str, Any], path: Path) -> None:
    """Raises CheckpointError, naming the entry, if an entry that is read later has a wrong type.

    Entries may be missing: earlier versions wrote fewer.
    """
    check_classes(meta.get("classes"), path)
    problem = next(_problems(meta), None)
    if problem is not None:
        raise CheckpointError(f"{path}: {problem}; the file is damaged or was changed")


def _problems(meta: Mapping[str, Any]) -> Iterator[str]:
    config, data = meta.get("config", {}), meta.get("data", {})
    if not isinstance(config, dict) or not isinstance(data, dict):
        yield "config or data is not a JSON object"
        return
    for name, value in (("config.model", config.get("model", "")), ("precision", meta.get("precision", ""))):
        if not isinstance(value, str) or len(value) > TrustConfig.text:
            yield f"{name} is not a name"
    for name in ("root", "content"):
        value = data.get(name, "")
        if not isinstance(value, str) or "\0" in value:
            yield f"data.{name} is no {'path' if name == 'root' else 'text'}"
    yield from data_problems(data)
    yield from _wrong_split(config.get("split", {}))
    if not _are_ranges(meta.get("ranges", {})):
        yield "ranges are not those of samples"
    if meta.get("decoder", "pillow") not in DECODERS:
        yield "decoder is not one of images"


def ranges_of(meta: Mapping[str, Any]) -> SampleRanges | None:
    """The sample ranges of deep images in a checked file; None if no training image was deep."""
    found = meta.get("ranges")
    return SampleRanges.of({kind: (low, high) for kind, (low, high) in found.items()}) if found else None


def _are_ranges(value: object) -> bool:
    return isinstance(value, dict) and all(kind in KINDS and _is_range(bounds) for kind, bounds in value.items())


def _is_range(bounds: object) -> bool:
    most = _LARGEST_SAMPLE
    return (
        isinstance(bounds, list)
        and len(bounds) == 2
        and all(plain_number(bound, -most, most) for bound in bounds)
        and float(bounds[0]) < float(bounds[1])
    )


def data_problems(data: Mapping[str, Any], name: str = "data") -> Iterator[str]:
    """Faults in a record's entry on seen images, and in that of its teacher."""
    for key, kind in (("train", "digests"), ("val", "digests"), ("selected", "names")):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f"{name}.{key} is not a list of {kind}"
    for key in ("unknown", "refit"):
        if not isinstance(data.get(key, False), bool):
            yield f"{name}.{key} is neither true nor false"
    if "teacher" in data and name == "data":
        if isinstance(data["teacher"], dict):
            yield from data_problems(data["teacher"], "data.teacher")
        else:
            yield "data.teacher is not a JSON object"


def _wrong_split(split: object) -> Iterator[str]:
    if not isinstance(split, dict):
        yield "config.split is not a JSON object"
        return
    for name, default in ((name, getattr(DataConfig, name)) for name in DataConfig.__dataclass_fields__):
        value = split.get(name, default)
        if not (_is_name(value) if name.endswith("_column") else _fits_split(value, default)):
            yield f"config.split.{name} is {str(value)[:40]!r}"


def _fits_split(value: object, default: object) -> bool:
    if default is None:
        return value is None or (isinstance(value, str) and _is_pattern(value))
    if isinstance(default, int):
        return type(value) is int and 0 <= value < 2**63
    return plain_number(value, 0, 1)


def _is_name(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _LONGEST_NAME)


def _is_pattern(text: str) -> bool:
    try:
        check_group_pattern(text)
    except ConfigError:
        return False
    return True
