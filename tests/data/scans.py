"""Looking at scans: what the tests of the layouts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tl_kit.data.manifest import Manifest
from tl_kit.data.scan import scan
from tl_kit.errors import DataError


def reasons(manifest: Manifest) -> dict[str, str]:
    """Reason by path below the root."""
    found = {str(item.path.relative_to(manifest.root)): item.reason for item in manifest.exclusions}
    assert len(found) == len(manifest.exclusions), "something is reported twice"
    return found


def error(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


def write_csv(folder: Path, text: str, *, encoding: str = "utf-8", name: str = "labels.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode(encoding))
    return file


def row_by_row(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(manifest.classes[s.label], s.split, s.digest) for s in manifest.samples]
