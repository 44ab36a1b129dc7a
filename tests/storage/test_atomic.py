"""Files are whole or absent."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
from safetensors import SafetensorError

from tl_kit.errors import CheckpointError
from tl_kit.storage.atomic import check_writable, new_numbered_folder, write_atomically, write_json, write_tensors


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})

    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        write_atomically(target, broken)
    assert json.loads(target.read_text()) == {"x": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_can_be_made_is_writable_and_is_not_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (check_writable, lambda folder: write_json(folder / "a.json", {})):
        with pytest.raises(CheckpointError, match=r"file: is a file, not a folder; choose another folder$"):
            attempt(tmp_path / "file" / "inside")


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_numbered_folders_are_never_given_twice(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_numbered_folder(tmp_path / "ckpts", "m"), range(40)))
    assert sorted(f.name for f in folders) == sorted(f"m-{n}" for n in range(1, 41))


def test_a_parent_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/m-1.*--out"):
        new_numbered_folder(tmp_path / "file", "m")


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: Permission denied (os error 13)",
        'Error while serializing: IoError(Os { code: 13, kind: PermissionDenied, message: "Permission denied" })',
    ],
)
def test_what_any_safetensors_says_of_the_system_names_the_folder(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise SafetensorError(text)

    monkeypatch.setattr(safetensors.torch, "save_file", refused)
    with pytest.raises(CheckpointError, match=r"cannot be written \(Permission denied\); make it writable"):
        write_tensors(tmp_path / "model.safetensors", {}, metadata={})
