"""Saved states: they come back exactly, the last two are kept, and damage is found."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import shutil
import signal
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.killing import killing_before_operation
from tests.torture.processes import NO_FORKS, Forked, script
from tl_kit.errors import CheckpointError
from tl_kit.storage import saved_states as states
from tl_kit.storage.saved_states import StateFolder, read_state, write_state

keys = st.text(max_size=8) | st.integers(-(2**53), 2**53)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex() if math.isfinite(a) else repr(a) == repr(b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(tree=trees)
@settings(max_examples=200, deadline=None)
def test_values_come_back_as_they_were(tree: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_state(tmp_path_factory.getbasetemp(), "values", tree)
    assert same(read_state(tmp_path_factory.getbasetemp(), "values"), tree)


def test_numbers_of_numpy_and_read_only_mappings_come_back_plain(tmp_path: Path) -> None:
    tree = {"number": np.float32(0.5), "flag": np.bool_(True), "map": MappingProxyType({"a": OrderedDict(b=1)})}
    write_state(tmp_path, "a", tree)
    assert same(read_state(tmp_path, "a"), {"number": 0.5, "flag": True, "map": {"a": {"b": 1}}})


LAYOUTS = {
    "plain": torch.arange(24.0).view(2, 3, 2, 2),
    "channels last": torch.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "a number": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "whole": torch.arange(5),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "every second": torch.arange(10.0)[::2],
    "not finite": torch.tensor([math.nan, math.inf, -0.0]),
}


def test_tensors_come_back_as_they_lay_in_memory(tmp_path: Path) -> None:
    write_state(tmp_path, "a", {"layouts": LAYOUTS, "more": [torch.ones(2), (torch.zeros(1),)]})
    found = read_state(tmp_path, "a")
    for name, tensor in LAYOUTS.items():
        back = found["layouts"][name]
        assert back.dtype == tensor.dtype
        torch.testing.assert_close(back, tensor, rtol=0, atol=0, equal_nan=True)
        assert str(back) == str(tensor), "also the sign of zero"
        dense = tensor if name != "every second" else tensor.contiguous()
        assert [n for n, size in zip(back.stride(), back.shape, strict=True) if size > 1] == [
            n for n, size in zip(dense.stride(), dense.shape, strict=True) if size > 1
        ]
    assert torch.equal(found["more"][0], torch.ones(2))
    assert isinstance(found["more"][1], tuple)


def test_keys_that_look_like_paths_do_not_meet(tmp_path: Path) -> None:
    tree = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)}
    write_state(tmp_path, "a", tree)
    assert read_state(tmp_path, "a") == {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)}


@pytest.mark.parametrize("value", [object(), {1.5: 0}, {None: 0}, {True: 0}, {1, 2}, b"bytes", 1j, signal.SIGINT])
def test_what_would_not_come_back_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot be saved"):
        write_state(tmp_path, "a", {"a": value})
    assert not list(tmp_path.iterdir())


def test_a_view_is_saved_without_what_it_looks_at(tmp_path: Path) -> None:
    assert write_state(tmp_path, "a", {"a": torch.zeros(1_000_000)[:3]}) < 5_000


def test_the_last_two_are_kept_and_the_newest_is_taken(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    assert folder.load() == (None, [])
    assert not folder
    for number in range(5):
        folder.save({"number": number, "weight": torch.full((3,), float(number))})
        assert folder.load()[0]["number"] == number
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == [f"state-00000{n}.{kind}" for n in (4, 5) for kind in ("json", "pt")]
    folder.remove()
    assert not list(tmp_path.iterdir())


def test_every_byte_that_is_damaged_and_every_torn_file_is_found(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    for number in (1, 2):
        folder.save({"number": number, "weight": torch.full((3,), float(number))})
    for kind in ("pt", "json"):
        file = tmp_path / "state" / f"state-000002.{kind}"
        whole = file.read_bytes()
        torn = [whole[:size] for size in range(0, len(whole), 7)]
        flipped = [whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :] for at in range(len(whole))]
        for content in [*torn, *flipped]:
            file.write_bytes(content)
            found, notes = folder.load()
            assert found is not None
            if found["number"] == 1:
                assert [str(tmp_path / "state" / "state-000002.") in note for note in notes] == [True]
            else:  # a byte of the check that says nothing: white space, or the number of bytes
                assert kind == "json"
                assert torch.equal(found["weight"], torch.full((3,), 2.0))
        file.write_bytes(whole)
    (tmp_path / "state" / "state-000002.json").unlink()
    assert folder.load()[0]["number"] == 1
    (tmp_path / "state" / "state-000001.pt").unlink()
    with pytest.raises(CheckpointError, match="so is every state before it"):
        folder.load()


def test_a_damaged_state_does_not_stand_among_the_last_two(tmp_path: Path) -> None:
    """Else the next one that is torn would be the second of two."""
    folder = StateFolder(tmp_path)
    for number in (1, 2, 3):
        folder.save({"number": number})
        newest = max((tmp_path / "state").glob("*.pt"))
        if number > 1:
            newest.write_bytes(newest.read_bytes()[:-1])
            assert folder.load(drop=True)[0] == {"number": 1}
            assert len(list((tmp_path / "state").iterdir())) == 2


def test_a_state_that_was_not_written_to_its_end_was_none(tmp_path: Path) -> None:
    """Killed between its two files, also while the first state of all was written."""
    folder = StateFolder(tmp_path)
    for before in ([], [{"number": 1}]):
        for tree in before:
            folder.save(tree)
        folder.save({"number": 2})
        max((tmp_path / "state").glob("*.json")).unlink()
        (tmp_path / "state" / ".state-000003.pt.77.tmp").touch()
        assert folder.load() == ((before or [None])[-1], [])
        folder.clean()
        assert len(list((tmp_path / "state").iterdir())) == 2 * len(before)


def test_killed_before_any_operation_on_a_file_the_last_state_or_the_one_before_is_there(
    tmp_path: Path,
) -> None:
    for at in range(1, 1000):
        done = four_saves_killed_before(at, tmp_path / "run", tmp_path / f"left-{at}")
        shutil.rmtree(tmp_path / "run")
        if done == 4:
            break
        (tmp_path / f"left-{at}").mkdir(exist_ok=True)
        folder = StateFolder(tmp_path / f"left-{at}")
        folder.clean()
        found, notes = folder.load(drop=True)
        assert notes == []
        assert (found or {"number": 0})["number"] in (done, done + 1)
        folder.save({"number": 9})
        assert folder.load() == ({"number": 9}, [])
    assert at > 30, "four saves have many operations"


def four_saves_killed_before(at: int, run: Path, left: Path) -> int:
    """How many were done; ``left`` is what was on disk then."""
    run.mkdir()
    done = 0
    with killing_before_operation(at, run, left):
        for number in range(4):
            StateFolder(run).save({"number": number + 1, "weight": torch.ones(number)})
            done += 1
    return done


def forge(folder: Path, content: bytes) -> None:
    """A state of any content, with a checksum that is right."""
    (folder / "a.pt").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "a.json").write_text(json.dumps({"format": states.FORMAT, "sha256": digest}))


def test_nothing_in_a_state_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    archive = io.BytesIO()
    torch.save({"a": Bomb()}, archive)
    for content in (pickle.dumps(Bomb()), archive.getvalue(), b"", b"PK\3\4"):
        forge(tmp_path, content)
        with pytest.raises(CheckpointError, match=r"a\.pt: damaged") as caught:
            read_state(tmp_path, "a")
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "exploded").exists()


def test_a_state_that_unpacks_to_more_than_itself_is_refused(tmp_path: Path) -> None:
    write_state(tmp_path, "a", {"a": torch.zeros(1_000_000)})
    packed = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    forge(tmp_path, packed.getvalue())
    with pytest.raises(CheckpointError, match="it unpacks to"):
        read_state(tmp_path, "a")


def test_a_state_of_another_format_says_what_to_do(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.save({"number": 1})
    check = tmp_path / "state" / "state-000001.json"
    check.write_text(check.read_text().replace(f'"format": {states.FORMAT}', '"format": 1'))
    with pytest.raises(CheckpointError, match=r"not in a format that this version .*remove .* starts the run over$"):
        folder.load()


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from tl_kit.errors import CheckpointError
from tl_kit.storage.saved_states import write_state

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in range(0, 45_000, 1_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_state(Path(sys.argv[1]), "a", {"a": torch.zeros(10_000), "b": torch.zeros(10)})
    except CheckpointError as error:
        assert "cannot be written (File too large); free space" in str(error), error
        assert not list(Path(sys.argv[1]).iterdir())
    else:
        assert limit > 40_000
        break
else:
    raise AssertionError
"""


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
def test_a_disk_that_is_full_at_any_byte_is_told_as_such(tmp_path: Path) -> None:
    """In some places torch's own error takes the place of the system's."""
    folder = tmp_path / "folder"
    folder.mkdir()
    process = Forked(script, FULL, str(folder), log=tmp_path / "log")
    assert process.wait() == 0, process.text()


def test_a_state_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path)
    folder.save({"number": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync" if broken == "fsync" else "pathlib.Path.replace", full)
            with pytest.raises(CheckpointError, match=r"state: cannot be written \(No space left on device\); free"):
                folder.save({"number": 2})
        assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before
