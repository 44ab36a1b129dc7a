"""The guard: what a run keeps of its fitted head, the network it trained, and averages of the two's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tl_kit
from tests.helpers import UNGUARDED, Listener, interrupt, quick, quick_config, same, weights, write_images
from tests.killing import EVERY_STEP, Killer, digest, killing, meta, rows
from tests.ranks import in_two_processes, two_processes
from tl_kit import EnsembleConfig, RegularizationConfig, metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.config import CacheConfig, HeadConfig, RuntimeConfig
from tl_kit.data.manifest import labels_of
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.scan import scan
from tl_kit.finetuning import head_guard
from tl_kit.freezing.audit import tensor_digest
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.storage.checkpoint import HELD_OUT_HEAD, load_checkpoint, read_meta

ORDER = ("trained", "average 0.75", "average 0.5", "average 0.25", "head")
POLICIES = ("full", "last:2", "lp-ft", "gradual")
ONCE = HeadConfig(refit=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_images(tmp_path_factory.mktemp("guard") / "images", images=13)
    quick(data, data.parent / "pretrained", batch_size=4)
    return data


def run_on(data: Path, out: Path, **options: Any) -> tl_kit.FinetuneResult:
    return quick(data, out, **{"weights": str(data.parent / "pretrained"), "epochs": 3, **options})


@pytest.fixture(scope="module")
def head(data: Path) -> Path:
    """The run of the head alone, fitted to training images: the one that is compared."""
    run_on(data, data.parent / "head", policy="head", epochs=None, head=ONCE)
    return data.parent / "head"


@pytest.fixture(scope="module")
def final_head(data: Path) -> Path:
    """The same at the end, fitted to validation images too: the one that a run ends with where its head is kept."""
    run_on(data, data.parent / "final", policy="head", epochs=None)
    return data.parent / "final"


@pytest.fixture(scope="module")
def bare(data: Path) -> Callable[..., Path]:
    """The same run without the guard; of equal options one."""
    found: dict[str, Path] = {}

    def run(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in found:
            found[key] = data.parent / f"bare-{len(found)}"
            run_on(data, found[key], guard=UNGUARDED, **options)
        return found[key]

    return run


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What validation shall choose."""
    return lambda name: monkeypatch.setattr(head_guard, "choose_network", lambda *_, **__: ORDER.index(name))


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation finds two networks better than one."""
    monkeypatch.setattr(head_guard, "clearly_better", lambda *_, **__: True)


def images_of(data: Path, split: str, preprocessing: Preprocessing) -> tuple[Tensor, np.ndarray]:
    """The normalised images of a split, as evaluation sees them, and their labels."""
    samples = scan(data).split(split)
    store = PixelStore(preprocessing)
    store.fill(samples, crop=True)
    return normalize(torch.stack(store.get(samples, crop=True)), preprocessing), labels_of(samples)


def scores(folder: Path, state: dict[str, Tensor], data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the validation images, by the checkpoint's network under other weights."""
    found = load_checkpoint(folder)
    found.model.load_state_dict(state)
    images, labels = images_of(data, "val", found.preprocessing)
    with torch.inference_mode():
        return metrics.softmax(found.model(images).double().numpy()), labels


def by_hand(head: dict[str, Tensor], trained: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    return {
        name: ((1 - alpha) * head[name].double() + alpha * tensor.double()).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in trained.items()
    }


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
    assert read_meta(tmp_path / "run")["best_epoch"] == 1
    kept = run.guard["compared"][run.guard["kept"]]
    assert kept["bounded_nll"] <= run.guard["compared"]["head"]["bounded_nll"]
    assert kept["accuracy"] >= run.guard["compared"]["head"]["accuracy"]


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


VARIANTS: dict[str, dict[str, Any]] = {
    "ema": {"policy": "full", "regularization": RegularizationConfig(ema=0.9)},
    "swa": {"policy": "last:2", "regularization": RegularizationConfig(swa=True)},
    "mixup": {"policy": "lp-ft", "regularization": RegularizationConfig(mixup=0.4)},
    "dropped weights": {"policy": "full", "regularization": RegularizationConfig(drop_connect=0.3)},
    "snapshots": {"policy": "full", "snapshots": 3},
    "late": {"policy": "last:2", "late": 2},
    "gradual": {"policy": "gradual"},
    "frozen statistics": {"policy": "full", "batchnorm": "frozen"},
    "balance": {"policy": "full", "balance": "loss", "select": "balanced-accuracy"},
    "select nll": {"policy": "full", "select": "nll"},
    "no cache": {"policy": "lp-ft:2", "cache": CacheConfig(size_gb=0)},
    "auto": {"policy": "auto"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_taken_up_again_it_ends_the_same(name: str, data: Path, tmp_path: Path) -> None:
    """And whatever else a run does, it ends no worse than its head, with scores that its checkpoint has."""
    options = {"save": EVERY_STEP, "cache": CacheConfig(directory=tmp_path / "cache"), **VARIANTS[name]}
    counter = Killer(tmp_path / "whole")
    with killing(counter):
        run = run_on(data, tmp_path / "whole", **options)
    assert run.guard is not None
    compared = run.guard["compared"]
    assert compared[run.guard["kept"]]["bounded_nll"] <= compared["head"]["bounded_nll"]
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(run.checkpoint, data, split="test", runtime=fp32).metrics == run.test
    killer = Killer(tmp_path / "killed", counter.seen - 1)
    with killing(killer):
        run_on(data, tmp_path / "killed", **options)
    tl_kit.resume(tmp_path / "killed")
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    again, before = (json.dumps(meta(tmp_path / n)).replace(str(tmp_path / n), "") for n in ("killed", "whole"))
    assert again == before, "but for the folder's name"


def test_members_and_folds_are_guarded_each(data: Path, tmp_path: Path) -> None:
    config = quick_config(data, tmp_path / "members", weights=str(data.parent / "pretrained"))
    members = tl_kit.finetune_members(config, members=2)
    for member in members.members:
        assert read_meta(Path(member.checkpoint))["guard"]["kept"] in ORDER
    config = quick_config(data, tmp_path / "folds", weights=str(data.parent / "pretrained"))
    folds = tl_kit.cross_validate(config, folds=3)
    for fold in folds.folds:
        record = read_meta(Path(fold.checkpoint))
        assert record["guard"]["kept"] in ORDER
        assert record["test"] == fold.test


def test_members_that_are_one_head_are_told(data: Path, tmp_path: Path, choose: Callable[[str], None]) -> None:
    choose("head")
    config = quick_config(data, tmp_path / "members", weights=str(data.parent / "pretrained"))
    runs = tl_kit.finetune_members(config, members=2)
    assert [member.kept for member in runs.members] == ["head", "head"]
    assert same(*(weights(member.checkpoint) for member in runs.members))
    assert any(note.startswith("member-1, member-2: are one network, the fitted head") for note in runs.notes)


def test_a_student_is_compared_with_its_head_too(data: Path, head: Path, tmp_path: Path) -> None:
    distill = tl_kit.DistillConfig(teacher=head)
    run = run_on(data, tmp_path / "run", policy="full", distill=distill)
    assert run.guard is not None
    assert set(run.guard["compared"]) == set(ORDER)


SCRIPT = """
import os
import sys
from pathlib import Path
from tests.helpers import quick
run = quick(Path(sys.argv[1]), Path(sys.argv[2]), weights=sys.argv[3], policy="full")
Path(f"guard-{os.environ['RANK']}").write_text(repr((run.guard, run.val, run.test)))
"""


@two_processes
def test_several_processes_keep_the_same(data: Path, tmp_path: Path) -> None:
    in_two_processes(SCRIPT, tmp_path, data, tmp_path / "two", data.parent / "pretrained")
    one, two = ((tmp_path / f"guard-{rank}").read_text() for rank in range(2))
    assert one == two
    assert "'kept'" in one
