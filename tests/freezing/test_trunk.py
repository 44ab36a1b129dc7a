"""Cuts are exact or refused, on many architectures; the tail trains as the whole model would."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.freezing.policies import Layers, parse_policy
from tl_kit.freezing.train_mode import apply_policy, forward_order, set_train_mode
from tl_kit.freezing.trunk import Tail, Trunk, find_cut, prove_cut
from tl_kit.zoo.heads import classifier_names

MODELS = [
    "test_resnet",
    "test_vit",
    "test_efficientnet",
    "test_convnext",
    "test_mambaout",
    "test_nfnet",
    "test_byobnet",
    "resnet18",
    "mobilenetv3_small_050",
    "regnetx_002",
    "densenet121",
]


def prepared(name: str, policy: str) -> tuple[nn.Module, list[str], Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    images = torch.randn(5, *model.pretrained_cfg["input_size"])
    if images.shape[-1] > 96 and not model.pretrained_cfg.get("fixed_input_size"):
        images = images[..., :96, :96].contiguous()
    heads = tuple(f"{n}." for n in classifier_names(model))
    classifier = frozenset(n for n, _ in model.named_parameters() if n.startswith(heads))
    apply_policy(model, parse_policy(policy).trainable(Layers(model, classifier)))
    return model, forward_order(model, images), images


@pytest.mark.parametrize("policy", ["head", "last:1", "last:2", "last:3"])
@pytest.mark.parametrize("name", MODELS)
def test_trunk_then_tail_is_the_model_bit_for_bit(name: str, policy: str) -> None:
    model, order, images = prepared(name, policy)
    cut = find_cut(model, order)
    assert cut is not None
    model.eval()
    tail = prove_cut(model, cut, images)
    assert tail is not None
    with torch.inference_mode():
        captured = Trunk(model, cut)(images)
        assert torch.equal(tail(captured), model(images))
        torch.testing.assert_close(tail(captured[2:4]), model(images[2:4]))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_nothing_frozen_has_no_cut(name: str) -> None:
    model, order, _ = prepared(name, "full")
    assert find_cut(model, order) is None


class Bypassed(nn.Module):
    """What a cut cannot see: a branch around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.fc((x + self.block(x)).mean((2, 3)))
        return out


class Counting(nn.Module):
    """A tail that depends on the batch before the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.block = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[0]
        x = self.block(self.stem(x.mean((2, 3))[:, :1].expand(-1, 4)))
        out: Tensor = self.fc(x.reshape(size, 4))
        return out


@pytest.mark.parametrize("model", [Bypassed(), Counting()])
def test_inexact_cuts_are_refused(model: nn.Module) -> None:
    assert prove_cut(model.eval(), "block", torch.randn(4, 3, 8, 8)) is None
    assert prove_cut(model.eval(), "fc", torch.randn(4, 3, 8, 8)) is not None


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_step_of_the_tail_equals_a_step_of_the_whole_model(name: str) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    after = []
    for reuse in (False, True):
        model, order, images = prepared(name, "last:2")
        cut = find_cut(model, order)
        assert cut is not None
        module: nn.Module = model
        inputs = images
        if reuse:
            model.eval()
            with torch.no_grad():
                inputs = Trunk(model, cut)(images)
            module = Tail(model, cut, image_shape=images.shape[1:], direct=False)
        set_train_mode(model, order)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
        after.append({n: t.clone() for n, t in model.state_dict().items()})
    for tensor, other in zip(after[0].values(), after[1].values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)
