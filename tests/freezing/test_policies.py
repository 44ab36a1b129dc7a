"""Which parameters train under which policy, on timm's own groups."""

from __future__ import annotations

import pytest
import timm
from torch import nn

from tl_kit.errors import PolicyError
from tl_kit.freezing.policies import (
    POLICIES,
    Layers,
    Policy,
    head,
    parameter_groups,
    parse_policy,
    trains_head_alone,
)


class Toy(nn.Module):
    """Four layers, each of which is one of timm's groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.a, self.fc = nn.Linear(1, 1), nn.Linear(1, 1)

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return {"stem": "^stem", "blocks": [("^a", (0,)), ("^b", (1,)), ("^fc", (2,))]}


TOY = Layers(Toy(), frozenset({"fc.weight", "fc.bias"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("head", {"fc.weight", "fc.bias"}),
        ("last:1", {"fc.weight", "fc.bias"}),
        ("last:2", {"b.weight", "fc.weight", "fc.bias"}),
        ("last:3", {"a.weight", "a.bias", "b.weight", "fc.weight", "fc.bias"}),
        ("last:99", {"stem.weight", "a.weight", "a.bias", "b.weight", "fc.weight", "fc.bias"}),
        ("full", {"stem.weight", "a.weight", "a.bias", "b.weight", "fc.weight", "fc.bias"}),
        ("lp-ft", {"stem.weight", "a.weight", "a.bias", "b.weight", "fc.weight", "fc.bias"}),
        ("lp-ft:2", {"b.weight", "fc.weight", "fc.bias"}),
        ("gradual:1", {"b.weight", "fc.weight", "fc.bias"}),
        ("bias", {"a.bias", "fc.weight", "fc.bias"}),
    ],
)
def test_policies_by_hand(text: str, expected: set[str]) -> None:
    policy = parse_policy(text)
    assert policy.trainable(TOY) == expected
    assert str(policy) == text


@pytest.mark.parametrize("text", ["head", "last:1", "full", "lp-ft", "lp-ft:2", "gradual", "gradual:3"])
def test_traits_are_what_the_parameters_do(text: str) -> None:
    policy = parse_policy(text)
    first, later = (policy.trainable(TOY, epoch=epoch) for epoch in (0, 99))
    assert policy.head_only is (text == "head")
    assert policy.trains_all is (first == TOY.names)
    assert policy.grows is (first != later)
    assert policy.fits_head_first is policy.name.startswith(("lp-ft", "gradual", "lora", "bias", "norm"))


def test_a_new_policy_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is parsed, named in messages and known by its traits wherever a policy is recorded."""
    monkeypatch.setitem(POLICIES, "ends", Policy(name="ends", trains=head, depth_name="N", depth_meaning="a count"))
    assert str(parse_policy("ends:3")) == "ends:3"
    with pytest.raises(PolicyError, match=r"gradual\[:EPOCHS\], lora\[:R\], bias, norm and ends\[:N\]$"):
        parse_policy("other")
    with pytest.raises(PolicyError, match="ends takes a count, from 1, for example ends:2"):
        parse_policy("ends:x")


@pytest.mark.parametrize(
    ("recorded", "expected"), [("head", True), ("last:1", False), ("of old", False), (None, False)]
)
def test_a_recorded_policy_trains_the_head_alone_or_not(recorded: object, expected: bool) -> None:
    assert trains_head_alone(recorded) is expected


@pytest.mark.parametrize("text", ["last", "last:0", "last:-1", "last:x", "last:²", "head:2", "full:1", "", "fully"])
def test_bad_policies_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^--policy ") as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "resnet18", "test_efficientnet"])
def test_norm_trains_scale_and_shift_of_every_norm(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    heads = frozenset(f"{model.pretrained_cfg['classifier']}.{what}" for what in ("weight", "bias"))
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    norms = [prefix for prefix, module in model.named_modules() if isinstance(module, kinds)]
    expected = {f"{prefix}.{what}" for prefix in norms for what in ("weight", "bias")}
    found = {name for name, _ in model.named_parameters()} & expected
    assert parse_policy("norm").trainable(Layers(model, heads)) == found | heads


@pytest.mark.parametrize("text", ["norm", "lora"])
def test_a_network_without_such_layers_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match=f"^--policy {text}: Toy has no "):
        parse_policy(text).trainable(TOY)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(PolicyError, match="did you mean head"):
        parse_policy("haed")


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "test_vit", "convnext_atto", "mobilenetv3_small_050"]
)
def test_groups_cover_every_parameter_once_and_end_with_the_classifier(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    groups = parameter_groups(model)
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    prefix = model.pretrained_cfg["classifier"]
    assert {n for n in names if n.startswith(f"{prefix}.")} <= set(groups[-1])


def test_resnet_last_two_is_the_last_stage_and_the_classifier() -> None:
    model = timm.create_model("resnet18", num_classes=3)
    trains = parse_policy("last:2").trainable(Layers(model, frozenset({"fc.weight", "fc.bias"})))
    assert {name.split(".")[0] for name in trains} == {"layer4", "fc"}
