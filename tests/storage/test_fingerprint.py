"""A network's fingerprint: other for whatever changes an output, the same for whatever does not."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tests import children
from tl_kit.storage.fingerprint import network_settings, network_tensors

VIT, RESNET, CONVNEXT = "test_vit", "test_resnet", "test_convnext"


def network(name: str, **options: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, **{"num_classes": 3, **options}).eval()
    return model


def changed(name: str, change: Callable[[nn.Module], object]) -> nn.Module:
    model = network(name)
    change(model)
    return model


def first(model: nn.Module, kind: type[nn.Module]) -> Any:
    return next(module for module in model.modules() if isinstance(module, kind))


def swap_activation(model: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.GELU | nn.ReLU):
                setattr(parent, name, nn.SiLU())
                return


OTHER: dict[str, Callable[[], nn.Module]] = {
    "global_pool of a ResNet": lambda: network(RESNET, global_pool="max"),
    "global_pool of a ViT": lambda: network(VIT, global_pool="avg", fc_norm=False),
    "global_pool set afterwards": lambda: changed(VIT, lambda m: setattr(m, "global_pool", "max")),
    "a stride": lambda: changed(RESNET, lambda m: setattr(first(m, nn.Conv2d), "stride", (1, 1))),
    "a dilation": lambda: changed(RESNET, lambda m: setattr(first(m, nn.Conv2d), "dilation", (2, 2))),
    "an eps of BatchNorm": lambda: changed(RESNET, lambda m: setattr(first(m, nn.BatchNorm2d), "eps", 1e-3)),
    "an eps in the ninth digit": lambda: changed(
        CONVNEXT, lambda m: setattr(first(m, nn.LayerNorm), "eps", 1.00000001e-6)
    ),
    "an activation": lambda: changed(VIT, swap_activation),
    "GELU by its approximation": lambda: changed(VIT, lambda m: setattr(first(m, nn.GELU), "approximate", "tanh")),
    "an activation given as a partial": lambda: changed(
        VIT, lambda m: setattr(m, "extra", partial(torch.clamp, min=0))
    ),
    "the same partial, other numbers": lambda: changed(VIT, lambda m: setattr(m, "extra", partial(torch.clamp, min=1))),
    "a function of one's own": lambda: changed(VIT, lambda m: setattr(m, "extra", lambda x: x + 1)),
    "another of the same name": lambda: changed(VIT, lambda m: setattr(m, "extra", lambda x: x + 2)),
    "heads of attention": lambda: changed(VIT, lambda m: setattr(m.blocks[0].attn, "num_heads", 4)),
    "a scale that is no tensor": lambda: changed(VIT, lambda m: setattr(m.blocks[0].attn, "scale", 0.5)),
    "a tensor that is no buffer": lambda: changed(VIT, lambda m: setattr(m, "offset", torch.ones(3))),
    "the same, other numbers": lambda: changed(VIT, lambda m: setattr(m, "offset", torch.zeros(3))),
    "the depth": lambda: network(VIT, depth=2),
    "another kind": lambda: network(RESNET),
    "the plain one": lambda: network(VIT),
    "the plain ResNet with another pool than its default": lambda: network(RESNET, global_pool="avgmax"),
    "the plain ConvNeXt": lambda: network(CONVNEXT),
}
SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "the same": (VIT, {}),
    "other classes": (VIT, {"num_classes": 7}),
    "dropout": (VIT, {"drop_rate": 0.3}),
    "stochastic depth": (VIT, {"drop_path_rate": 0.2}),
    "dropout of a ResNet": (RESNET, {"drop_rate": 0.3, "drop_path_rate": 0.1}),
}


def head_of(model: nn.Module) -> tuple[str]:
    return ("head" if hasattr(model, "head") else "fc",)


def test_all_that_decides_an_output_gives_another_fingerprint() -> None:
    made = {name: make() for name, make in OTHER.items()}
    found = {name: network_settings(model, without=head_of(model)) for name, model in made.items()}
    assert len(set(found.values())) == len(found), found


@pytest.mark.parametrize("case", SAME)
def test_what_decides_none_does_not(case: str) -> None:
    name, options = SAME[case]
    plain, other = network(name), network(name, **options)
    assert network_settings(plain, without=head_of(plain)) == network_settings(other, without=head_of(other))


@pytest.mark.parametrize("name", [VIT, RESNET, CONVNEXT, "test_efficientnet"])
def test_a_forward_pass_and_training_mode_leave_it_as_it_is(name: str) -> None:
    model = network(name)
    before = network_settings(model)
    model(torch.zeros(2, 3, 160, 160))
    assert network_settings(model.train()) == before


def test_it_is_the_same_in_any_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Texts in a set stand in another order there, and everything lies at other addresses."""
    script = tmp_path / "own.py"
    script.write_text(
        "import timm, torch\n"
        "from tl_kit.storage.fingerprint import network_settings\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.kinds, self.free = {'a', 'b', 'c', 'd'}, object()\n"
        "        self.act = lambda x: x in {'p', 'q', 'r', 's'}\n"
        "print(network_settings(Own()), network_settings(timm.create_model('test_vit')))\n"
    )
    runpy.run_path(str(script), run_name="__main__")
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": str(root)}
    done = children.run([sys.executable, script], env=environment, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout == capsys.readouterr().out


def test_the_code_of_a_class_of_ones_own_counts() -> None:
    def own(factor: int) -> nn.Module:
        space: dict[str, Any] = {"nn": nn, "__name__": "mine"}
        code = "class Own(nn.Module):\n    def forward(self, x):\n        return x * FACTOR\n"
        exec(code.replace("FACTOR", str(factor)), space)
        model: nn.Module = space["Own"]()
        return model

    assert network_settings(own(2)) == network_settings(own(2)) != network_settings(own(3))


class Owner(nn.Module):
    """A weight, buffers that are saved and that are not, a count of batches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.register_buffer("table", torch.ones(3), persistent=False)


@pytest.mark.parametrize("name", ["body.0.weight", "body.1.running_var", "table"])
def test_every_tensor_below_counts(name: str) -> None:
    plain, other = Owner(), Owner()
    other.load_state_dict(plain.state_dict())
    assert network_tensors(plain, without=["head"]) == network_tensors(other, without=["head"])
    tensors: dict[str, Tensor] = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    with torch.no_grad():
        tensors["head.weight"].add_(1)
        tensors["body.1.num_batches_tracked"].add_(1)
    assert network_tensors(plain, without=["head"]) == network_tensors(other, without=["head"])
    with torch.no_grad():
        tensors[name].view(-1)[0] += 1
    assert network_tensors(plain, without=["head"]) != network_tensors(other, without=["head"])
