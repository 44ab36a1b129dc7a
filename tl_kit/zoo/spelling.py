"""Misspelled names of models and weights, and the right spelling."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path

import timm

__all__ = [
    "FOLDER_PREFIX",
    "HUB_PREFIX",
    "expanded",
    "is_page",
    "is_repository",
    "looks_like_a_file",
    "meant",
    "shown",
    "suggestions",
]

HUB_PREFIX, FOLDER_PREFIX = "hf-hub:", "local-dir:"
_FILE_ENDINGS = (
    *(".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle", ".npz"),
    *(".onnx", ".h5", ".hdf5", ".keras", ".pb", ".tflite", ".gguf", ".msgpack"),
)
_OWNER_AND_NAME = r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)"
_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:api/)?(?:models/)?"
    + _OWNER_AND_NAME
    # the rest of a page's address: a branch, a file, a query
    + r"(?:\.git)?/?(?:(?:tree|blob|resolve|raw)/(?P<revision>[^/?#]+).*)?(?:[?#].*)?",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?:hf|huggingface)(?:[-_ ]?hub)?\s*(?::\s*/*|/)\s*", re.IGNORECASE)
_HUB_ALONE = re.compile(r"hf[-_ ]?hub\s*[:/]?\s*", re.IGNORECASE)
_FOLDER = re.compile(r"local[-_ ]?(?:dir|folder)\s*:\s*", re.IGNORECASE)
_REPOSITORY = re.compile(_OWNER_AND_NAME + r"(?:@(?P<revision>[^\s@]+))?")
_QUOTES = " \t\r\n'\"`,;"


def expanded(path: Path) -> Path:
    """The path with its ``~`` in the home folder; as it is for an unknown user."""
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def is_repository(text: str) -> bool:
    """True for ``OWNER/NAME`` and ``OWNER/NAME@REVISION``."""
    return _REPOSITORY.fullmatch(text) is not None


def is_page(name: str) -> bool:
    """True for the address of a page on the hub."""
    return _PAGE.fullmatch(name.strip(_QUOTES)) is not None


def meant(name: str, *, plain: bool = True) -> str | None:
    """The right spelling of a misspelled name if its meaning is clear, or None.

    It handles the address of a page on the hub, ``hf_hub:`` and other spellings of ``hf-hub:``, ``timm/NAME``, quotes
    and blanks around a name, capitals and hyphens. With ``plain``, a repository of one of timm's models becomes the
    model's name; ``plain`` is False if the repository itself is meant.
    """
    bare = name.strip(_QUOTES)
    rest = bare
    while (scheme := _SCHEME.match(rest)) is not None and not _PAGE.fullmatch(rest):
        rest = rest[scheme.end() :]
    found = _PAGE.fullmatch(rest) or _REPOSITORY.fullmatch(rest)
    if found is not None and (rest != bare or found.re is _PAGE or found["owner"].lower() == "timm"):
        of_timm = found["owner"].lower() == "timm" and found["revision"] in (None, "main")
        if plain and of_timm and _known(found["name"]):
            return found["name"]
        revision = f"@{found['revision']}" if found["revision"] not in (None, "main") else ""
        return f"{HUB_PREFIX}{found['owner']}/{found['name']}{revision}"
    if _HUB_ALONE.fullmatch(bare):
        return f"{HUB_PREFIX}OWNER/NAME"
    if (folder := _FOLDER.match(bare)) is not None:
        return f"{FOLDER_PREFIX}{bare[folder.end() :] or 'FOLDER'}"
    alike = rest if _known(rest) else next(iter(_alike(rest)), None)
    return alike if alike != name else None


def shown(name: str) -> str:
    """A name for a one-line message: quoted if it has blanks at its ends or characters that cannot be printed."""
    return name if name.isprintable() and name == name.strip() else repr(name)


def suggestions(name: str, count: int = 4) -> list[str]:
    """The timm names nearest to a mistyped one, best first; names without a tag come before those with one."""
    plain = difflib.get_close_matches(name.lower(), timm.list_models(), n=count)
    tagged = difflib.get_close_matches(name.lower(), timm.list_pretrained(), n=count) if "." in name else []
    return (tagged + plain)[:count]


def looks_like_a_file(name: str) -> bool:
    """True if a name looks like a file of weights, whether it exists or not."""
    return name.lower().endswith(_FILE_ENDINGS) or _is_file(name)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _known(name: str) -> bool:
    return name in timm.list_pretrained() or timm.is_model(name)


def _alike(name: str) -> list[str]:
    """timm's names with the same letters and digits."""
    wanted = _letters(name)
    names = [*timm.list_models(), *(timm.list_pretrained() if "." in name or ":" in name else [])]
    return [each for each in names if wanted and _letters(each) == wanted]


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
