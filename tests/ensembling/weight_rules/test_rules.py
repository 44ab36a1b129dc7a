"""All rules that make new weights, from checkpoints to a folder that predicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tl_kit
from tests.ensembling.test_ensemble import reorder_classes
from tests.ensembling.weight_rules.helpers import FP32, around, changed, combine, only_member
from tests.helpers import MODEL, Listener, quick, weights, write_images
from tl_kit import EnsembleConfig
from tl_kit.combining.ensemble_rules import SIMPLEST_FIRST, WEIGHT_RULES
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import RuleFitConfig
from tl_kit.data.manifest import Manifest
from tl_kit.data.scan import scan
from tl_kit.ensembling.evidence import Evidence
from tl_kit.ensembling.weight_rules import weight_rules
from tl_kit.errors import ConfigError
from tl_kit.inference.predictor import load_members
from tl_kit.storage.checkpoint import WEIGHTS, load_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_the_folder_scores_what_the_receipt_says_and_is_plain(
    data: Path, runs: dict[str, Path], tmp_path: Path, rule: str
) -> None:
    members = [runs["head"], runs["a"]] if rule == "wise-ft" else [runs["a"], runs["b"]]
    result = combine(members, tmp_path / "e", rule)
    receipt = result.receipt
    assert receipt["rule"] == rule
    assert tl_kit.evaluate(result.checkpoint, data, split="test", runtime=FP32).metrics == receipt["ensemble"]["test"]
    assert [member["checkpoint"] for member in receipt["members"]] == [str(member) for member in members]
    assert [member["leave_one_out"] for member in receipt["members"]] == [None, None]
    assert receipt["smallest_subset"] is None
    assert receipt["derived"] is not None
    assert receipt["derived"]["rule"] == rule
    assert receipt["cost"] is not None
    assert receipt["cost"]["forward_passes"] == (2 if rule == "concat" else 1)
    stored = json.loads((tmp_path / "e" / "ensemble.json").read_text())
    assert stored["receipt"] == json.loads(json.dumps(receipt))
    assert all("\n" not in line for line in result.findings)
    shutil.move(result.checkpoint, tmp_path / "moved")
    assert tl_kit.load(tmp_path / "moved").predict(next(data.rglob("*.png")))[0].label is not None


def test_a_made_member_says_what_it_is_made_of(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    members = around(runs["head"], tmp_path, spread=1.5, only="fc")
    for number, member in enumerate(members):
        meta = json.loads((member / "tlkit.json").read_text())
        meta["data"]["train"] = [*meta["data"]["train"], f"seen-{number}"]
        (member / "tlkit.json").write_text(json.dumps(meta))
    before = json.loads((runs["head"] / "tlkit.json").read_text())
    meta = json.loads((only_member(combine(members, tmp_path / "e", "soup")) / "tlkit.json").read_text())
    assert set(meta["data"]["train"]) == {*before["data"]["train"], "seen-0", "seen-1"}
    assert meta["data"]["val"] == before["data"]["val"]
    assert meta["data"]["content"] == before["data"]["content"]
    assert (meta["weights"], meta["precision"], meta["policy"]) == (before["weights"], "fp32", "head")
    assert meta["config"]["split"] == before["config"]["split"]
    ingredients = meta["derived"]["ingredients"]
    assert [ingredient["checkpoint"] for ingredient in ingredients] == [str(member) for member in members]
    assert len({ingredient["sha256"] for ingredient in ingredients}) == 2


@pytest.mark.parametrize("rule", ["soup", "greedy-soup", "concat"])
def test_the_order_of_members_changes_nothing(runs: dict[str, Path], tmp_path: Path, rule: str) -> None:
    members = [runs["a"], *around(runs["b"], tmp_path, spread=0.05), runs["b"]]
    found = [combine(list(order), tmp_path / name, rule) for name, order in (("x", members), ("y", members[::-1]))]
    first, second = (result.receipt["ensemble"] for result in found)
    for split in ("val", "test"):
        assert first[split] == pytest.approx(second[split], abs=1e-6)
    if rule != "concat":
        pairs = zip(weights(only_member(found[0])).values(), weights(only_member(found[1])).values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("rule", ["soup", "concat"])
def test_classes_in_another_order_give_the_same_result(runs: dict[str, Path], tmp_path: Path, rule: str) -> None:
    plus, minus = around(runs["head"], tmp_path, spread=1.5, only="fc")
    shuffled = Path(shutil.copytree(minus, tmp_path / "shuffled"))
    reorder_classes(shuffled, [2, 0, 1])
    plain = combine([plus, minus], tmp_path / "x", rule).receipt
    for name, members in (("y", [plus, shuffled]), ("z", [shuffled, plus])):
        other = combine(members, tmp_path / name, rule).receipt
        assert other["ensemble"]["test"] == pytest.approx(
            plain["ensemble"]["test"], abs=2e-4 if rule == "concat" else 1e-7
        )
        assert other["derived"] is not None
        assert "fallback" not in other["derived"] or other["derived"]["fallback"] is None


def test_broken_training_images_are_left_out(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "images"))
    broken = tmp_path / "images" / "red" / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    for split in ("train", "val", "test"):
        for sample in scan(data, tl_kit.DataConfig()).split(split):
            target = copy / split / sample.path.parent.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sample.path, target / sample.path.name)
    for colour in ("red", "green", "blue"):
        shutil.rmtree(copy / colour)
    (copy / "train" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    for rule in ("concat", "soup"):
        found = combine([runs["a"], runs["b"]], tmp_path / rule, rule, data=copy).receipt
        whole = combine([runs["a"], runs["b"]], tmp_path / f"{rule}-whole", rule).receipt
        assert found["ensemble"]["test"] == pytest.approx(whole["ensemble"]["test"], abs=2e-2)


def test_a_soup_in_an_ensemble_is_a_member_like_others(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    soup = combine(around(runs["a"], tmp_path, spread=0.2), tmp_path / "soup", "soup", calibrate=False)
    assert soup.receipt["derived"] is not None
    outer = combine([Path(soup.checkpoint), runs["b"]], tmp_path / "outer", "mean", calibrate=False)
    flat = combine([only_member(soup), runs["b"]], tmp_path / "flat", "mean", calibrate=False)
    assert outer.receipt["ensemble"] == flat.receipt["ensemble"]
    again = combine([Path(soup.checkpoint), runs["b"]], tmp_path / "again", "soup")
    assert again.receipt["rule"] == "soup", "a soup keeps its origin, and may be an ingredient"
    joined = combine([runs["a"], runs["b"]], tmp_path / "joined", "concat")
    assert combine([Path(joined.checkpoint)], tmp_path / "of parts", "mean").receipt["rule"] == "mean"


def test_auto_tells_of_every_rule(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    result = combine([runs["a"], runs["head"]], tmp_path / "e", "auto")
    table = {line["rule"]: line for line in result.receipt["comparison"]}
    assert tuple(table) == SIMPLEST_FIRST
    assert sum(line["chosen"] for line in table.values()) == 1
    assert all((line["nll"] is None) == (line["refused"] is not None) for line in table.values())
    assert table["concat"]["nll"] is not None
    assert (
        tl_kit.evaluate(result.checkpoint, data, split="test", runtime=FP32).metrics
        == (result.receipt["ensemble"]["test"])
    )
    vit = Path(quick(data, tmp_path / "vit", model="test_vit", img_size=32, epochs=1).checkpoint)
    small = RuleFitConfig(folds=3, stack_c=(0.1,), concat_multiplications=10)
    result = combine([runs["a"], vit], tmp_path / "f", "auto", fit=small)
    table = {line["rule"]: line for line in result.receipt["comparison"]}
    assert "cannot be averaged" in str(table["soup"]["refused"])
    assert "--policy head" in str(table["wise-ft"]["refused"])
    assert "multiplications" in str(table["concat"]["refused"])


def test_auto_does_not_return_a_single_member(runs: dict[str, Path], tmp_path: Path) -> None:
    flipped = changed(runs["b"], tmp_path / "b", lambda name, t: -t if name == "fc.weight" else t)
    told = Listener()
    config = EnsembleConfig(checkpoints=(runs["a"], flipped), out=tmp_path / "e", rule="auto", runtime=FP32)
    result = tl_kit.ensemble(config, reporter=told)
    line = next(line for line in result.receipt["comparison"] if line["rule"] == "greedy-soup")
    assert "no average is as good" in str(line["refused"])
    assert not line["chosen"]
    assert not [text for text in told.messages if "is taken" in text], "another rule is"


def test_test_images_have_no_say(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Other test images, the same choice: weights, temperature and validation scores."""
    other = tmp_path / "images"
    for split in ("train", "val"):
        for sample in scan(data, tl_kit.DataConfig()).split(split):
            target = other / split / sample.path.parent.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sample.path, target / sample.path.name)
    write_images(other / "test", images=3, seed=99)
    for rule in ("soup", "concat"):
        first = combine([runs["a"], runs["b"]], tmp_path / f"{rule}-1", rule)
        second = combine([runs["a"], runs["b"]], tmp_path / f"{rule}-2", rule, data=other)
        assert first.receipt["ensemble"]["val"] == second.receipt["ensemble"]["val"]
        assert first.receipt["ensemble"]["test"] != second.receipt["ensemble"]["test"]
        assert first.receipt["calibration"]["temperature"] == second.receipt["calibration"]["temperature"]


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_one_validation_image_is_too_few(runs: dict[str, Path], tmp_path: Path, rule: str) -> None:
    members = [load_checkpoint(runs[name]) for name in "ab"]
    evidence = Evidence(
        predictor=load_members(runs["a"], members, classes=members[0].classes, rule=FittedRule(), runtime=FP32),
        manifest=Manifest(tmp_path, members[0].classes, ()),
        val=(),
        stack=np.full((2, 1, 3), 1 / 3),
        labels=np.zeros(1, dtype=np.int64),
        config=EnsembleConfig(checkpoints=()),
        reporter=Listener(),
    )
    with pytest.raises(ConfigError, match=f"rule {rule}: one validation image"):
        weight_rules(evidence, tmp_path, auto=False)[rule]()


def test_models_in_memory_keep_their_weights(runs: dict[str, Path], tmp_path: Path) -> None:
    before = {name: (folder / WEIGHTS).read_bytes() for name, folder in runs.items()}
    combine(list(runs.values()), tmp_path / "e", "auto")
    assert {name: (folder / WEIGHTS).read_bytes() for name, folder in runs.items()} == before
    assert MODEL in json.loads((runs["a"] / "config.json").read_text())["architecture"]
