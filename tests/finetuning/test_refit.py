"""The head fitted again, to validation images too; and the head without them, by which those images are scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import UNGUARDED, Listener, quick, quick_config, same, weights
from tl_kit import EnsembleConfig, metrics
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import DistillConfig, GuardConfig, HeadConfig, RuntimeConfig
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.scan import scan
from tl_kit.ensembling.averaged_models import Mixtures
from tl_kit.ensembling.evidence import Evidence
from tl_kit.errors import CheckpointError
from tl_kit.finetuning.head_folds import penalty_folds
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.teacher import ask_teacher
from tl_kit.images.transforms import normalize
from tl_kit.inference.held_out_heads import with_held_out_heads
from tl_kit.inference.predictor import load_members
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.reporting import SILENT
from tl_kit.storage.checkpoint import (
    HELD_OUT_HEAD,
    WEIGHTS,
    load_checkpoint,
    refit_digests,
    save_held_out_head,
    save_weights,
)

pytestmark = pytest.mark.usefixtures("plain_pictures")

FP32 = RuntimeConfig(precision="fp32")
PLAIN = {"policy": "head", "epochs": None}
ONCE = HeadConfig(refit=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colours so near one another that heads of other images differ."""
    root = tmp_path_factory.mktemp("refit") / "images"
    rng = np.random.default_rng(0)
    for name, tint in (("red", (140, 120, 118)), ("green", (122, 136, 120)), ("blue", (118, 122, 138))):
        write_noise(root / name, np.array(tint), rng, images=24)
    return root


def write_noise(folder: Path, tint: NDArray[np.int64], rng: np.random.Generator, *, images: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(images):
        noise = rng.normal(0, 40, (40, 48, 3)) + rng.normal(0, 14, 3)
        Image.fromarray(np.clip(tint + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def again(data: Path) -> Path:
    quick(data, data.parent / "again", **PLAIN)
    return data.parent / "again"


@pytest.fixture(scope="module")
def once(data: Path) -> Path:
    quick(data, data.parent / "once", head=ONCE, **PLAIN)
    return data.parent / "once"


def meta(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tlkit.json").read_text())
    return found


def pixels(folder: Path, samples: tuple[Sample, ...]) -> torch.Tensor:
    preprocessing = load_checkpoint(folder).preprocessing
    store = PixelStore(preprocessing)
    store.fill(samples, crop=True)
    return normalize(torch.stack(store.get(samples, crop=True)), preprocessing)


def outputs(folder: Path, samples: tuple[Sample, ...]) -> NDArray[np.float64]:
    """Probabilities by timm alone."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        return metrics.softmax(model(pixels(folder, samples)).double().numpy())


def changed(folder: Path, out: Path, **entries: Any) -> Path:
    """A copy of a checkpoint with other entries in its record's ``data``."""
    shutil.copytree(folder, out)
    found = meta(out)
    found["data"] |= entries
    (out / "tlkit.json").write_text(json.dumps(found))
    return out


def test_the_final_head_is_fitted_to_training_and_validation_images_at_the_chosen_penalty(
    data: Path, again: Path, once: Path
) -> None:
    """As scikit-learn fits it, on features in timm's words."""
    manifest = scan(data)
    samples = (*manifest.split("train"), *manifest.split("val"))
    strength = meta(again)["settings"]["strength"]
    assert strength == meta(once)["settings"]["strength"]
    features = features_of(again, samples)
    reference = logistic(features, labels_of(samples), strength=strength)
    np.testing.assert_allclose(outputs(again, samples), reference(features), atol=2e-3)
    assert np.abs(outputs(again, samples) - outputs(once, samples)).max() > 0.01


def test_val_has_the_scores_of_the_head_without_it_and_test_those_of_the_final_one(
    data: Path, again: Path, once: Path
) -> None:
    run, first = meta(again), meta(once)
    assert (run["refit"], first["refit"]) == (True, False)
    assert run["val"] == first["val"]
    assert run["kinds"] == {"val": "test", "test": "test"}
    assert run["test"] != first["test"]
    test = scan(data).split("test")
    assert run["test"]["nll"] == pytest.approx(metrics.nll(outputs(again, test), labels_of(test)), rel=1e-4)
    head = load_file(again / HELD_OUT_HEAD)
    assert sorted(head) == ["fc.bias", "fc.weight"]
    assert all(torch.equal(tensor, weights(once)[name]) for name, tensor in head.items())
    assert not (once / HELD_OUT_HEAD).exists()
    trunk = [name for name in weights(again) if not name.startswith("fc.")]
    assert same({n: weights(again)[n] for n in trunk}, {n: weights(once)[n] for n in trunk})


def test_labelled_images_are_scored_by_a_head_that_was_not_fitted_to_them(data: Path, again: Path, once: Path) -> None:
    for split in ("val", "test"):
        listener = Listener()
        found = tl_kit.evaluate(again, data, split=split, runtime=FP32, reporter=listener)
        assert found.metrics == meta(again)[split]
        assert found.kind == "test"
        assert any("fitted without them" in line for line in listener.messages) == (split == "val")
    everything = tl_kit.evaluate(again, data, split="all", runtime=FP32)
    manifest = scan(data)
    expected = np.concatenate(
        [outputs(once if sample.split == "val" else again, (sample,)) for sample in manifest.samples]
    )
    labels = labels_of(manifest.samples)
    assert everything.metrics["nll"] == pytest.approx(metrics.nll(expected, labels), rel=1e-4)
    assert everything.kind == "mixed"


def test_the_final_head_predicts(data: Path, again: Path) -> None:
    val = scan(data).split("val")
    found = tl_kit.load(again, runtime=FP32).predict([sample.path for sample in val])
    classes = load_checkpoint(again).classes
    rows = [[each.probabilities[name] for name in classes] for each in found]
    np.testing.assert_allclose(rows, outputs(again, val), atol=1e-5)


def features_of(folder: Path, samples: tuple[Sample, ...]) -> NDArray[np.float64]:
    """The classifier's inputs, in timm's words."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        found = model.forward_head(model.forward_features(pixels(folder, samples)), pre_logits=True)
    return np.asarray(found.double().numpy())


def logistic(x: NDArray[np.float64], y: NDArray[np.int64], *, strength: float) -> Any:
    """Scikit-learn's fit, and its probabilities of other features."""
    scaling = fit_scaling(x)
    model = LogisticRegression(C=strength / len(y), tol=1e-9, max_iter=20_000).fit(scaling(x), y)
    return lambda rows: model.predict_proba(scaling(rows))


def test_the_guard_compares_heads_fitted_to_all_other_images(data: Path, again: Path, tmp_path: Path) -> None:
    """What a head without val says of val would be too low: the one that is kept is fitted to val too."""
    options: dict[str, Any] = {"weights": str(again / WEIGHTS), "epochs": 1}
    run = quick(data, tmp_path / "run", **options)
    assert run.guard is not None
    manifest, strength = scan(data), meta(again)["settings"]["strength"]
    train, val = manifest.split("train"), manifest.split("val")
    x, y = features_of(again, (*train, *val)), labels_of((*train, *val))
    folds = penalty_folds(val, folds=HeadConfig.folds, seed=0)
    found = np.empty((len(val), 3))
    for number in range(HeadConfig.folds):
        out = np.flatnonzero(folds.numbers == number)
        kept = np.delete(np.arange(len(y)), len(train) + out)
        found[out] = logistic(x[kept], y[kept], strength=strength)(x[len(train) + out])
    row = run.guard["compared"]["head"]
    assert row["nll"] == pytest.approx(metrics.nll(found, y[len(train) :]), rel=5e-3)
    assert row["accuracy"] == metrics.accuracy(found, y[len(train) :])
    without = quick(data, tmp_path / "without", head=ONCE, **options)
    assert without.guard is not None
    assert without.guard["compared"]["head"]["nll"] == pytest.approx(meta(again)["val"]["nll"], rel=1e-4)
    assert row["nll"] != pytest.approx(meta(again)["val"]["nll"], rel=1e-2)
    equal = quick(data, tmp_path / "equal", guard=GuardConfig(refitted=False), **options)
    assert equal.guard is not None
    assert equal.guard["compared"]["head"]["nll"] == pytest.approx(meta(again)["val"]["nll"], rel=1e-4)


@pytest.fixture(scope="module")
def pairs(data: Path) -> dict[bool, list[Path]]:
    """Two members whose heads are fitted again, and the same whose heads are not."""
    for refit in (True, False):
        for name, mode in (("a", "center"), ("b", "squash")):
            out = data.parent / f"{name}-{refit}"
            quick(data, out, crop_mode=mode, head=HeadConfig(refit=refit), **PLAIN)
    return {refit: [data.parent / f"{name}-{refit}" for name in "ab"] for refit in (True, False)}


def combined(members: list[Path], out: Path, **options: Any) -> tl_kit.EnsembleResult:
    config = {"checkpoints": tuple(members), "out": out, "bootstrap": 50, "runtime": FP32, **options}
    return tl_kit.ensemble(EnsembleConfig(**config))


def test_a_rule_is_chosen_by_heads_without_val_and_combines_the_final_ones(
    data: Path, pairs: dict[bool, list[Path]], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"rule": "weighted"}
    again, once = (combined(pairs[refit], tmp_path / str(refit), **options) for refit in (True, False))
    assert again.receipt["ensemble"]["val"] == once.receipt["ensemble"]["val"]
    assert [row["val"] for row in again.receipt["members"]] == [row["val"] for row in once.receipt["members"]]
    assert [row["test"] for row in again.receipt["members"]] == [meta(member)["test"] for member in pairs[True]]
    rule = [json.loads((tmp_path / name / "ensemble.json").read_text()) for name in ("True", "False")]
    assert all(rule[0][name] == rule[1][name] for name in ("rule", "parameters", "temperature"))
    for split in ("val", "test"):
        found = tl_kit.evaluate(again.checkpoint, data, split=split, runtime=FP32).metrics
        expected = again.receipt["ensemble"]["test"] if split == "test" else None
        if expected is not None:
            assert found["nll"] == pytest.approx(expected["nll"], rel=1e-6)
        else:
            other = tl_kit.evaluate(once.checkpoint, data, split="val", runtime=FP32).metrics
            assert found["nll"] == pytest.approx(other["nll"], rel=1e-6)


def test_averages_are_of_heads_without_val(data: Path, again: Path, tmp_path: Path) -> None:
    """They are chosen on it. Two heads lie around a better one, which is their mean; the final ones lie elsewhere."""
    start = tmp_path / "start"
    quick(data, start, **{**PLAIN, "weights": str(again / WEIGHTS)})
    middle, noise = load_file(start / HELD_OUT_HEAD), torch.Generator().manual_seed(0)
    moved = {name: 4 * tensor.std() * torch.randn(tensor.shape, generator=noise) for name, tensor in middle.items()}
    for name, sign in (("a", 1), ("b", -1)):
        shutil.copytree(start, tmp_path / name)
        model = load_checkpoint(start).model
        with torch.no_grad():
            model.get_parameter("fc.bias").add_(sign)
        save_weights(tmp_path / name, model)
        held_out = {n: tensor + sign * moved[n] for n, tensor in middle.items()}
        save_held_out_head(tmp_path / name, held_out, model=model)
    result = combined([tmp_path / "a", tmp_path / "b"], tmp_path / "soup", rule="soup", calibrate=False)
    (folder,) = (Path(result.checkpoint) / "members").iterdir()
    assert not refit_digests(meta(folder))
    for name, tensor in middle.items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=1e-5, atol=1e-6)


def test_averages_that_other_images_choose_are_of_the_final_heads(data: Path, again: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    quick(data, start, **{**PLAIN, "weights": str(again / WEIGHTS)})
    other = tmp_path / "images"
    for sample in scan(data).split("val"):
        target = other / sample.path.parent.name / sample.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(sample.path.read_bytes() + b"\0")  # the same picture, of another content
    twice = [load_checkpoint(start), load_checkpoint(start)]
    both = load_members(start, twice, classes=twice[0].classes, rule=FittedRule(), runtime=FP32)
    val = scan(other).samples
    for samples, final in ((val, True), (scan(data).split("val"), False)):
        evidence = Evidence(
            predictor=both,
            manifest=scan(data),
            val=samples,
            stack=np.zeros((2, len(samples), 3)),
            labels=labels_of(samples),
            config=EnsembleConfig(checkpoints=(start, start)),
            reporter=SILENT,
        )
        found = Mixtures(evidence).members[0].model.state_dict()["fc.weight"]
        assert torch.equal(found, weights(start)["fc.weight"]) is final


def test_a_teacher_teaches_by_the_head_without_val(data: Path, again: Path, once: Path, tmp_path: Path) -> None:
    """The student's validation images would otherwise have taught it."""
    found = []
    for teacher in (again, once):
        config = quick_config(data, tmp_path / teacher.name, distill=DistillConfig(teacher=teacher))
        run = prepare(config, SILENT, dry=True)
        assert config.distill is not None
        found.append(ask_teacher(config.distill, run).targets)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(row, found[1][digest]) for digest, row in found[0].items())


def test_a_network_without_other_heads_is_what_it_was(once: Path) -> None:
    predictor = tl_kit.load(once, runtime=FP32)
    assert with_held_out_heads(predictor) is predictor


@pytest.mark.parametrize("without", ["refit", "gradient"])
def test_a_head_is_fitted_once_where_nothing_is_held_out(data: Path, tmp_path: Path, without: str) -> None:
    options: dict[str, Any] = dict(PLAIN)
    options |= {"head": ONCE} if without == "refit" else {"epochs": 2, "guard": UNGUARDED}
    run = quick(data, tmp_path / "run", **options)
    assert not run.refit
    assert not (tmp_path / "run" / HELD_OUT_HEAD).exists()
    assert not refit_digests(meta(tmp_path / "run"))


def _missing(path: Path) -> None:
    path.unlink()


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _of_another_shape(path: Path) -> None:
    save_file({name: tensor[:2].contiguous() for name, tensor in load_file(path).items()}, path)


def _of_another_layer(path: Path) -> None:
    save_file({f"other.{name}": tensor for name, tensor in load_file(path).items()}, path)


def _not_finite(path: Path) -> None:
    save_file({name: tensor * float("nan") for name, tensor in load_file(path).items()}, path)


def _of_another_head(path: Path) -> None:
    """As where a run was killed between the two files."""
    other = {name: tensor + 1 for name, tensor in load_file(path.parent / WEIGHTS).items()}
    save_file(other, path.parent / WEIGHTS, metadata={"format": "pt"})


def test_a_head_that_was_written_for_other_weights_is_not_used(data: Path, again: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(again, folder)
    _of_another_head(folder / HELD_OUT_HEAD)
    with pytest.raises(CheckpointError, match=rf"{HELD_OUT_HEAD}: was written for other weights"):
        tl_kit.evaluate(folder, data, split="val", runtime=FP32)


@pytest.mark.parametrize("damage", [_missing, _cut_short, _of_another_shape, _of_another_layer, _not_finite])
def test_a_broken_file_is_named_and_only_validation_images_need_it(
    data: Path, again: Path, tmp_path: Path, damage: Any
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(again, folder)
    damage(folder / HELD_OUT_HEAD)
    assert tl_kit.evaluate(folder, data, split="test", runtime=FP32).metrics == meta(again)["test"]
    with pytest.raises(CheckpointError, match=HELD_OUT_HEAD) as caught:
        tl_kit.evaluate(folder, data, split="val", runtime=FP32)
    assert "\n" not in str(caught.value)


def test_a_record_that_says_neither_is_refused(again: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"data\.refit is neither true nor false"):
        tl_kit.load(changed(again, tmp_path / "run", refit="yes"))


def test_the_command_line_says_it_and_turns_it_off(data: Path, tmp_path: Path) -> None:
    command = ("finetune", "test_resnet", "--weights", "none", "--data", data, "--policy", "head", "--img-size", 32)
    shown = tlkit(*command, "--out", tmp_path / "on")
    count = len(scan(data).split("train")) + len(scan(data).split("val"))
    assert shown.code == 0, shown.err
    assert f"fitted again, to the {count} training and validation images" in " ".join(shown.err.split())
    shown = tlkit(*command, "--no-refit", "--out", tmp_path / "off")
    assert shown.code == 0, shown.err
    assert "fitted again" not in " ".join(shown.err.split())
    assert not (tmp_path / "off" / HELD_OUT_HEAD).exists()
