"""The feature cache: what was put in comes out, bit for bit; runs at once do no harm; the oldest go first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tl_kit.storage.feature_store import FeatureStore, clear, evict, shards

BIG = 10**9
KEY = "0" * 32
OLD, MIDDLE, NEW = "a" * 32, "b" * 32, "c" * 32


def batches(rows: Tensor, size: int = 3) -> Iterator[Tensor]:
    yield from torch.split(rows, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_come_back_bit_for_bit_in_any_order(tmp_path: Path, dtype: torch.dtype) -> None:
    rows, names = torch.randn(10, 4, 2, 2).to(dtype), [f"image {n}" for n in range(10)]
    FeatureStore(tmp_path, KEY, BIG).add(names, batches(rows))
    again = FeatureStore(tmp_path, KEY, BIG)
    order = [7, 0, 7, 9]
    found = again.get([names[i] for i in order])
    assert found.dtype == dtype
    assert torch.equal(found, rows[order])


def test_only_what_is_missing_is_asked_for_and_each_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, BIG)
    store.add(["a", "b"], batches(torch.randn(2, 3)))
    assert store.missing(["c", "a", "d", "c", "b"]) == [0, 2]
    store.add(["c", "d"], batches(torch.randn(2, 3)))
    assert store.missing(["c", "a", "d", "b"]) == []
    assert FeatureStore(tmp_path, "f" * 32, BIG).missing(["a"]) == [0]


def test_a_run_that_dies_leaves_no_shard(tmp_path: Path) -> None:
    def dying() -> Iterator[Tensor]:
        yield torch.randn(3, 2)
        raise KeyboardInterrupt

    store = FeatureStore(tmp_path, KEY, BIG)
    with pytest.raises(KeyboardInterrupt):
        store.add(["a", "b", "c", "d"], dying())
    assert list((tmp_path / KEY).iterdir()) == []
    with pytest.raises(ValueError, match="4 rows were promised, 3 came"):
        store.add(["a", "b", "c", "d"], batches(torch.randn(3, 2)))
    assert FeatureStore(tmp_path, KEY, BIG).missing(["a"]) == [0]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"garbage" * 100])
def test_a_damaged_shard_is_computed_again(tmp_path: Path, damage: bytes) -> None:
    FeatureStore(tmp_path, KEY, BIG).add(["a", "b"], batches(torch.randn(2, 3)))
    next((tmp_path / KEY).glob("*.npy")).write_bytes(damage)
    assert FeatureStore(tmp_path, KEY, BIG).missing(["a", "b"]) == [0, 1]


def test_many_runs_at_once(tmp_path: Path) -> None:
    rows = torch.randn(40, 5)

    def run(number: int) -> bool:
        store = FeatureStore(tmp_path, KEY, BIG)
        names = [f"{(number * 7 + i) % 40}" for i in range(20)]
        wanted = [names[i] for i in store.missing(names)]
        store.add(wanted, batches(rows[[int(n) for n in wanted]]))
        return torch.equal(store.get(names), rows[[int(n) for n in names]])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(40)))


def test_the_least_recently_used_go_first_and_the_running_key_stays(tmp_path: Path) -> None:
    for number, key in enumerate([OLD, MIDDLE, NEW]):
        FeatureStore(tmp_path, key, BIG).add(["a"], batches(torch.randn(1, 1000)))
        for file in (tmp_path / key).iterdir():
            os.utime(file, (1000 + number, 1000 + number))
    FeatureStore(tmp_path, OLD, BIG)  # opening is use
    size = sum(shard.size for shard in shards(tmp_path))
    assert evict(tmp_path, size) == 0
    assert evict(tmp_path, size - 1) > 0
    assert {shard.index.parent.name for shard in shards(tmp_path)} == {OLD, NEW}
    evict(tmp_path, 0, keep=[shard.array for shard in shards(tmp_path) if shard.index.parent.name == NEW])
    assert [shard.index.parent.name for shard in shards(tmp_path)] == [NEW]
    assert clear(tmp_path) > 0
    assert shards(tmp_path) == []


def test_rows_in_use_survive_their_removal(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, BIG)
    rows = torch.randn(2, 3)
    store.add(["a", "b"], batches(rows))
    clear(tmp_path)
    assert torch.equal(store.get(["b", "a"]), rows[[1, 0]])


def test_what_a_killed_run_left_behind_is_swept_after_an_hour(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, BIG)
    store.add(["a"], batches(torch.randn(1, 3)))
    left = [tmp_path / KEY / ".1-x.npy.tmp", tmp_path / KEY / "1-orphan.npy"]
    for file in left:
        file.write_bytes(b"0" * 100)
    assert evict(tmp_path, BIG) == 0, "they may belong to a run that is at work"
    for file in left:
        os.utime(file, (1000, 1000))
    assert evict(tmp_path, BIG) == 200
    assert not any(file.exists() for file in left)
    assert FeatureStore(tmp_path, KEY, BIG).missing(["a"]) == []


def test_clearing_touches_nothing_but_the_cache(tmp_path: Path) -> None:
    FeatureStore(tmp_path, KEY, BIG).add(["a"], batches(torch.randn(1, 3)))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.json").write_text("{}")
    assert clear(tmp_path) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]
    assert (tmp_path / "thesis" / "chapter.json").exists()


def test_the_bound_holds_within_one_key(tmp_path: Path) -> None:
    for number in range(5):
        FeatureStore(tmp_path, KEY, BIG).add([f"{number}"], batches(torch.randn(1, 1000)))
    store = FeatureStore(tmp_path, "d" * 32, 10_000)
    store.add(["new"], batches(torch.randn(1, 1000)))
    assert sum(shard.size for shard in shards(tmp_path)) <= 10_000
    assert store.missing(["new"]) == []


@pytest.mark.parametrize("call", ["glob", "mkdir"])
def test_a_folder_that_another_run_removes_just_then(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing a folder and opening it, and between mkdir's refusal and its second look."""
    store = FeatureStore(tmp_path, KEY, 10**9)
    store.add(["a"], iter([torch.ones(1, 4)]))
    real, calls = getattr(Path, call), []

    def first_fails(path: Path, *args: object, **options: object) -> object:
        calls.append(path)
        if len(calls) % 2:
            raise FileNotFoundError(2, "No such file or directory") if call == "glob" else FileExistsError(17, "exists")
        return real(path, *args, **options)

    monkeypatch.setattr(Path, call, first_fails)
    other = FeatureStore(tmp_path, KEY, 10**9)
    assert other.missing(["a", "b"]) == [1]
    other.add(["b"], iter([torch.zeros(1, 4)]))
    assert calls
    assert torch.equal(other.get(["a", "b"]), torch.stack([torch.ones(4), torch.zeros(4)]))
    assert len(shards(tmp_path)) == 2
    assert evict(tmp_path, 0) > 0
    assert clear(tmp_path) == 0
    other.note("proof", {"direct": True})
    assert (tmp_path / KEY / "proof").is_file()
