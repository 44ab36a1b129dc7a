"""Parameter groups against timm's own, and what is exempt from decay."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import timm.optim
import torch
from torch import nn

from tl_kit.errors import ConfigError, TrainingError
from tl_kit.optimization.optimizers import create_optimizer
from tl_kit.optimization.param_groups import decay_exempt, layer_scales, no_weight_decay, param_groups
from tl_kit.optimization.schedules import multiplier, set_lr

ARCHITECTURES = (
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "efficientnet_lite0",
    "swin_tiny_patch4_window7_224",
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    # On the meta device a model has names and shapes, which is all that grouping looks at, and no weights to fill.
    with torch.device("meta"):
        created: nn.Module = timm.create_model(request.param, num_classes=7)
    return created


def by_parameter(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """name -> (weight decay, lr scale)"""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["weight_decay"], group.get("lr_scale", 1.0))
        for group in groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("layer_decay", [0.65, 1.0])
def test_layer_wise_groups_are_timms(model: nn.Module, layer_decay: float) -> None:
    names = [name for name, _ in model.named_parameters()]
    ours = param_groups(model, weight_decay=0.05, layer_decay=layer_decay, trainable=names, lr=0.3)
    theirs = timm.optim.param_groups_layer_decay(
        model, weight_decay=0.05, layer_decay=layer_decay, no_weight_decay_list=no_weight_decay(model)
    )
    assert by_parameter(model, ours) == by_parameter(model, theirs)
    assert all(group["lr"] == pytest.approx(0.3 * group["lr_scale"]) for group in ours)


def test_decay_groups_are_timms(model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    ours = param_groups(model, weight_decay=0.05, layer_decay=None, trainable=names, lr=0.3)
    theirs = timm.optim.param_groups_weight_decay(model, weight_decay=0.05, no_weight_decay_list=no_weight_decay(model))
    assert by_parameter(model, ours) == by_parameter(model, theirs)
    assert len(ours) == 2


def test_scales_fall_from_the_head_to_the_stem(model: nn.Module) -> None:
    scales = layer_scales(model, layer_decay=0.5)
    names = [name for name, _ in model.named_parameters()]
    assert scales[names[-1]] == 1.0
    assert scales[names[0]] == min(scales.values()) < 0.1


def test_a_model_without_a_matcher_is_grouped_as_timm_does() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20)))
    model.pretrained_cfg = {"classifier": "19"}
    names = [name for name, _ in model.named_parameters()]
    ours = param_groups(model, weight_decay=0.05, layer_decay=0.5, trainable=names, lr=0.3)
    theirs = timm.optim.param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5)
    assert by_parameter(model, ours) == by_parameter(model, theirs)
    assert len({group["lr_scale"] for group in ours}) > 2


def test_only_trainable_parameters_each_once_in_the_models_order(model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    trainable = set(names[-9:])
    groups = param_groups(model, weight_decay=0.05, layer_decay=0.8, trainable=trainable, lr=0.3)
    found = [name for group in groups for name in group["param_names"]]
    assert sorted(found) == sorted(trainable)
    parameters = dict(model.named_parameters())
    for group in groups:
        assert group["param_names"] == [name for name in names if name in group["param_names"]]
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert parameter is parameters[name]


def test_scales_do_not_depend_on_what_is_trainable(model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    everything = param_groups(model, weight_decay=0.05, layer_decay=0.8, trainable=names, lr=0.3)
    part = param_groups(model, weight_decay=0.05, layer_decay=0.8, trainable=names[::2], lr=0.3)
    whole = by_parameter(model, everything)
    assert all(whole[name] == value for name, value in by_parameter(model, part).items())


@pytest.mark.parametrize(
    ("name", "shape", "exempt"),
    [
        ("conv.weight", (4, 3, 3, 3), False),
        ("fc.weight", (5, 4), False),
        ("fc.bias", (5,), True),
        ("relative.bias", (5, 4), True),
        ("bn.weight", (4,), True),
        ("scale", (), True),
        ("pos_embed", (1, 10, 4), True),
        ("blocks.0.table", (10, 4), True),
    ],
)
def test_biases_norms_and_what_the_model_asks_for_are_exempt(name: str, shape: tuple[int, ...], exempt: bool) -> None:
    assert decay_exempt(name, torch.zeros(shape), patterns=("pos_embed", "*.table")) is exempt


def test_an_unknown_name_and_an_empty_choice_are_errors(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'nowhere\.weight'"):
        param_groups(model, weight_decay=0.1, layer_decay=None, trainable={"nowhere.weight"}, lr=0.1)
    with pytest.raises(TrainingError, match="no trainable parameters"):
        param_groups(model, weight_decay=0.1, layer_decay=None, trainable=(), lr=0.1)


@pytest.mark.parametrize("layer_decay", [0.0, -0.5, 1.5, float("nan")])
def test_a_layer_decay_outside_its_range_is_an_error(model: nn.Module, layer_decay: float) -> None:
    with pytest.raises(ConfigError, match="layer decay"):
        layer_scales(model, layer_decay=layer_decay)


def test_layer_wise_rates_hold_under_any_schedule() -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    names = [name for name, _ in model.named_parameters()]
    groups = param_groups(model, weight_decay=0.05, layer_decay=0.5, trainable=names, lr=0.3)
    optimizer = create_optimizer("adamw", groups, lr=0.3)
    assert len({group["lr_scale"] for group in groups}) > 2
    for step in range(20):
        share = multiplier("cosine", step, total_steps=20, warmup_steps=4)
        set_lr(optimizer, share)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.3 * group["lr_scale"] * share, rel=1e-12)


def test_set_lr_notes_the_rate_of_a_foreign_optimizer_once() -> None:
    tensors = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [tensors[0]], "lr": 0.4}, {"params": [tensors[1]]}], lr=0.1)
    for share in (0.5, 0.25, 1.0):
        set_lr(optimizer, share)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4 * share, 0.1 * share])


def test_set_lr_writes_into_a_tensor_rate_in_place() -> None:
    rate = torch.tensor(0.2)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=rate)
    for share in (0.5, 0.25, 1.0):
        set_lr(optimizer, share)
        assert optimizer.param_groups[0]["lr"] is rate
        assert float(rate) == pytest.approx(0.2 * share)
