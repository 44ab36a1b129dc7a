"""Averages of weights: soups, greedy soups and interpolation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

import tl_kit
from tests.ensembling.weight_rules.helpers import FIT, FP32, around, changed, combine, images_of, only_member
from tests.helpers import Listener, quick, weights
from tl_kit import EnsembleConfig, SoupConfig
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import AugmentLevels
from tl_kit.data.scan import scan
from tl_kit.ensembling import averaged_models as mixtures
from tl_kit.ensembling.averaged_models import Mixtures, agreed_augmentation
from tl_kit.ensembling.evidence import Evidence
from tl_kit.errors import MemberError
from tl_kit.inference.predictor import load_members
from tl_kit.metrics import softmax
from tl_kit.storage.checkpoint import WEIGHTS, load_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")


def test_a_soup_is_the_average_and_opens_in_timm(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    members = around(runs["head"], tmp_path, spread=1.5, only="fc")
    result = combine(members, tmp_path / "e", "soup", calibrate=False)
    made = result.receipt["derived"]
    assert made is not None
    assert made["fallback"] is None
    assert [ingredient["weight"] for ingredient in made["ingredients"]] == [0.5, 0.5]
    assert made["batchnorm"] is None, "only the heads differ: the statistics are still those of these weights"
    folder = only_member(result)
    base = weights(runs["head"])
    for name, tensor in weights(folder).items():
        torch.testing.assert_close(tensor, base[name], atol=1e-6, rtol=1e-5)
        assert tensor.dtype == base[name].dtype
    images, paths = images_of(data, folder, "val")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        expected = softmax(model(images).numpy())
    found = tl_kit.load(result.checkpoint, runtime=FP32).predict(paths)
    classes = load_checkpoint(folder).classes
    np.testing.assert_allclose([[p.probabilities[name] for name in classes] for p in found], expected, atol=1e-5)


def test_a_soup_that_breaks_is_not_returned(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Of three classifiers two take each class for another one: any average is less sure than the third."""
    head = runs["head"]
    wrong = [
        changed(head, tmp_path / f"wrong-{by}", lambda n, t, by=by: t.roll(by, 0) if n.startswith("fc.") else t)
        for by in (1, 2)
    ]
    for rule in ("soup", "greedy-soup"):
        listener = Listener()
        config = EnsembleConfig(
            checkpoints=(wrong[0], head, wrong[1]),
            out=tmp_path / rule,
            rule=rule,
            fit=FIT,
            bootstrap=50,
            runtime=FP32,
        )
        result = tl_kit.ensemble(config, reporter=listener)
        made = result.receipt["derived"]
        assert made is not None
        losses = {tuple(line["weights"]): line["nll"] for line in made["tried"]}
        if rule == "soup":
            assert min(nll for weights, nll in losses.items() if 1.0 not in weights) > losses[0.0, 1.0, 0.0]
        assert [ingredient["weight"] for ingredient in made["ingredients"]] == [0.0, 1.0, 0.0]
        assert str(head) in made["fallback"]
        assert any(rule in text and str(head) in text for text in listener.messages)
        assert any("no average is as good" in line for line in result.findings)
        alone = result.receipt["members"][1]["test"]
        assert alone is not None
        assert result.receipt["ensemble"]["test"] is not None
        assert result.receipt["ensemble"]["test"]["accuracy"] == alone["accuracy"]
        assert (only_member(result) / WEIGHTS).read_bytes() == (head / WEIGHTS).read_bytes()
        assert result.receipt["cost"] is not None
        assert result.receipt["cost"]["forward_passes"] == 1


@pytest.fixture
def stale(runs: dict[str, Path], tmp_path: Path) -> list[Path]:
    """Members whose average is sound but for its BatchNorm statistics."""

    def worn(name: str, tensor: Tensor) -> Tensor:
        return tensor * 0.2 - 1 if "running_mean" in name else tensor * 6 if "running_var" in name else tensor

    return [
        changed(member, tmp_path / f"stale-{member.name}", worn) for member in around(runs["a"], tmp_path, spread=0.05)
    ]


def test_statistics_are_re_estimated_where_that_is_better(data: Path, stale: list[Path], tmp_path: Path) -> None:
    result = combine(stale, tmp_path / "e", "soup")
    made = result.receipt["derived"]
    assert made is not None
    assert (made["batchnorm"], made["fallback"]) == ("re-estimated", None)
    losses = {line["batchnorm"]: line["nll"] for line in made["tried"] if 1.0 not in line["weights"]}
    assert losses["re-estimated"] < losses["as averaged"]
    assert "re-estimated" in " ".join(result.findings)
    folder = only_member(result)
    images, _ = images_of(data, folder, "train")
    assert made["batchnorm_images"] == len(images) <= 48, "which make one batch"
    model = load_checkpoint(folder).model.double()
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(images.double())
    torch.testing.assert_close(layer.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.running_var, seen[0].var(dim=(0, 2, 3)), atol=0, rtol=1e-4)
    assert {t.dtype for n, t in weights(folder).items() if n.endswith("num_batches_tracked")} == {torch.int64}


def test_statistics_do_not_depend_on_what_was_asked_before(data: Path, runs: dict[str, Path]) -> None:
    """Whether the average has been scored as it is, or its statistics are the first thing that is asked for."""
    manifest = scan(data, tl_kit.DataConfig())
    members = [load_checkpoint(runs[name]) for name in "ab"]
    val = manifest.split("val")
    evidence = Evidence(
        predictor=load_members(runs["a"], members, classes=members[0].classes, rule=FittedRule(), runtime=FP32),
        manifest=manifest,
        val=val,
        stack=np.full((2, len(val), 3), 1 / 3),
        labels=np.array([sample.label for sample in val]),
        config=EnsembleConfig(checkpoints=()),
        reporter=Listener(),
    )
    scored, fresh = Mixtures(evidence), Mixtures(evidence)
    averaged, anew = scored.options([1.0, 1.0])
    scored.probabilities(averaged)
    expected = scored.load(anew).state_dict()
    found = fresh.load(anew).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_statistics_are_those_of_images_as_training_saw_them(
    data: Path, stale: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level of augmentation that the runs agree on decides; without one in common, it is standard."""
    used: list[Any] = []
    transform = mixtures.TrainTransform
    monkeypatch.setattr(mixtures, "TrainTransform", lambda p, config: (used.append(config), transform(p, config))[1])
    found = {}
    for first, second, level in (("none", "none", "none"), ("light", "light", "light"), ("light", "none", "standard")):
        for folder, name in zip(stale, (first, second), strict=True):
            meta = json.loads((folder / "tlkit.json").read_text())
            meta["settings"] |= {"augment": name, "flip": AugmentLevels().levels[name].flip}
            (folder / "tlkit.json").write_text(json.dumps(meta))
        used.clear()
        made = combine(stale, tmp_path / f"e-{level}", "soup").receipt["derived"]
        assert made is not None
        assert set(used) == {AugmentLevels().levels[level]}
        if made["batchnorm"] == "re-estimated":
            assert made["batchnorm_augment"] == level
        found[level] = [line["nll"] for line in made["tried"] if line["batchnorm"] == "re-estimated"]
    assert len({tuple(losses) for losses in found.values()}) == 3


def test_fewer_images_may_do_for_statistics(stale: list[Path], tmp_path: Path) -> None:
    result = combine(stale, tmp_path / "e", "soup", soups=SoupConfig(batchnorm_images=10))
    assert result.receipt["derived"] is not None
    assert result.receipt["derived"]["batchnorm_images"] == 10


@pytest.mark.parametrize("rule", ["soup", "greedy-soup"])
def test_copies_of_one_model_equal_that_model(runs: dict[str, Path], tmp_path: Path, rule: str) -> None:
    result = combine([runs["a"]] * 4, tmp_path / "e", rule, calibrate=False)
    assert result.receipt["ensemble"]["test"] == pytest.approx(result.receipt["members"][0]["test"], abs=1e-12)
    assert (only_member(result) / WEIGHTS).read_bytes() == (runs["a"] / WEIGHTS).read_bytes()


def test_wise_ft_interpolates_between_head_and_fine_tuned(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    alphas = (0.0, 0.3, 1.0)
    for name, members in (("x", [runs["head"], runs["a"]]), ("y", [runs["a"], runs["head"]])):
        result = combine(members, tmp_path / name, "wise-ft", soups=SoupConfig(alphas=alphas), calibrate=False)
        made = result.receipt["derived"]
        assert made is not None
        shares = [line["weights"][members.index(runs["a"])] for line in made["tried"]]
        assert sorted(set(shares)) == pytest.approx(alphas)
        taken = next(line for line in made["tried"] if line["chosen"])
        members_val = [member["val"] for member in result.receipt["members"]]
        best = min(members_val, key=lambda val: (-val["accuracy"], val["nll"]))
        assert taken["accuracy"] >= best["accuracy"] - 1e-9
        assert taken["nll"] <= best["nll"] + 1e-9
        weight = made["ingredients"][members.index(runs["a"])]["weight"]
        assert made["alpha"] == weight
        head, tuned, found = (weights(f) for f in (runs["head"], runs["a"], only_member(result)))
        if made["fallback"] is None:
            name = "layer1.0.conv1.weight"
            torch.testing.assert_close(found[name], (1 - weight) * head[name] + weight * tuned[name])


def test_wise_ft_wants_a_head_and_a_fine_tuned_run(runs: dict[str, Path], tmp_path: Path) -> None:
    for members, message in (
        ([runs["a"], runs["b"]], "--policy head"),
        ([runs["head"], runs["head"]], "--policy head"),
        ([runs["head"], runs["a"], runs["b"]], "two checkpoints, 3 given"),
    ):
        with pytest.raises(MemberError, match=message) as caught:
            combine(members, tmp_path / "e", "wise-ft")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "e").exists()


@pytest.fixture(scope="module")
def unlike(data: Path, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Runs that cannot be averaged with ``a``, and what is said of each."""
    root = tmp_path_factory.mktemp("unlike")
    quick(data, root / "random")
    quick(data, root / "larger", weights=str(runs["a"] / WEIGHTS), img_size=48, epochs=1)
    quick(data, root / "else", weights=str(runs["b"] / WEIGHTS), epochs=1)
    quick(data, root / "vit", model="test_vit", img_size=32, epochs=1)
    return {
        root / "random": "random",
        root / "larger": "another preprocessing",
        root / "else": "other pretrained weights",
        root / "vit": "vit: cannot be averaged",
    }


@pytest.mark.parametrize("rule", ["soup", "greedy-soup"])
def test_members_that_cannot_be_averaged_are_refused_in_one_line(
    runs: dict[str, Path], unlike: dict[Path, str], tmp_path: Path, rule: str
) -> None:
    for other, message in unlike.items():
        with pytest.raises(MemberError, match=message) as caught:
            combine([runs["a"], other], tmp_path / "e", rule)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("settings", "level", "flip"),
    [
        ([{"augment": "light", "flip": 0.5}, {"augment": "light", "flip": 0.5}], "light", 0.5),
        ([{"augment": "light, with flip=0.0", "flip": 0.0}] * 2, "light", 0.0),
        ([{"augment": "light"}, {"augment": "light"}], "light", 0.5),
        ([{"augment": "light", "flip": 0.5}, {"augment": "light, with flip=0.0", "flip": 0.0}], "light", 0.5),
        ([{"augment": "light", "flip": 0.5}, {"augment": "strong", "flip": 0.5}], "standard", 0.5),
        ([{"augment": "custom", "flip": 0.1}] * 2, "standard", 0.1),
        ([{"augment": "none", "flip": 0.0}, None], "none", 0.0),
        ([None, {}], "standard", 0.5),
        ([{"augment": "light", "flip": "often"}] * 2, "light", 0.5),
    ],
)
def test_statistics_come_from_images_as_the_members_saw_them(settings: list[object], level: str, flip: float) -> None:
    """Mirror images that no member trained on would move an average's statistics."""
    assert agreed_augmentation(settings) == replace(AugmentLevels().levels[level], flip=flip)
