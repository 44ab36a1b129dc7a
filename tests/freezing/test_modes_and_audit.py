"""Frozen means frozen: BatchNorm statistics, dropout below the cut, and an audit that can fail."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from torch import nn

from tl_kit.errors import AuditError
from tl_kit.freezing.audit import frozen_tensors, run_audit, tensor_digest
from tl_kit.freezing.policies import Layers, parse_policy
from tl_kit.freezing.train_mode import (
    _order,
    _order_on_gpu,
    _without_numbers,
    apply_policy,
    forward_order,
    set_train_mode,
)


def frozen_resnet() -> tuple[nn.Module, list[str], torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=3, drop_rate=0.5)
    images = torch.randn(2, 3, 64, 64)
    apply_policy(model, parse_policy("last:2").trainable(Layers(model, frozenset({"fc.weight", "fc.bias"}))))
    return model, forward_order(model, images), images


def test_training_moves_what_the_policy_trains_and_nothing_else() -> None:
    model, order, images = frozen_resnet()
    set_train_mode(model, order)
    before_all = {n: tensor_digest(t) for n, t in model.state_dict().items()}
    before = frozen_tensors(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        set_train_mode(model, order)
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1])).backward()
        optimizer.step()
    audit = run_audit(model, before)
    changed = {n for n, t in model.state_dict().items() if tensor_digest(t) != before_all[n]}
    assert {name.split(".")[0] for name in changed} == {"layer4", "fc"}
    assert any("running_mean" in name for name in changed), "BatchNorm above the cut follows the new data"
    assert audit.ok
    assert audit.frozen_tensors == sum(not n.startswith(("layer4", "fc")) for n in before_all)


def test_dropout_works_above_the_cut_and_not_below() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5))
    order = forward_order(model, torch.zeros(1, 4))
    apply_policy(model, {"2.weight", "2.bias"})
    set_train_mode(model, order)
    assert [model[i].training for i in range(4)] == [False, True, True, True], "what lies directly below is above it"
    apply_policy(model, {"0.weight", "0.bias"})
    set_train_mode(model, order)
    assert [model[i].training for i in range(4)] == [True, True, False, True]


def test_the_audit_fails_when_a_frozen_buffer_moves() -> None:
    model, order, images = frozen_resnet()
    set_train_mode(model, order)
    before = frozen_tensors(model)
    model.train()  # the mistake that the audit is for: BatchNorm statistics of the trunk move
    model(images)
    with pytest.raises(AuditError, match=r"bn1\.running_mean"):
        run_audit(model, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_digests_tell_bits_types_and_shapes_apart(dtype: torch.dtype) -> None:
    x = torch.arange(6).to(dtype)
    assert tensor_digest(x) == tensor_digest(x.clone())
    assert tensor_digest(x) != tensor_digest(x.view(2, 3))
    assert tensor_digest(x) != tensor_digest(x.flip(0))
    assert tensor_digest(torch.tensor(0.0)) != tensor_digest(torch.tensor(-0.0))


def test_forward_order_leaves_the_model_as_it_was() -> None:
    model, _, images = frozen_resnet()
    model.train()
    digests = {n: tensor_digest(t) for n, t in model.state_dict().items()}
    order = forward_order(model, images)
    assert model.training
    assert {n: tensor_digest(t) for n, t in model.state_dict().items()} == digests
    assert order.index("conv1") < order.index("layer1") < order.index("layer4.0.conv1") < order.index("fc")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet"])
def test_the_order_of_modules_is_found_without_numbers_too(name: str) -> None:
    """The way of a GPU: kernels that no later pass needs are not loaded, and the model stays as it is."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    images = torch.zeros(2, 3, 64, 64) if "vit" not in name else torch.zeros(2, 3, 160, 160)
    before = {key: tensor_digest(tensor) for key, tensor in model.state_dict().items()}
    found = _order(model, partial(_without_numbers, model), images.to("meta"))
    assert found == forward_order(model, images)
    assert {key: tensor_digest(tensor) for key, tensor in model.state_dict().items()} == before
    assert model.training, "as it was"


class LooksAtNumbers(nn.Module):
    """A network whose way depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.dark, self.bright = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.bright(images) if float(images.mean()) > 0 else self.dark(images)


def test_a_network_that_looks_at_its_numbers_runs_on_them() -> None:
    images = torch.ones(2, 4)
    assert _order_on_gpu(LooksAtNumbers(), images) == forward_order(LooksAtNumbers(), images) == ["", "bright"]
