"""Rules of the learning rate, by table: its scale, layers, warm-up and the new head."""

from __future__ import annotations

import pytest

from tests.optimization.rule_cases import DEFAULTS, LOOP, case
from tl_kit.config import LoopConfig
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.network_traits import NetworkTraits
from tl_kit.optimization.rate_rules import head_factor, layer_decay, rate, rate_scale, warmup


@pytest.mark.parametrize(
    ("known", "name", "kept", "clips", "expected"),
    [
        (case(), "momentum", "train", True, 0.3),
        (case(), "momentum", "frozen", True, 0.2),
        (case(bare=6), "momentum", "train", True, 0.2),
        (case(), "momentum", "train", False, 0.1),
        (case("last"), "momentum", "train", True, 0.3),
        (case("last"), "momentum", "train", False, 0.1),
        (case("last"), "adamw", "train", True, 1.0),
        (case("last", bare=6), "adamw", "train", True, 0.1),
        (case(), "adamw", "train", True, 1.0),
        (case(), "lion", "frozen", True, 0.3),
        (case(bare=6), "adamw", "train", True, 0.1),
        (case(bare=6), "adagrad", "train", True, 0.1),
        (case("head"), "momentum", "train", True, 1.0),
        (case("lora"), "adamw", "frozen", True, DEFAULTS.adapter_scale),
        (case("lora", bare=10), "adamw", "frozen", True, DEFAULTS.adapter_scale),
        (case("bias", decayed=0), "adamw", "frozen", True, DEFAULTS.vector_scale),
        (case("bias", pretrained=False), "adamw", "train", True, 1.0),
        (case(pretrained=False), "momentum", "train", True, 1.0),
        (case(pretrained=False), "adamw", "train", True, 1.0),
    ],
)
def test_rate_by_table(known: Case, name: str, kept: str, clips: bool, expected: float) -> None:
    scale, why = rate_scale(known, name, statistics=kept, clips=clips)
    assert scale == pytest.approx(expected)
    usual = DEFAULTS.learning_rates[name]
    found = rate(known, name, None, statistics=kept, clips=clips)
    assert found == Reasoned(usual * scale, f"{usual:g} from scratch, times {expected:g} {why}")
    assert rate(known, name, "auto", statistics=kept, clips=clips) == Reasoned(found.value, AS_GIVEN)
    assert rate(known, name, 0.7, statistics=kept, clips=clips) == Reasoned(0.7, AS_GIVEN)


@pytest.mark.parametrize(
    ("name", "parameters", "expected", "layers"),
    [
        ("vit_small_patch16_224.augreg_in21k", 22, 1e-4, 0.9),
        ("convnext_tiny.in12k", 28, 1e-4, 0.9),
        ("swin_large_patch4_window7_224.ms_in22k", 197, 5e-5, 0.9),
        ("vit_small_patch14_dinov2.lvd142m", 22, 1e-5, 0.9),
        ("vit_giant_patch14_dinov2.lvd142m", 1136, 2e-6, 0.9),
        ("vit_base_patch16_siglip_224.v2_webli", 93, 1e-5, 0.9),
        ("vit_base_patch16_clip_224.openai", 86, 1e-5, 0.9),
        ("vit_base_patch16_224.mae", 86, 1e-4, 0.75),
        ("beit_base_patch16_224.in22k_ft_in22k", 86, 1e-4, 0.75),
        ("eva02_tiny_patch14_224.mim_in22k", 6, 5e-5, 0.75),
        ("", 0, 1e-4, 0.9),
    ],
)
def test_rate_and_layer_decay_by_family_and_size(name: str, parameters: int, expected: float, layers: float) -> None:
    network = NetworkTraits(
        decayed=9, batch_free=0, always_free=1, batchnorms=0, name=name, parameters=parameters * 10**6
    )
    known = case(network=network)
    assert rate(known, "adamw", None, statistics="train", clips=True).value == pytest.approx(expected)
    assert rate(known, "adagrad", None, statistics="train", clips=True).value == pytest.approx(10 * expected)
    assert layer_decay(known, None).value == layers
    assert layer_decay(known, 0.5) == Reasoned(0.5, AS_GIVEN)


@pytest.mark.parametrize(
    "known",
    [case(), case("head", bare=6), case(bare=6, pretrained=False), case("lora", bare=6)],
    ids=["normed", "head", "scratch", "adapters"],
)
def test_one_rate_for_all_layers(known: Case) -> None:
    assert layer_decay(known, None).value is None


def test_the_warmup_is_a_share_of_the_run_where_batchnorm_does_not_follow() -> None:
    assert warmup(case(), 20, "cosine", LOOP) == Reasoned(0.5, "the usual one")
    assert warmup(case(bare=6), 20, "cosine", LOOP) == Reasoned(2.0, "10% of the run")
    assert warmup(case(bare=6), 1, "cosine", LOOP).value == 0.5
    assert warmup(case(bare=6), 20, "onecycle", LOOP) == Reasoned(0.5, "onecycle has its own")
    for name in ("cosine", "onecycle"):
        assert warmup(case(bare=6), 20, name, LoopConfig(warmup_epochs=3)) == Reasoned(3, AS_GIVEN)


def test_a_new_head_learns_at_the_rate_from_scratch_where_the_layers_below_hardly_move() -> None:
    assert head_factor(case("full", bare=6), "adamw", None) == pytest.approx(10)
    assert head_factor(case("full", bare=6), "lion", None) == pytest.approx(10)
    for known, name, given in (
        (case("full"), "adamw", None),
        (case("full", bare=6, pretrained=False), "adamw", None),
        (case("head", bare=6), "adamw", None),
        (case("lp-ft", bare=6), "adamw", None),
        (case("lora", bare=6), "adamw", None),
        (case("bias", bare=6), "adamw", None),
        (case("full", bare=6), "momentum", None),
        (case("full", bare=6), "adamw", 1e-4),
    ):
        assert head_factor(known, name, given) == 1
