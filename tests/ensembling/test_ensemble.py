"""An ensemble of finished runs: names aligned, evidence clean, and a folder that predicts on its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tl_kit
from tests.helpers import Listener, quick, write_images
from tl_kit import EnsembleConfig, EnsembleResult
from tl_kit.config import RuleFitConfig, SoupConfig
from tl_kit.ensembling import ensemble as ensembles
from tl_kit.errors import CheckpointError, ConfigError, DataError, MemberError
from tl_kit.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=15)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("ckpts")
    quick(data, root / "a")
    quick(data, root / "b", policy="head", epochs=None, seed=1)
    quick(data, root / "c", model="test_vit", img_size=64, epochs=1, seed=2)  # another architecture and input size
    return [root / name for name in "abc"]


def config(paths: list[Path], out: Path, **options: Any) -> EnsembleConfig:
    return EnsembleConfig(checkpoints=tuple(paths), out=out, bootstrap=200, **options)


def combine(paths: list[Path], out: Path, **options: Any) -> EnsembleResult:
    return tl_kit.ensemble(config(paths, out, **options))


def test_probabilities_are_the_mean_of_the_members(data: Path, runs: list[Path], tmp_path: Path) -> None:
    result = combine(runs, tmp_path / "e", calibrate=False)
    files = sorted(data.rglob("*.png"))[::5]
    together = tl_kit.load(result.checkpoint).predict(files)
    alone = [tl_kit.load(run).predict(files) for run in runs]
    for index, prediction in enumerate(together):
        for name, value in prediction.probabilities.items():
            assert value == pytest.approx(np.mean([rows[index].probabilities[name] for rows in alone]), abs=1e-12)


def test_members_score_what_they_scored_alone_and_the_gain_is_the_difference(
    data: Path, runs: list[Path], tmp_path: Path
) -> None:
    result = combine(runs, tmp_path / "e").to_dict()
    assert {"checkpoint", "crops", "scales", "rule", "members", "ensemble", "gain", "cost"} <= set(result)
    for run, member in zip(runs, result["members"], strict=True):
        for split in ("val", "test"):
            assert member[split] == tl_kit.evaluate(run, data, split=split).metrics
    best = max(result["members"], key=lambda m: (m["val"]["accuracy"], -m["val"]["nll"]))
    gain = result["ensemble"]["test"]["accuracy"] - best["test"]["accuracy"]
    assert result["gain"]["accuracy"] == pytest.approx(gain)
    assert tl_kit.evaluate(result["checkpoint"], data, split="test").metrics == result["ensemble"]["test"]
    assert json.loads((tmp_path / "e" / "ensemble.json").read_text())["receipt"]["gain"] == result["gain"]


def test_the_order_of_members_changes_nothing(data: Path, runs: list[Path], tmp_path: Path) -> None:
    a = combine(runs, tmp_path / "a", rule="auto").receipt["ensemble"]["test"]
    b = combine(runs[::-1], tmp_path / "b", rule="auto").receipt["ensemble"]["test"]
    assert a is not None
    assert b is not None
    assert a == pytest.approx(b, abs=1e-9)


def test_copies_of_one_model_equal_that_model(data: Path, runs: list[Path], tmp_path: Path) -> None:
    result = combine([runs[0]] * 3, tmp_path / "e", calibrate=False).to_dict()
    assert result["ensemble"]["test"] == pytest.approx(result["members"][0]["test"], abs=1e-12)
    assert (result["gain"]["accuracy"], result["gain"]["ci95"]) == (0.0, [0.0, 0.0])
    assert result["gain"]["nll"] == pytest.approx(0, abs=1e-12)


def test_a_network_that_is_given_twice_is_named(data: Path, runs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "copy")
    for number, (paths, twice) in enumerate([([*runs, tmp_path / "copy"], True), (runs, False)]):
        listener = Listener()
        tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(paths), out=tmp_path / f"e{number}"), reporter=listener)
        said = [text for text in listener.messages if "counts twice" in text]
        assert said == [
            f"warning: {tmp_path / 'copy'} predicts exactly what {runs[0]} does, so that this network counts twice"
        ] * (1 if twice else 0)


def test_it_predicts_after_being_moved_and_its_members_gone(data: Path, runs: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(run, tmp_path / "ckpts" / run.name)) for run in runs]
    result = combine(copies, tmp_path / "e")
    file = next(data.rglob("*.png"))
    before = tl_kit.load(result.checkpoint).predict(file)[0].probabilities
    shutil.rmtree(tmp_path / "ckpts")
    moved = Path(shutil.move(result.checkpoint, tmp_path / "elsewhere"))
    assert tl_kit.load(moved).predict(file)[0].probabilities == before


def test_an_ensemble_of_ensembles_is_the_mean_of_all_members(data: Path, runs: list[Path], tmp_path: Path) -> None:
    inner = combine(runs[:2], tmp_path / "inner")
    outer = combine([Path(inner.checkpoint), runs[2]], tmp_path / "outer").receipt["ensemble"]["test"]
    flat = combine(runs, tmp_path / "flat").receipt["ensemble"]["test"]
    assert outer == flat


def test_an_ensemble_among_the_members_gives_its_members_and_not_its_rule(
    data: Path, runs: list[Path], tmp_path: Path
) -> None:
    inner = combine(runs[:2], tmp_path / "inner", rule="weighted", calibrate=False)
    listener = Listener()
    config = EnsembleConfig(checkpoints=(Path(inner.checkpoint), runs[2]), out=tmp_path / "outer", bootstrap=200)
    outer = tl_kit.ensemble(config, reporter=listener)
    assert outer.receipt["ensemble"]["test"] == combine(runs, tmp_path / "flat").receipt["ensemble"]["test"]
    assert any("inner" in text and "weighted" in text and "is not used" in text for text in listener.messages)


@pytest.mark.parametrize("rule", ["logit-mean", "vote", "weighted", "greedy", "stack", "auto"])
def test_every_rule_is_stored_and_used_again(data: Path, runs: list[Path], tmp_path: Path, rule: str) -> None:
    fit = tl_kit.config.RuleFitConfig(folds=3, stack_c=(0.1,))
    result = combine(runs, tmp_path / "e", rule=rule, fit=fit)
    assert tl_kit.evaluate(result.checkpoint, data, split="test").metrics == result.receipt["ensemble"]["test"]
    stored = json.loads((tmp_path / "e" / "ensemble.json").read_text())
    pooled = "logit-mean" if result.receipt["rule"] == "concat" else result.receipt["rule"]
    assert (stored["rule"], stored["parameters"]) == (pooled, result.receipt["parameters"])
    assert bool(result.receipt["comparison"]) == (rule == "auto")
    assert Path(result.picture).is_file()


def test_cost(data: Path, runs: list[Path], tmp_path: Path) -> None:
    cost = combine(runs, tmp_path / "e", crops=tl_kit.CropConfig(crops=5)).receipt["cost"]
    assert cost is not None
    assert cost["forward_passes"] == 15
    assert cost["seconds_per_image"] > 0
    assert cost["weight_bytes"] == sum((run / "model.safetensors").stat().st_size for run in runs)
    parameters = [sum(p.numel() for p in load_checkpoint(run).model.parameters()) for run in runs]
    assert cost["parameters"] == sum(parameters)


def test_folders_without_parameters_and_temperature_still_predict(data: Path, runs: list[Path], tmp_path: Path) -> None:
    result = combine(runs, tmp_path / "e", calibrate=False)
    manifest = tmp_path / "e" / "ensemble.json"
    content = json.loads(manifest.read_text())
    file = next(data.rglob("*.png"))
    before = tl_kit.load(result.checkpoint).predict(file)
    old = {key: value for key, value in content.items() if key not in ("parameters", "temperature")}
    manifest.write_text(json.dumps({**old, "format": 1}))
    assert tl_kit.load(result.checkpoint).predict(file) == before
    manifest.write_text(json.dumps({**content, "rule": "weighted", "parameters": {"weights": [1.0]}}))
    with pytest.raises(CheckpointError, match=r"ensemble\.json: the rule is broken: weights"):
        tl_kit.load(result.checkpoint)


def test_an_unknown_rule_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'stack'"):
        combine([tmp_path / "none"] * 2, tmp_path / "e", rule="stak")


def test_test_images_are_predicted_once_after_the_rule_is_chosen(
    data: Path, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    predict, choose = tl_kit.Predictor.member_probabilities, ensembles.choose_rule

    def record(self: tl_kit.Predictor, sources: list[Path], **options: Any) -> object:
        seen.append("predict")
        return predict(self, sources, **options)

    def chosen(*arguments: Any, **options: Any) -> object:
        seen.append("choose")
        return choose(*arguments, **options)

    monkeypatch.setattr(tl_kit.Predictor, "member_probabilities", record)
    monkeypatch.setattr(ensembles, "choose_rule", chosen)
    combine(runs[:2], tmp_path / "e", rule="weighted")
    assert seen == ["predict", "choose", "predict"]


def reorder_classes(folder: Path, order: list[int]) -> None:
    """Rewrite a checkpoint as if its classes had been in another order."""
    import safetensors.torch

    weights = safetensors.torch.load_file(folder / "model.safetensors")
    for name in ("fc.weight", "fc.bias"):
        weights[name] = weights[name][order].contiguous()
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    meta = json.loads((folder / "tlkit.json").read_text())
    meta["classes"] = [meta["classes"][index] for index in order]
    (folder / "tlkit.json").write_text(json.dumps(meta))


def test_members_with_classes_in_another_order_give_the_same_result(
    data: Path, runs: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(runs[0], tmp_path / "shuffled"))
    reorder_classes(copy, [2, 0, 1])
    assert load_checkpoint(copy).classes != load_checkpoint(runs[0]).classes
    a = combine([runs[0], runs[1]], tmp_path / "a").receipt["ensemble"]["test"]
    b = combine([runs[1], copy], tmp_path / "b").receipt["ensemble"]["test"]
    assert a is not None
    assert b is not None
    assert a == pytest.approx(b, abs=1e-7)


def test_other_class_names_are_refused_by_name(data: Path, runs: list[Path], tmp_path: Path) -> None:
    other = quick(write_images(tmp_path / "other", ("red", "green", "grey")), tmp_path / "run")
    with pytest.raises(MemberError, match="grey") as caught:
        combine([runs[0], Path(other.checkpoint)], tmp_path / "e")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()


def test_members_trained_on_other_splits_are_refused(data: Path, runs: list[Path], tmp_path: Path) -> None:
    other = quick(data, tmp_path / "other", split=tl_kit.DataConfig(split_seed=1))
    with pytest.raises(MemberError, match="--data"):
        combine([runs[0], Path(other.checkpoint)], tmp_path / "e")
    with pytest.raises(MemberError, match="was trained or selected on"):
        combine([runs[0], Path(other.checkpoint)], tmp_path / "e", data=data)


def test_one_checkpoint_is_no_ensemble_and_an_unfinished_one_is_named(
    data: Path, runs: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(MemberError, match="at least two"):
        combine(runs[:1], tmp_path / "e")
    (tmp_path / "torn").mkdir()
    with pytest.raises(
        CheckpointError, match=r"torn: is no checkpoint; give a folder that tlkit finetune, ensemble or"
    ):
        combine([runs[0], tmp_path / "torn"], tmp_path / "e")
    with pytest.raises(CheckpointError, match=r"give one of those inside it, such as .*/\w+$"):
        combine([runs[0], runs[1].parent], tmp_path / "e")
    shutil.copyfile(runs[0] / "config.json", tmp_path / "torn" / "config.json")
    with pytest.raises(
        CheckpointError, match=r"torn: not a finished checkpoint \(tlkit.json, model.safetensors missing"
    ):
        combine([runs[0], tmp_path / "torn"], tmp_path / "e")


def test_a_member_path_outside_the_ensemble_is_refused(data: Path, runs: list[Path], tmp_path: Path) -> None:
    result = combine(runs, tmp_path / "e")
    manifest = tmp_path / "e" / "ensemble.json"
    content = json.loads(manifest.read_text())
    content["members"][0] = "../a"
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="outside"):
        tl_kit.load(result.checkpoint)


def test_evaluating_on_classes_that_the_model_does_not_know_names_them(runs: list[Path], tmp_path: Path) -> None:
    other = write_images(tmp_path / "other", ("red", "grey"))
    with pytest.raises(DataError, match="grey"):
        tl_kit.evaluate(runs[0], other)


def test_images_never_seen_are_all_evaluated_by_default(runs: list[Path], tmp_path: Path) -> None:
    fresh = write_images(tmp_path / "fresh", images=4, seed=77)
    result = tl_kit.evaluate(runs[0], fresh)
    assert (result.split, result.images) == ("all", 12)
    assert sum(map(sum, result.confusion)) == 12
    assert sum(row["support"] for row in result.per_class.values()) == 12


def test_a_few_copies_across_given_splits_are_left_out_of_the_score(tmp_path: Path) -> None:
    root = tmp_path / "d"
    for number, (split, images) in enumerate((("train", 6), ("val", 6), ("test", 12))):
        write_images(root / split, ("red", "green"), images=images, seed=number)
    copied = next((root / "train" / "red").iterdir())
    shutil.copyfile(copied, root / "test" / "red" / "copy.png")
    members = [
        Path(quick(root, tmp_path / name, seed=n, allow=("split-leak",)).checkpoint) for n, name in enumerate("ab")
    ]
    listener = Listener()
    config = EnsembleConfig(checkpoints=tuple(members), out=tmp_path / "e", bootstrap=100)
    tl_kit.ensemble(config, reporter=listener)
    assert any("left out of test: 1 images" in text for text in listener.messages)


@pytest.mark.parametrize("classes", [("red",), ("red", "green")])
def test_a_single_new_photo_a_class_can_be_scored(runs: list[Path], tmp_path: Path, classes: tuple[str, ...]) -> None:
    fresh = write_images(tmp_path / "fresh", classes, images=1, seed=78)
    result = tl_kit.evaluate(runs[0], fresh)
    assert (result.split, result.images) == ("all", len(classes))


def test_a_full_out_folder_is_refused_before_anything_is_scored(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "mine.txt").write_text("")
    monkeypatch.setattr(tl_kit.Predictor, "member_probabilities", None)
    with pytest.raises(CheckpointError, match="not empty"):
        combine(runs, tmp_path / "e")
    for below in ("mine.txt", "mine.txt/inside"):
        with pytest.raises(CheckpointError, match=r"mine.txt: is a file, not a folder; choose another folder"):
            combine(runs, tmp_path / "e" / below)


@pytest.mark.parametrize(
    "options",
    [
        {"fit": RuleFitConfig(folds=1)},
        {"fit": RuleFitConfig(greedy_bags=3, greedy_share=2.0)},
        {"fit": RuleFitConfig(stack_c=())},
        {"soups": SoupConfig(alphas=(0.5, 2.0))},
        {"soups": SoupConfig(alphas=())},
    ],
)
def test_numbers_that_fit_nothing_are_refused_before_anything_is_opened(
    tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"(RuleFit|Soup)Config\."):
        combine([tmp_path / "none", tmp_path / "neither"], tmp_path / "e", **options)


def test_images_of_a_made_train_split_that_no_member_knows_are_told(runs: list[Path], tmp_path: Path) -> None:
    listener = Listener()
    fresh = write_images(tmp_path / "fresh", images=10, seed=7)
    tl_kit.ensemble(config(runs[:2], tmp_path / "e", data=fresh), reporter=listener)
    (told,) = [line for line in listener.messages if "are not used" in line]
    assert told.startswith("no splits are given: 6 images choose, 6 score, and 18 are not used")


def test_members_on_their_own_images_are_told_of_none(data: Path, runs: list[Path], tmp_path: Path) -> None:
    listener = Listener()
    tl_kit.ensemble(config(runs[:2], tmp_path / "e", data=data), reporter=listener)
    assert not [line for line in listener.messages if "are not used" in line]
