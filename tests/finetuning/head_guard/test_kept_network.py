"""The checkpoint of a guarded run: the network that is kept, a second one beside it, and the head fitted again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tl_kit
from tests.finetuning.head_guard.helpers import ONCE, ORDER, by_hand, run_on
from tests.helpers import Listener, interrupt, same, weights
from tl_kit import EnsembleConfig
from tl_kit.config import RuntimeConfig
from tl_kit.freezing.audit import tensor_digest
from tl_kit.storage.checkpoint import HELD_OUT_HEAD, read_meta

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.mark.parametrize("policy", ["full", "last:2", "lp-ft:2"])
@pytest.mark.parametrize("name", ["trained", "average 0.25", "head"])
def test_the_weights_that_are_kept_are_those_and_what_was_frozen_is_unchanged(
    data: Path,
    final_head: Path,
    bare: Callable[..., Path],
    tmp_path: Path,
    choose: Callable[[str], None],
    policy: str,
    name: str,
) -> None:
    """With the head that was fitted to validation images too; the temperature scales the classifier."""
    choose(name)
    lr = {"lr": 1e-3, "epochs": 8} if policy == "lp-ft:2" else {}  # so that an epoch is better than none
    run = run_on(data, tmp_path / "run", policy=policy, **lr)
    without = bare(policy=policy, **lr)
    assert run.guard is not None
    if tuple(run.guard["compared"]) != ORDER:
        pytest.fail("no epoch was better than the fitted head: choose other rates")
    assert run.guard["kept"] == name
    alpha = {"trained": 1.0, "average 0.25": 0.25, "head": 0.0}[name]
    found, start, end = weights(run.checkpoint), weights(final_head), weights(without)
    for key, expected in by_hand(start, end, alpha).items():
        if key.startswith("fc."):
            expected = expected / run.guard["temperature"]
        new = policy == "last:2" and name.startswith("average") and "running_" in key
        if key.endswith("num_batches_tracked") or (new and not torch.equal(start[key], end[key])):
            continue
        torch.testing.assert_close(found[key], expected, rtol=1e-5, atol=1e-6, msg=key)
    fp32 = RuntimeConfig(precision="fp32")
    for split, scores_of in (("val", run.val), ("test", run.test)):
        assert tl_kit.evaluate(run.checkpoint, data, split=split, runtime=fp32).metrics == scores_of
    assert run.refit == (name != "trained")
    begun = weights(data.parent / "pretrained")
    frozen = [key for key in begun if torch.equal(begun[key], end[key])]
    assert all(tensor_digest(found[key]) == tensor_digest(begun[key]) for key in frozen)
    if policy != "full":
        assert frozen
        assert run.audit["frozen_tensors"] > 0
    assert run.audit["ok"]


@pytest.mark.parametrize(("kept", "name"), [("trained", "head"), ("head", "trained")])
def test_a_second_network_is_kept_beside_and_one_command_combines_them(
    data: Path,
    head: Path,
    final_head: Path,
    tmp_path: Path,
    choose: Callable[[str], None],
    together: None,
    kept: str,
    name: str,
) -> None:
    choose(kept)
    listener = Listener()
    run = run_on(data, tmp_path / "run", policy="full", reporter=listener)
    assert run.guard is not None
    folder = tmp_path / "run" / name
    assert run.guard["beside"]["checkpoint"] == str(folder)
    command = f"tlkit ensemble {tmp_path / 'run'} {folder}"
    assert run.guard["together"]["command"] == command
    assert sum(command in line for line in listener.messages) == 1
    if name == "head":
        assert same(weights(folder), weights(final_head))
        assert (folder / HELD_OUT_HEAD).read_bytes() == (final_head / HELD_OUT_HEAD).read_bytes()
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(folder, data, split="test", runtime=fp32).metrics == run.guard["beside"]["test"]
    once = run_on(data, tmp_path / "once", policy="full", head=ONCE)
    folders = (tmp_path / "once", tmp_path / "once" / name)
    two = EnsembleConfig(checkpoints=folders, out=tmp_path / "two", calibrate=False, runtime=fp32)
    combined = tl_kit.ensemble(two).receipt["ensemble"]["val"]
    assert combined is not None
    assert once.guard is not None
    assert combined["nll"] == pytest.approx(once.guard["together"]["nll"], rel=1e-4)
    assert combined["accuracy"] == once.guard["together"]["accuracy"]


def test_a_head_is_fitted_again_only_once_the_run_is_over(
    data: Path, final_head: Path, tmp_path: Path, choose: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on chooses by validation images, which its weights must not have seen."""
    choose("head")
    with monkeypatch.context() as patch:
        interrupt(patch, at=7)
        run = run_on(data, tmp_path / "run", policy="full")
    assert (run.status, run.refit) == ("interrupted", False)
    assert not (tmp_path / "run" / HELD_OUT_HEAD).exists()
    assert "refit" not in read_meta(tmp_path / "run")["data"]
    resumed = tl_kit.resume(tmp_path / "run")
    assert isinstance(resumed, tl_kit.FinetuneResult)
    assert resumed.refit
    assert same(weights(tmp_path / "run"), weights(final_head))
