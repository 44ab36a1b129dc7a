"""Which parameters train under which policy, on timm's own groups."""

from __future__ import annotations

import pytest
import timm

from tl_kit.errors import PolicyError
from tl_kit.freezing.policies import Policy, parameter_groups, parse_policy

GROUPS = [["stem.w"], ["a.w", "a.b"], ["b.w"], ["fc.w", "fc.b"]]
HEAD = ["fc.w", "fc.b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("head", {"fc.w", "fc.b"}),
        ("last:1", {"fc.w", "fc.b"}),
        ("last:2", {"b.w", "fc.w", "fc.b"}),
        ("last:3", {"a.w", "a.b", "b.w", "fc.w", "fc.b"}),
        ("last:99", {"stem.w", "a.w", "a.b", "b.w", "fc.w", "fc.b"}),
        ("full", {"stem.w", "a.w", "a.b", "b.w", "fc.w", "fc.b"}),
    ],
)
def test_policies_by_hand(text: str, expected: set[str]) -> None:
    policy = parse_policy(text)
    assert policy.trainable(GROUPS, HEAD) == expected
    assert str(policy) == text


@pytest.mark.parametrize("text", ["last", "last:0", "last:-1", "last:x", "last:²", "head:2", "full:1", "", "fully"])
def test_bad_policies_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^--policy ") as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


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
    trains = Policy("last", 2).trainable(parameter_groups(model), ["fc.weight", "fc.bias"])
    assert {name.split(".")[0] for name in trains} == {"layer4", "fc"}
