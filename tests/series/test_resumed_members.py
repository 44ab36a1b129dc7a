"""Snapshots, late epochs, SWA and members of a run that was killed: those of one that was not, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import NEARLY_SQUARE, Listener, quick, quick_config, write_images
from tests.killing import EVERY_STEP, Copies, digest, killing
from tl_kit import FinetuneResult, MemberRuns, SwaConfig, finetune_members, resume
from tl_kit.config import CacheConfig, RegularizationConfig
from tl_kit.errors import CheckpointError

ALONG: dict[str, Any] = {
    "policy": "last:2",
    "epochs": 3,
    "snapshots": 2,
    "late": 2,
    "regularization": RegularizationConfig(swa=True),
    "swa": SwaConfig(start=0.0),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=9, size=NEARLY_SQUARE)


def train(data: Path, out: Path, options: dict[str, Any]) -> FinetuneResult:
    return quick(data, out, save=EVERY_STEP, cache=CacheConfig(directory=data.parent / "cache"), **options)


def scores(folder: Path) -> tuple[Any, Any, Any]:
    meta = json.loads((folder / "tlkit.json").read_text())
    return meta["val"], meta["test"], meta.get("step")


@pytest.mark.parametrize("judgement", [False, True])
def test_a_run_killed_anywhere_has_the_same_snapshots_and_average(
    judgement: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each moment in one of two runs: every epoch of one is the best so far, and none of the other."""
    monkeypatch.setattr("tl_kit.finetuning.kept_weights.better", lambda *_: judgement)
    out = tmp_path / "run"
    copies = Copies(out)
    with killing(copies):
        whole = train(data, out, ALONG)
    out.rename(tmp_path / "whole")
    names = ["epoch-2", "epoch-3", "snapshot-1", "snapshot-2"]
    assert [Path(s.checkpoint).name for s in whole.snapshots] == names
    for at in range(1 + judgement, copies.seen + 1, 2):
        again = resume(copies.restore(at))
        assert isinstance(again, FinetuneResult)
        assert digest(out) == digest(tmp_path / "whole")
        assert again.swa == whole.swa
        assert sorted(path.name for path in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())
        for name in names:
            assert digest(out / name) == digest(tmp_path / "whole" / name)
            assert scores(out / name) == scores(tmp_path / "whole" / name)


def members(data: Path, out: Path, vary: Any) -> MemberRuns:
    config = quick_config(data, out, late=2, save=EVERY_STEP)
    return finetune_members(config, members=2, vary=vary)


@pytest.mark.parametrize("vary", ["seed", "folds", "bootstrap"])
def test_members_go_on_with_the_one_that_was_under_way(vary: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    copies = Copies(out)
    with killing(copies):
        whole = members(data, out, vary)
    out.rename(tmp_path / "whole")
    copies.restore(copies.seen - 1)
    assert not (out / "members.json").exists()
    with pytest.raises(CheckpointError, match=f"tlkit finetune --resume {out}"):
        members(data, out, vary)
    first = (out / "member-1" / "model.safetensors").stat().st_mtime_ns
    again = resume(out)
    assert isinstance(again, MemberRuns)
    assert (out / "member-1" / "model.safetensors").stat().st_mtime_ns == first
    for number in (1, 2):
        for name in ("", "epoch-1", "epoch-2"):
            assert digest(out / f"member-{number}" / name) == digest(tmp_path / "whole" / f"member-{number}" / name)
    assert [(m.varied, m.val, m.test, m.images) for m in again.members] == [
        (m.varied, m.val, m.test, m.images) for m in whole.members
    ]
    listener = Listener()
    assert resume(out, reporter=listener) is None
    assert "all members are finished" in listener.messages[-1]
