"""Low-rank adapters: merged, the model is what its adapted twin was; and what they may be put on."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tl_kit.freezing.adapters import Adapters, adaptable_layers
from tl_kit.freezing.train_mode import set_train_mode

MODELS = ("test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet")


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    return model, torch.randn(2, *model.pretrained_cfg["input_size"])


def adapted(model: nn.Module, *, rank: int = 4) -> Adapters:
    """With adapters that do something."""
    found = Adapters(model, adaptable_layers(model, rank=rank), rank=rank, alpha=2)
    found.module.eval()
    for layer in found.layers:
        for _, parameter in found.parameters_of(layer):
            nn.init.normal_(parameter, std=0.05)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_merged_the_model_is_what_the_twin_was_under_its_own_names(name: str) -> None:
    model, images = built(name)
    names, before = list(model.state_dict()), {n: t.clone() for n, t in model.state_dict().items()}
    with torch.inference_mode():
        start = model(images)
        untrained = Adapters(model, adaptable_layers(model, rank=4), rank=4, alpha=2)
        untrained.module.eval()
        assert torch.equal(untrained.module(images), start), "they begin with nothing"
    found = adapted(model)
    with torch.inference_mode():
        expected = found.module(images)
        assert torch.equal(model(images), start), "the model itself is as it was until they are merged"
        found.merge()
        merged = model(images)
    assert (expected - start).abs().max() > 1e-4 * start.abs().max()
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert list(model.state_dict()) == names
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {f"{layer}.weight" for layer in found.layers}
    found.merge()
    with torch.inference_mode():
        assert torch.equal(model(images), merged), "merging twice adds nothing twice"


def test_it_is_the_sum_that_peft_itself_makes() -> None:
    model, images = built("test_vit")
    names = adaptable_layers(model, rank=3)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=names, lora_dropout=0.0)
    torch.manual_seed(7)
    reference = get_peft_model(copy.deepcopy(model), config)
    torch.manual_seed(7)
    found = Adapters(model, names, rank=3, alpha=2)
    theirs = {n: p for n, p in reference.named_parameters() if "lora_" in n}
    ours = found.state()
    assert len(theirs) == len(ours)
    for name, tensor in ours.items():
        assert torch.equal(theirs[f"base_model.model.{name}"], tensor)
        nn.init.constant_(tensor, 0.01)
        nn.init.constant_(theirs[f"base_model.model.{name}"], 0.01)
    found.merge()
    whole = reference.merge_and_unload().eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(images), whole(images))


def test_a_change_has_no_more_than_their_rank() -> None:
    model, _ = built("test_vit")
    before = model.get_submodule("blocks.0.attn.qkv").weight.detach().clone()
    adapted(model, rank=2).merge()
    change = model.get_submodule("blocks.0.attn.qkv").weight.detach() - before
    assert torch.linalg.matrix_rank(change, tol=1e-5) == 2


def test_layers_are_those_whose_adapters_are_smaller_and_merge_exactly() -> None:
    model = nn.Sequential(
        nn.Linear(8, 8),  # 2 · 16 = 32 < 64
        nn.Linear(8, 2),  # 2 · 10 = 20 > 16
        nn.Conv2d(4, 4, 3),  # 2 · 40 = 80 < 144
        nn.Conv2d(4, 4, 3, groups=4),
        timm.layers.ScaledStdConv2d(16, 16, 3),  # its weight is standardized before it is used
        nn.BatchNorm2d(4),
    )
    assert adaptable_layers(model, rank=2) == ["0", "2"]


def test_only_adapters_and_what_the_model_trains_have_gradients_and_all_else_is_shared() -> None:
    model, images = built("test_resnet")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    layers = [name for name in adaptable_layers(model, rank=4) if name != "fc"]
    found = Adapters(model, layers, rank=4, alpha=2)
    found.module(images).sum().backward()
    trained = {name for name, p in found.module.named_parameters() if p.grad is not None}
    assert trained == {*found.state(), "fc.weight", "fc.bias"}
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    apart = {n for n, t in found.module.state_dict(keep_vars=True).items() if id(t) not in own}
    assert apart == {*found.state(), *(f"{layer}.base_layer.weight" for layer in layers)}


def test_the_twin_follows_the_models_modes() -> None:
    model, _ = built("test_resnet")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("fc.", "layer4.0.conv1.")))
    found = Adapters(model, ["layer4.0.conv1"], rank=2, alpha=2)
    set_train_mode(model, [name for name, _ in model.named_modules()])
    found.follow_modes()
    assert found.module.training
    assert not found.module.get_submodule("bn1").training
    model.eval()
    found.follow_modes()
    assert not any(found.module.get_submodule(name).training for name, _ in model.named_modules())


def test_a_state_is_taken_back_and_another_is_refused() -> None:
    model, images = built("test_vit")
    found = adapted(model)
    with torch.inference_mode():
        expected = found.module(images)
    state = {name: tensor.detach().clone() for name, tensor in found.state().items()}
    other, _ = built("test_vit")
    again = Adapters(other, found.layers, rank=4, alpha=2)
    again.load_state(state)
    again.module.eval()
    with torch.inference_mode():
        assert torch.equal(again.module(images), expected)
    with pytest.raises(ValueError, match="the names of its adapters are others"):
        again.load_state({})
    wider = Adapters(built("test_vit")[0], found.layers, rank=5, alpha=2)
    with pytest.raises(ValueError, match="of another shape"):
        wider.load_state(state)


def test_an_optimizers_groups_have_the_adapters_at_the_rates_of_their_layers() -> None:
    model, _ = built("test_vit")
    found = Adapters(model, ["blocks.0.mlp.fc1"], rank=2, alpha=2)
    weight, bias = model.get_submodule("blocks.0.mlp.fc1").weight, model.get_submodule("head").bias
    groups = [
        {"params": [weight], "param_names": ["blocks.0.mlp.fc1.weight"], "lr": 0.1, "weight_decay": 0.5},
        {"params": [bias], "param_names": ["head.bias"], "lr": 0.2, "weight_decay": 0.0},
    ]
    one, two = found.in_place_of_weights(groups)
    assert [list(p.shape) for p in one["params"]] == [[2, weight.shape[1]], [weight.shape[0], 2]]
    assert (one["lr"], one["weight_decay"]) == (0.1, 0.5)
    assert two["params"][0] is bias
