"""Option files: the options of a command as YAML, read from a user and written into a run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from typing import Any

from tl_kit.errors import ConfigError
from tl_kit.file_kinds import address_of
from tl_kit.flags import Field, fields_of
from tl_kit.named_options import flag_name, held_by

__all__ = ["OPTIONS", "named_values", "options_text", "read_options_file"]

OPTIONS = "config.yaml"
_MOST_BYTES = 2**20
_FLOAT = r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"
_WIDTH = 100


def read_options_file(file: Path) -> dict[str, Any]:
    """The names and values of a YAML file. Raises ConfigError, with the file and the line, where it holds others."""
    import yaml

    try:
        data = file.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise ConfigError(f"--config {file}: {'no such file' if missing else error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"--config {file}: is too large for a file of options ({len(data):,} bytes)")
    try:
        content = yaml.load(data.decode("utf-8-sig"), Loader=_loader())
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {file}: is not UTF-8 text") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"--config {file}: {where}is not YAML ({what})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {file}: must hold names and values, such as epochs: 3")
    return content


def options_text(configs: Sequence[Any], *, command: str, without: Sequence[str] = ()) -> str:
    """The options of a command as a YAML file: every flag, and every other field that differs from its default.

    Paths are absolute. Fields named in ``without`` are left out. ``command`` is the one that takes the file.
    """
    import yaml

    options: dict[str, Any] = {}
    for config in configs:
        options |= {name: value for name, value in named_values(config).items() if name not in without}
    text: str = yaml.dump(options, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=_WIDTH)
    return f"# tlkit {command} --config {OPTIONS} does this again. An option that is typed as well wins.\n{text}"


def named_values(config: Any) -> dict[str, Any]:
    """A configuration's values, plain: flags under their names, other fields under theirs where they differ from
    the default.
    """
    others = {entry.name: _others(entry, getattr(config, entry.name)) for entry in fields_of(type(config))}
    found: dict[str, Any] = {}
    for entry in fields_of(type(config)):
        value, rest = getattr(config, entry.name), others[entry.name]
        flags = dict(_flags(entry, value))
        # A name that also stands for a configuration (runtime, swa) leads to the flag only where that has no entry.
        inside = {name: each for name, each in flags.items() if others.get(name)}
        found |= {flag_name(leaf): plain for name, (leaf, plain) in flags.items() if name not in inside}
        if rest and not isinstance(rest, dict):
            found[entry.name] = rest
        elif rest or inside:
            found[entry.name] = {**{leaf.name: plain for leaf, plain in inside.values()}, **(rest or {})}
    return found


def _flags(entry: Field, value: Any) -> Iterator[tuple[str, tuple[Field, Any]]]:
    if entry.flag is not None:
        yield flag_name(entry), (entry, _plain(value))
    elif value is not None:
        for inner in entry.inner():
            yield from _flags(inner, getattr(value, inner.name))


def _others(entry: Field, value: Any) -> Any:
    """Values of a field that no flag has, where they are not the default; None without such values."""
    if entry.flag is not None or value == entry.default:
        return None
    if held_by(entry) is None or not is_dataclass(value):
        return _plain(value)
    default = entry.default if is_dataclass(entry.default) else None
    known = {inner.name for inner in entry.inner() if inner.flag is not None}
    found = {}
    for inner in fields_of(type(value)):
        own = getattr(value, inner.name)
        usual = inner.default if default is None or isinstance(default, type) else getattr(default, inner.name)
        if inner.name not in known and own != usual:
            found[inner.name] = _plain(own)
    return found or None


def _plain(value: Any) -> Any:
    """A value as YAML has it: paths as absolute text, tuples as lists, configurations as mappings."""
    if isinstance(value, Path):
        return address_of(value) or str(value.expanduser().absolute())
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields_of(type(value))}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _loader() -> Any:
    """PyYAML's safe loader, with numbers such as 1e-3, and with an error for a name that is given twice."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((name for number, name in enumerate(names) if name in names[:number]), MISSING)
            if twice is not MISSING:
                raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
            return super().construct_mapping(node, deep=deep)

    _add_words(Loader)
    return Loader


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    _add_words(Dumper)
    return Dumper


def _add_words(kind: Any) -> None:
    """Numbers without a point are numbers too (YAML 1.2), and None, as messages say it, is null.

    A loader reads them, and a dumper quotes texts like them.
    """
    import re

    kind.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^None$"), ["N"])
    kind.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+0123456789"))
