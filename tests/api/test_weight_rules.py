"""Rules that change weights, from checkpoints to a folder that predicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

import tl_kit
from tests.api.helpers import MODEL, Listener, quick, write_images
from tests.api.test_ensembles import reorder_classes
from tl_kit import CacheConfig, CropConfig, EnsembleConfig, EnsembleResult, RuntimeConfig, SoupConfig
from tl_kit.api.evidence import Evidence
from tl_kit.api.predictor import load_members
from tl_kit.api.weight_rules import weight_rules
from tl_kit.config import AugmentLevels, HeadConfig, RuleFitConfig
from tl_kit.data.manifest import Manifest
from tl_kit.data.scan import scan
from tl_kit.data.transforms import normalize
from tl_kit.ensembling.fitted import FittedRule
from tl_kit.ensembling.rules import SIMPLEST_FIRST, WEIGHT_RULES
from tl_kit.errors import ConfigError, MemberError
from tl_kit.metrics import softmax
from tl_kit.training.checkpoint import WEIGHTS, load_checkpoint

FIT = RuleFitConfig(folds=3, stack_c=(0.1,))
FP32 = RuntimeConfig(precision="fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=20)


@pytest.fixture(scope="module")
def origin(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights to start from."""
    out = tmp_path_factory.mktemp("origin") / "run"
    quick(data, out, epochs=2, lr=0.1)
    return out / WEIGHTS


@pytest.fixture(scope="module")
def runs(data: Path, origin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two fine-tuned runs and a head, from the same weights."""
    root = tmp_path_factory.mktemp("ckpts")
    quick(data, root / "a", weights=str(origin), batchnorm="train", augment="none")
    quick(data, root / "b", weights=str(origin), batchnorm="train", augment="none", seed=1)
    quick(data, root / "head", weights=str(origin), policy="head", epochs=None)
    return {name: root / name for name in ("a", "b", "head")}


def combine(paths: list[Path], out: Path, rule: str, **options: Any) -> EnsembleResult:
    settings: dict[str, Any] = {"bootstrap": 100, "fit": FIT, "runtime": FP32} | options
    return tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(paths), out=out, rule=rule, **settings))


def changed(base: Path, out: Path, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy of a checkpoint with other tensors."""
    folder = Path(shutil.copytree(base, out))
    tensors = {name: change(name, t).contiguous() for name, t in safetensors.torch.load_file(folder / WEIGHTS).items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    return folder


def around(base: Path, out: Path, *, spread: float, only: str = "") -> list[Path]:
    """Two checkpoints whose average is ``base``, each so far from it."""

    def moved(sign: int) -> Callable[[str, Tensor], Tensor]:
        generator = torch.Generator().manual_seed(0)

        def move(name: str, tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point() or "running" in name or not name.startswith(only):
                return tensor
            return tensor + sign * spread * tensor.std() * torch.randn(tensor.shape, generator=generator)

        return move

    return [changed(base, out / name, moved(sign)) for name, sign in (("plus", 1), ("minus", -1))]


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(safetensors.torch.load_file(folder / WEIGHTS))


def only_member(result: EnsembleResult) -> Path:
    members = list((Path(result.checkpoint) / "members").iterdir())
    assert len(members) == 1
    return members[0]


def images_of(data: Path, folder: Path, split: str) -> tuple[Tensor, list[Path]]:
    """Normalised images of a split, as evaluation sees them, and their files."""
    from PIL import Image

    paths = [sample.path for sample in scan(data, tl_kit.DataConfig()).split(split)]
    preprocessing = load_checkpoint(folder).preprocessing
    pixels = torch.stack([preprocessing.evaluate(Image.open(path).convert("RGB")) for path in paths])
    return normalize(pixels, preprocessing), paths


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


def test_a_soup_is_the_average_and_opens_in_timm(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    members = around(runs["head"], tmp_path, spread=1.5, only="fc")
    result = combine(members, tmp_path / "e", "soup", calibrate=False)
    made = result.receipt["derived"]
    assert made is not None
    assert made["fallback"] is None
    assert [ingredient["weight"] for ingredient in made["ingredients"]] == [0.5, 0.5]
    assert made["batchnorm"] is None, "only the heads differ: the statistics are still those of these weights"
    folder = only_member(result)
    base = weights_of(runs["head"])
    for name, tensor in weights_of(folder).items():
        torch.testing.assert_close(tensor, base[name], atol=1e-6, rtol=1e-5)
        assert tensor.dtype == base[name].dtype
    images, paths = images_of(data, folder, "val")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        expected = softmax(model(images).numpy())
    found = tl_kit.load(result.checkpoint, runtime=FP32).predict(paths)
    classes = load_checkpoint(folder).classes
    np.testing.assert_allclose([[p.probabilities[name] for name in classes] for p in found], expected, atol=1e-5)


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


def test_a_soup_that_breaks_is_not_returned(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Of three classifiers two take each class for another one: any average is less sure than the third."""
    head = runs["head"]
    wrong = [
        changed(head, tmp_path / f"wrong-{by}", lambda n, t, by=by: t.roll(by, 0) if n.startswith("fc.") else t)  # type: ignore[misc]
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
        assert any("no average keeps up" in line for line in result.findings)
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
    assert {t.dtype for n, t in weights_of(folder).items() if n.endswith("num_batches_tracked")} == {torch.int64}


def test_statistics_are_those_of_images_as_training_saw_them(
    data: Path, stale: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level of augmentation that the runs agree on decides; without one in common, it is standard."""
    from tl_kit.api import mixtures

    used: list[Any] = []
    transform = mixtures.TrainTransform
    monkeypatch.setattr(mixtures, "TrainTransform", lambda p, config: (used.append(config), transform(p, config))[1])
    found = {}
    for first, second, level in (("none", "none", "none"), ("light", "light", "light"), ("light", "none", "standard")):
        for folder, name in zip(stale, (first, second), strict=True):
            meta = json.loads((folder / "tlkit.json").read_text())
            meta["settings"]["augment"] = name
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


@pytest.mark.parametrize("rule", ["soup", "greedy-soup", "concat"])
def test_the_order_of_members_changes_nothing(runs: dict[str, Path], tmp_path: Path, rule: str) -> None:
    members = [runs["a"], *around(runs["b"], tmp_path, spread=0.05), runs["b"]]
    found = [combine(list(order), tmp_path / name, rule) for name, order in (("x", members), ("y", members[::-1]))]
    first, second = (result.receipt["ensemble"] for result in found)
    for split in ("val", "test"):
        assert first[split] == pytest.approx(second[split], abs=1e-6)  # type: ignore[literal-required]
    if rule != "concat":
        pairs = zip(weights_of(only_member(found[0])).values(), weights_of(only_member(found[1])).values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("rule", ["soup", "greedy-soup"])
def test_copies_of_one_model_equal_that_model(runs: dict[str, Path], tmp_path: Path, rule: str) -> None:
    result = combine([runs["a"]] * 4, tmp_path / "e", rule, calibrate=False)
    assert result.receipt["ensemble"]["test"] == pytest.approx(result.receipt["members"][0]["test"], abs=1e-12)
    assert (only_member(result) / WEIGHTS).read_bytes() == (runs["a"] / WEIGHTS).read_bytes()


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
        head, tuned, found = (weights_of(f) for f in (runs["head"], runs["a"], only_member(result)))
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


@pytest.mark.parametrize("rule", ["soup", "greedy-soup"])
def test_members_that_cannot_be_averaged_are_refused_in_one_line(
    data: Path, runs: dict[str, Path], tmp_path: Path, rule: str
) -> None:
    random = Path(quick(data, tmp_path / "random").checkpoint)
    larger = Path(quick(data, tmp_path / "larger", weights=str(runs["a"] / WEIGHTS), img_size=48, epochs=1).checkpoint)
    elsewhere = Path(quick(data, tmp_path / "else", weights=str(runs["b"] / WEIGHTS), epochs=1).checkpoint)
    vit = Path(quick(data, tmp_path / "vit", model="test_vit", img_size=32, epochs=1).checkpoint)
    for other, message in (
        (random, "random"),
        (larger, "another preprocessing"),
        (elsewhere, "other pretrained weights"),
        (vit, "vit: cannot be averaged"),
    ):
        with pytest.raises(MemberError, match=message) as caught:
            combine([runs["a"], other], tmp_path / "e", rule)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "e").exists()


def features_of(folder: Path, images: Tensor) -> Tensor:
    """The inputs of the classifier, in float64."""
    model = load_checkpoint(folder).model.double()
    with torch.inference_mode():
        return model.forward_head(model.forward_features(images.double()), pre_logits=True)  # type: ignore[operator]


@pytest.mark.parametrize("cached", [True, False])
def test_concat_equals_one_head_on_the_features_side_by_side(
    data: Path, runs: dict[str, Path], tmp_path: Path, cached: bool
) -> None:
    """z = mean_j z_j of the stored classifiers, on features that are computed here."""
    vit = Path(quick(data, tmp_path / "vit", model="test_vit", img_size=32, epochs=1).checkpoint)
    members = [runs["a"], vit]
    cache = CacheConfig(directory=tmp_path / "cache", size_gb=1.0 if cached else 0.0)
    result = combine(members, tmp_path / "e", "concat", calibrate=False, cache=cache)
    logits = []
    for member, made in zip(members, sorted((tmp_path / "e" / "members").iterdir()), strict=True):
        images, paths = images_of(data, member, "test")
        head = load_checkpoint(made).model.get_classifier().double()  # type: ignore[operator]
        with torch.inference_mode():
            logits.append(head(features_of(member, images)).numpy())
        kept, new = weights_of(member), weights_of(made)
        assert {name for name in kept if not torch.equal(kept[name], new[name])} <= {
            *("fc.weight", "fc.bias", "head.weight", "head.bias")
        }
    expected = softmax(np.mean(logits, axis=0))
    classes = load_checkpoint(members[0]).classes
    found = tl_kit.load(result.checkpoint, runtime=FP32).predict(paths)
    np.testing.assert_allclose([[p.probabilities[name] for name in classes] for p in found], expected, atol=1e-4)
    assert (tmp_path / "cache").exists() is cached


def test_concat_s_head_is_the_regression_on_the_training_images(
    data: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    from sklearn.linear_model import LogisticRegression

    head = HeadConfig(strengths=(0.01,), max_iter=2000)
    result = combine([runs["a"], runs["b"]], tmp_path / "e", "concat", calibrate=False, head=head)
    assert result.receipt["derived"] is not None
    assert result.receipt["derived"]["c"] == 0.01
    joint = {}
    for split in ("train", "test"):
        images, paths = images_of(data, runs["a"], split)
        joint[split] = np.concatenate([features_of(runs[name], images).numpy() for name in "ab"], axis=1)
    labels = [sample.path.parent.name for sample in scan(data, tl_kit.DataConfig()).split("train")]
    mean, scale = joint["train"].mean(axis=0), joint["train"].std(axis=0)
    scale[scale < 1e-6] = 1
    model = LogisticRegression(C=0.01, max_iter=5000, tol=1e-8).fit((joint["train"] - mean) / scale, labels)
    expected = model.predict_proba((joint["test"] - mean) / scale)
    found = tl_kit.load(result.checkpoint, runtime=FP32).predict(paths)
    rows = [[p.probabilities[name] for name in model.classes_] for p in found]
    np.testing.assert_allclose(rows, expected, atol=5e-3)


def test_concat_with_crops_scores_what_it_predicts(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    crops = CropConfig(crops=5)
    result = combine([runs["a"], runs["b"]], tmp_path / "e", "concat", crops=crops, calibrate=False)
    assert (
        tl_kit.evaluate(result.checkpoint, data, split="test", runtime=FP32).metrics
        == (result.receipt["ensemble"]["test"])
    )
    head = HeadConfig(strengths=(0.01,))  # nothing to choose: the score is that of these members themselves
    result = combine([runs["a"], runs["b"]], tmp_path / "f", "concat", crops=crops, calibrate=False, head=head)
    scored = tl_kit.evaluate(result.checkpoint, data, split="val", runtime=FP32).metrics
    assert scored == pytest.approx(result.receipt["ensemble"]["val"], abs=1e-4)


def test_features_of_one_trunk_are_computed_once_and_kept(
    data: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tl_kit.api import member_features

    passes: list[int] = []
    run = member_features.run_models

    def counted(found: Any, *arguments: Any, **options: Any) -> Any:
        passes.append(len(found))
        return run(found, *arguments, **options)

    monkeypatch.setattr(member_features, "run_models", counted)
    members = around(runs["a"], tmp_path, spread=0.3, only="fc")
    options: dict[str, Any] = {"cache": CacheConfig(directory=tmp_path / "cache")}
    first = combine(members, tmp_path / "x", "concat", **options)
    assert passes == [1, 1], "train and val, one pass for both members"
    again = combine(members, tmp_path / "y", "concat", **options)
    assert passes == [1, 1]
    assert first.receipt["ensemble"] == again.receipt["ensemble"]


def test_a_classifier_that_is_no_linear_layer_is_refused(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    other = Path(quick(data, tmp_path / "other", model="test_byobnet", epochs=1).checkpoint)
    config = json.loads((other / "config.json").read_text())
    assert config["architecture"] == "test_byobnet"
    convolution = Path(quick(data, tmp_path / "conv", model="mobilenetv3_small_050", epochs=1).checkpoint)
    assert combine([runs["a"], other], tmp_path / "fine", "concat").receipt["derived"] is not None
    assert combine([runs["a"], convolution], tmp_path / "fine too", "concat").receipt["derived"] is not None


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
    assert "no average keeps up" in str(line["refused"])
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
