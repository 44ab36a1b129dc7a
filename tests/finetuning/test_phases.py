"""Policies in phases: the head first, then everything (lp-ft), or group by group (gradual)."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers import NEARLY_SQUARE, quick, quick_config, write_images
from tl_kit import evaluate
from tl_kit.config import AugmentConfig, HeadConfig, LoopConfig
from tl_kit.data.pixel_store import read_pixels
from tl_kit.data.scan import scan
from tl_kit.errors import ConfigError, PolicyError
from tl_kit.finetuning.closed_form import fit_head_first, head_run, remove_mean, set_fitted_head
from tl_kit.finetuning.preparation import prepare
from tl_kit.freezing.policies import Layers, gradual, parse_policy
from tl_kit.freezing.train_mode import apply_policy, forward_order, set_train_mode
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.reporting import SILENT
from tl_kit.training.batch_order import even_batches
from tl_kit.zoo.heads import linear_tensors

pytestmark = pytest.mark.usefixtures("own_cache")

NONE = AugmentConfig(crop="none", flip=0.0)
GROUPS = [["stem"], ["a", "b"], ["c"], ["head"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def start(data: Path) -> Path:
    """Where the other policies start: the fitted head, whose outputs no longer depend on the features' mean."""
    out = data.parent / "head"
    quick(data, out, policy="head", epochs=None, head=HeadConfig(strengths=(HeadConfig.start_strength,), refit=False))
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    images, _ = _training_images(data, model)
    with torch.no_grad():
        mean = model.forward_head(model.forward_features(images), pre_logits=True).mean(dim=0)
    remove_mean(model.get_classifier(), mean)
    save_file(model.state_dict(), out / "model.safetensors")
    return out


def _training_images(data: Path, model: nn.Module) -> tuple[Tensor, Tensor]:
    """All of them (n, 3, h, w), and their labels (n,)."""
    preprocessing = Preprocessing.from_model(model)
    train = scan(data).split("train")
    pixels = torch.stack([read_pixels(sample.path, preprocessing, crop=True) for sample in train])
    return normalize(pixels, preprocessing), torch.tensor([sample.label for sample in train])


def test_gradual_frees_one_group_more_each_time_and_then_all() -> None:
    layers = SimpleNamespace(groups=GROUPS, classifier=frozenset({"head"}))
    freed = [gradual(layers, epoch=epoch, depth=2) for epoch in range(10)]
    assert [len(names) for names in freed] == [2, 2, 4, 4, 5, 5, 5, 5, 5, 5]
    assert all(before <= after for before, after in pairwise(freed))
    assert gradual(layers, epoch=0, depth=1) == {"c", "head"}
    layers.groups = [*GROUPS[:3], ["norm", "head"]]
    assert gradual(layers, epoch=0, depth=1) == {"norm", "head"}


def test_names_and_rhythms() -> None:
    assert parse_policy("gradual") == parse_policy("gradual:1")
    assert str(parse_policy("gradual:3")) == "gradual:3"
    assert str(parse_policy("lp-ft")) == "lp-ft"
    with pytest.raises(PolicyError, match="gradual takes the epochs until the next group trains"):
        parse_policy("gradual:0")
    assert str(parse_policy("lp-ft:2")) == "lp-ft:2"
    with pytest.raises(PolicyError, match="lp-ft takes a number of groups"):
        parse_policy("lp-ft:0")
    with pytest.raises(PolicyError, match="full takes no depth"):
        parse_policy("full:2")
    with pytest.raises(PolicyError, match="did you mean lp-ft"):
        parse_policy("lpft")


@pytest.mark.parametrize("policy", ["lp-ft", "gradual"])
def test_the_head_is_fitted_first_strongly_penalised(data: Path, start: Path, tmp_path: Path, policy: str) -> None:
    """With a rate of nearly nothing, what is saved is where the second phase started."""
    quick(data, tmp_path / "run", policy=policy, lr=1e-12, augment=NONE)
    expected, found = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "run"))
    for name in ("fc.weight", "fc.bias", "layer1.0.conv1.weight"):
        torch.testing.assert_close(found[name], expected[name], msg=name)


@pytest.mark.parametrize("policy", ["lp-ft", "gradual"])
def test_the_fitted_head_is_kept_where_training_makes_it_worse(
    data: Path, start: Path, tmp_path: Path, policy: str
) -> None:
    run = quick(data, tmp_path / "run", policy=policy, lr=50.0, loop=LoopConfig(warmup_epochs=0.0, clip_norm=10.0))
    meta = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    assert run.val == evaluate(start, data, split="val").metrics
    assert meta["best_epoch"] == 0
    assert evaluate(tmp_path / "run", data, split="val").metrics == run.val


def test_each_phase_is_in_the_audit(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "lp-ft", policy="lp-ft")
    assert [phase["phase"] for phase in run.audit["phases"]] == ["head"]
    assert run.audit["phases"][0]["frozen_tensors"] > 0
    assert run.audit["frozen_tensors"] == 0, "then all trains"
    run = quick(data, tmp_path / "gradual", policy="gradual:2", epochs=5, patience=9)
    phases = run.audit["phases"]
    assert [phase["phase"] for phase in phases] == ["head", "epochs 1 to 2", "epochs 3 to 4"]
    frozen = [phase["frozen_tensors"] for phase in phases] + [run.audit["frozen_tensors"]]
    assert frozen == sorted(frozen, reverse=True)
    assert len(set(frozen)) == 4
    assert all(phase["ok"] for phase in phases)


@pytest.mark.parametrize("policy", ["lp-ft", "gradual"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(data: Path, tmp_path: Path, policy: str) -> None:
    for name in ("a", "b"):
        quick(data, tmp_path / name, policy=policy, epochs=3)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_model_whose_head_is_no_linear_layer_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--policy lp-ft: fits the head first"):
        quick(data, tmp_path / "run", policy="lp-ft", model="deit_tiny_distilled_patch16_224")


def test_gradual_is_sgd_with_momentum_over_a_growing_set_written_out(
    data: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Velocities of what trained before are kept, new groups start at rest, and frozen statistics stay."""
    monkeypatch.setattr("tl_kit.training.loop.better", lambda *_: True)  # the last epoch is what is saved
    loop = LoopConfig(warmup_epochs=0.0, clip_norm=0.0, weight_decay=0.0)
    options = {
        "augment": NONE,
        "loop": loop,
        "lr": 0.01,
        "schedule": "constant",
        "optimizer": "momentum",
    }
    quick(data, tmp_path / "run", policy="gradual", epochs=3, **options)
    found = load_file(tmp_path / "run" / "model.safetensors")
    expected = _by_hand(data, start, epochs=3, lr=0.01)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-2, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def _by_hand(data: Path, start: Path, *, epochs: int, lr: float) -> dict[str, Tensor]:
    model = timm.create_model(f"local-dir:{start}", pretrained=True)
    images, labels = _training_images(data, model)
    order = forward_order(model, images[:2])
    velocity: dict[str, Tensor] = {}
    for epoch in range(epochs):
        names = gradual(Layers(model, frozenset({"fc.weight", "fc.bias"})), epoch=epoch, depth=1)
        apply_policy(model, names)
        set_train_mode(model, order)
        for indices in even_batches(len(labels), 8, seed=0, epoch=epoch):
            model.zero_grad()
            chosen = torch.from_numpy(np.asarray(indices))
            functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name in names:
                        assert parameter.grad is not None
                        velocity[name] = 0.9 * velocity.get(name, torch.zeros_like(parameter)) + parameter.grad
                        parameter -= lr * velocity[name]
    return dict(model.state_dict())


def test_the_start_of_training_does_not_depend_on_the_features_mean(data: Path, tmp_path: Path) -> None:
    """Outputs at the mean are the fitted head's; the part of the features along the mean changes nothing."""
    config = quick_config(data, tmp_path / "run", policy="lp-ft")
    run = prepare(config, SILENT, manifest=scan(data), dry=True)
    fit_head_first(run)
    started = linear_tensors(run.model)
    head, reuse = head_run(run, config=replace(config.head, strengths=(HeadConfig.start_strength,)))
    assert reuse is not None
    set_fitted_head(head, reuse)
    fitted = linear_tensors(run.model)
    mean = reuse.rows(run.manifest.split("train")).float().mean(dim=0)
    names = {name.rpartition(".")[2]: name for name in started}
    weight, bias = (started[names[kind]] for kind in ("weight", "bias"))
    torch.testing.assert_close(weight @ mean, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(bias, fitted[names["weight"]] @ mean + fitted[names["bias"]], atol=1e-6, rtol=1e-5)
    across = torch.linalg.qr(torch.stack([mean, *torch.randn(2, len(mean))]).T)[0][:, 1:]  # at right angles to the mean
    torch.testing.assert_close(weight @ across, fitted[names["weight"]] @ across, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("bias", "mean"), [(False, torch.ones(4)), (True, torch.zeros(4))])
def test_without_a_bias_or_a_mean_the_head_is_as_it_was_fitted(bias: bool, mean: Tensor) -> None:
    layer = nn.Linear(4, 2, bias=bias)
    before = layer.weight.clone()
    remove_mean(layer, mean)
    assert torch.equal(layer.weight, before)
