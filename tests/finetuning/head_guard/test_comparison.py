"""The comparison on validation images: the fitted head, the trained network and averages of the two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tl_kit
from tests.finetuning.head_guard.helpers import ONCE, ORDER, by_hand, images_of, run_on, scores
from tests.helpers import UNGUARDED, Listener, same, weights
from tl_kit import metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.config import RuntimeConfig
from tl_kit.storage.checkpoint import load_checkpoint, read_meta

POLICIES = ("full", "last:2", "lp-ft", "gradual")


@pytest.mark.parametrize("policy", POLICIES)
def test_it_compares_the_head_the_trained_network_and_their_averages(
    data: Path, head: Path, bare: Callable[..., Path], tmp_path: Path, policy: str
) -> None:
    """Each as it would be without the others; trained networks at the temperature that fits them best."""
    run = run_on(data, tmp_path / "run", policy=policy, head=ONCE)
    without = bare(policy=policy)
    assert run.guard is not None
    if read_meta(without)["best_epoch"] == 0:
        pytest.fail("no epoch was better than the start, which a guarded run does not keep: choose other rates")
    assert tuple(run.guard["compared"]) == ORDER
    start, end = weights(head), weights(without)
    for name, row in run.guard["compared"].items():
        alpha = {"trained": 1.0, "head": 0.0}.get(name) or float(name.split()[-1]) if name != "head" else 0.0
        if policy == "last:2" and name.startswith("average"):
            continue  # its statistics are new: test_averages_have_the_statistics_of_their_own_activations
        probabilities, labels = scores(tmp_path / "run", by_hand(start, end, alpha), data)
        if name != "head":
            probabilities = tempered(probabilities, fit_temperature(probabilities, labels))
        assert row["accuracy"] == pytest.approx(metrics.accuracy(probabilities, labels))
        assert row["nll"] == pytest.approx(metrics.nll(probabilities, labels), rel=1e-4, abs=1e-5)
        assert row["bounded_nll"] == pytest.approx(metrics.bounded_nll(probabilities, labels), rel=1e-4, abs=1e-5)
    kept = run.guard["compared"][run.guard["kept"]]
    assert kept["bounded_nll"] <= run.guard["compared"]["head"]["bounded_nll"]
    assert run.val is not None
    assert run.val["nll"] == pytest.approx(kept["nll"], rel=1e-4, abs=1e-5)
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(run.checkpoint, data, split="val", runtime=fp32).metrics == run.val


def test_averages_have_the_statistics_of_their_own_activations(
    data: Path, head: Path, tmp_path: Path, choose: Callable[[str], None]
) -> None:
    """As the layers themselves count them, in one batch of all training images; frozen layers keep theirs."""
    choose("average 0.5")
    plain = {"policy": "last:2", "augment": "none", "batch_size": 1000, "runtime": RuntimeConfig(precision="fp32")}
    run = run_on(data, tmp_path / "run", head=ONCE, **plain)
    run_on(data, tmp_path / "bare", guard=UNGUARDED, **plain)
    start, end, found = weights(head), weights(tmp_path / "bare"), weights(run.checkpoint)
    checkpoint = load_checkpoint(tmp_path / "run")
    checkpoint.model.load_state_dict(by_hand(start, end, 0.5))
    moved = [key for key in end if "running_" in key and not torch.equal(start[key], end[key])]
    assert moved
    for name in {key.rpartition(".")[0] for key in moved}:
        layer = checkpoint.model.get_submodule(name)
        layer.momentum, layer.training = 1.0, True
    with torch.no_grad():
        checkpoint.model(images_of(data, "train", checkpoint.preprocessing)[0])
    expected = checkpoint.model.state_dict()
    for key in (key for key in end if "running_" in key):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5, msg=key)
    assert any(not torch.allclose(found[key], by_hand(start, end, 0.5)[key], rtol=1e-3) for key in moved)
    probabilities, labels = scores(tmp_path / "run", found, data)  # the classifier is at its temperature
    assert run.guard is not None
    row = run.guard["compared"]["average 0.5"]
    assert row["accuracy"] == pytest.approx(metrics.accuracy(probabilities, labels))
    assert row["nll"] == pytest.approx(metrics.nll(probabilities, labels), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("policy", ["lp-ft", "gradual"])
def test_where_no_epoch_is_better_than_the_start_the_start_is_not_kept(
    data: Path, head: Path, tmp_path: Path, policy: str
) -> None:
    """And not the head that training began with, which is penalised strongly: without the guard it is epoch 0."""
    bare = run_on(data, tmp_path / "bare", policy=policy, lr=1e-12, guard=UNGUARDED)
    assert read_meta(tmp_path / "bare")["best_epoch"] == 0
    assert not same(weights(bare.checkpoint), weights(head))
    run = run_on(data, tmp_path / "run", policy=policy, lr=1e-12)
    assert run.guard is not None
    assert tuple(run.guard["compared"]) == ORDER
    assert read_meta(tmp_path / "run")["best_epoch"] == run.epochs
    kept = run.guard["compared"][run.guard["kept"]]
    assert kept["bounded_nll"] <= run.guard["compared"]["head"]["bounded_nll"]
    assert kept["accuracy"] >= run.guard["compared"]["head"]["accuracy"]


def test_what_was_compared_is_said_in_a_line_and_recorded(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    run = run_on(data, tmp_path / "run", policy="full", reporter=listener)
    (line,) = [text for text in listener.messages if text.startswith("compared on ")]
    assert "trained" in line
    assert "head" in line
    assert " is kept" in line
    assert {"head", "temperature"} <= set(run.chosen_by_val)
    assert any("how much of the trained network is kept" in note for note in run.notes)
    record = read_meta(tmp_path / "run")
    assert record["guard"] == json.loads(json.dumps(run.guard))
    assert set(record["data"]["selected"]) == set(run.chosen_by_val)


@pytest.mark.parametrize(
    "options",
    [
        {"guard": UNGUARDED, "policy": "full"},
        {"weights": "none", "policy": "full"},
        {"policy": "head", "epochs": 2},
        {"policy": "head", "epochs": None},
    ],
)
def test_where_there_is_nothing_to_compare_there_is_no_guard(
    data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    listener = Listener()
    run = run_on(data, tmp_path / "run", reporter=listener, **options)
    assert run.guard is None
    assert not any("head" in name for name in run.chosen_by_val)
    assert not any("compare" in text for text in listener.messages)


def test_a_network_without_a_linear_head_is_told_in_a_line(data: Path, tmp_path: Path) -> None:
    model = {"model": "deit_tiny_distilled_patch16_224", "policy": "last:1", "epochs": 1}
    run_on(data, tmp_path / "pretrained", weights="none", **model)
    listener = Listener()
    run = run_on(data, tmp_path / "run", weights=str(tmp_path / "pretrained"), reporter=listener, **model)
    assert run.guard is None
    assert sum(text.startswith("no fitted head to compare with: ") for text in listener.messages) == 1
