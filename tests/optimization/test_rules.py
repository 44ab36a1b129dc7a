"""Default hyperparameters, by table: each rule is a pure function that gives a value and says why."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tl_kit.config import (
    AugmentLevels,
    BalanceConfig,
    FinetuneConfig,
    LoopConfig,
    OptimizerDefaults,
    RegularizationConfig,
    SwaConfig,
)
from tl_kit.errors import ConfigError
from tl_kit.freezing.policies import parse_policy
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.network_traits import NetworkTraits
from tl_kit.optimization.optimizers import create_optimizer, default_weight_decay
from tl_kit.optimization.rate_rules import head_factor, layer_decay, rate, rate_scale, warmup
from tl_kit.optimization.rules import (
    augmentation,
    balance,
    bare_decay,
    batch_size,
    carried,
    decay,
    epochs,
    hyperparameters,
    optimizer,
    patience,
    schedule,
    selection,
    statistics,
)

DEFAULTS, LOOP, LEVELS = OptimizerDefaults(), LoopConfig(), AugmentLevels()
TRAITS = ("head_only", "mostly_new", "keeps_statistics", "fits_head_first", "adapters", "vectors")
NONE, LAST, HEAD, LP_FT, LORA, BIAS = (dict.fromkeys(TRAITS, False) for _ in range(6))
LAST["mostly_new"] = HEAD["head_only"] = LORA["adapters"] = BIAS["vectors"] = True
LP_FT["keeps_statistics"] = LP_FT["fits_head_first"] = True
POLICIES = {
    "any": NONE,
    "last": LAST,
    "head": HEAD,
    "full": {**NONE, "keeps_statistics": True},
    "lp-ft": LP_FT,
    "lora": LORA,
    "bias": BIAS,
}


def case(policy: str = "any", *, bare: int = 0, decayed: int = 10, **changes: Any) -> Case:
    """``bare``: the weights that no BatchNorm follows."""
    network = NetworkTraits(decayed=decayed, batch_free=decayed - bare, always_free=0, batchnorms=20)
    traits = SimpleNamespace(**POLICIES[policy])
    return replace(Case(images=1000, classes=10, pretrained=True, network=network, policy=traits), **changes)


def travel(name: str, lr: float, steps: int = 384, options: dict[str, object] | None = None) -> float:
    return lr * carried(name, options or {}) * steps


@pytest.mark.parametrize(
    ("images", "given", "expected"), [(1000, None, 32), (1000, 8, 8), (20, None, 20), (20, 64, 20), (1, None, 1)]
)
def test_a_batch_holds_no_more_than_all_images(images: int, given: int | None, expected: int) -> None:
    assert batch_size(case(images=images), given, LOOP) == Reasoned(
        expected, f"{math.ceil(images / expected)} steps for {images} images"
    )


@pytest.mark.parametrize(
    ("known", "given", "expected", "reason"),
    [
        (case(), 7, 7, AS_GIVEN),
        (case("head"), None, 100, "100 where the head alone trains"),
        (case(), None, 12, "12, which are 200 steps or more"),
        (case(images=330), None, 19, "11 steps an epoch: more than 12, for 200 steps"),
        (case(images=30), None, 30, "at most 30: 200 steps would be more"),
        (case(images=30, pretrained=False), None, 60, "at most 60: 1000 steps would be more"),
        (case(images=3000, pretrained=False), None, 12, "12, which are 1000 steps or more"),
        (case(images=1000, pretrained=False), None, 32, "32 steps an epoch: more than 12, for 1000 steps"),
    ],
)
def test_epochs_by_table(known: Case, given: int | None, expected: int, reason: str) -> None:
    assert epochs(known, 32, given, LOOP) == Reasoned(expected, reason)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("images", [1, 32, 33, 500, 1_000, 3_000, 100_000])
def test_epochs_are_the_fewest_that_make_the_steps(images: int, pretrained: bool) -> None:
    least, most = (LOOP.least_steps, LOOP.most_epochs) if pretrained else (LOOP.scratch_steps, LOOP.scratch_most_epochs)
    found, steps = epochs(case(images=images, pretrained=pretrained), 32, None, LOOP).value, math.ceil(images / 32)
    assert LOOP.epochs <= found <= most
    assert found * steps >= least or found == most
    assert (found - 1) * steps < least or found == LOOP.epochs


DECAYS = "the usual one: a rate that decays does its best work at the end"


@pytest.mark.parametrize(
    ("given", "loop", "cycles", "swa", "expected", "reason"),
    [
        (None, LOOP, None, None, "cosine", DECAYS),
        (None, LoopConfig(schedule="wsd"), None, None, "wsd", AS_GIVEN),
        ("linear", LoopConfig(schedule="wsd"), None, SwaConfig(), "linear", AS_GIVEN),
        ("cyclic", LOOP, 3, None, "cyclic", AS_GIVEN),
        (None, LOOP, 3, None, "cyclic", "a snapshot at the end of each cycle"),
        (None, LoopConfig(schedule="wsd"), 1, SwaConfig(), "cyclic", "a snapshot at the end of each cycle"),
        (None, LOOP, None, SwaConfig(), "constant", "the usual one where weights are averaged"),
        (None, LOOP, None, SwaConfig(schedule="linear"), "linear", "the usual one where weights are averaged"),
    ],
)
def test_schedule_by_table(
    given: str | None, loop: LoopConfig, cycles: int | None, swa: SwaConfig | None, expected: str, reason: str
) -> None:
    assert schedule(given, loop, cycles=cycles, swa=swa) == Reasoned(expected, reason)


END = "all epochs: a run under {} does its best work at the end"
LONG = "the rate of {} has no end of its own: 5 of 12 epochs, and 5 at least"


@pytest.mark.parametrize(
    ("length", "name", "given", "loop", "averages", "expected", "reason"),
    [
        (20, "cosine", 3, LOOP, True, 3, AS_GIVEN),
        (20, "cosine", None, LOOP, False, 20, END.format("cosine")),
        (20, "cosine", None, LOOP, True, 20, "all epochs: the weights of the later ones are averaged"),
        (20, "constant", None, LOOP, True, 20, "all epochs: the weights of the later ones are averaged"),
        (1, "constant", None, LOOP, False, 5, LONG.format("constant")),
        (12, "constant", None, LOOP, False, 5, LONG.format("constant")),
        (13, "plateau", None, LOOP, False, 6, LONG.format("plateau")),
        (24, "plateau", None, LOOP, False, 10, LONG.format("plateau")),
        (100, "constant", None, LOOP, False, 42, LONG.format("constant")),
        (
            20,
            "constant",
            None,
            LoopConfig(stops_early=()),
            False,
            20,
            END.format("constant"),
        ),
        (9, "linear", None, LoopConfig(stops_early=("linear",), patience=2, epochs=3), False, 6, None),
    ],
)
def test_patience_by_table(
    length: int, name: str, given: int | None, loop: LoopConfig, averages: bool, expected: int, reason: str | None
) -> None:
    found = patience(length, name, given, loop, averages=averages)
    assert found.value == expected
    assert found.reason == (reason or "the rate of linear has no end of its own: 2 of 3 epochs, and 2 at least")


@pytest.mark.parametrize(
    ("counts", "method", "figure"),
    [
        ((10,), "none", "accuracy"),
        ((10, 10), "none", "accuracy"),
        ((10, 29), "none", "accuracy"),
        ((10, 30), "loss", "balanced_accuracy"),
        ((90, 5, 40), "loss", "balanced_accuracy"),
    ],
)
def test_the_images_decide_on_a_balance_from_three_times_as_many_on(
    counts: tuple[int, ...], method: str, figure: str
) -> None:
    spread = (
        f"{min(counts)} to {max(counts)} training images a class, {max(counts) / min(counts):.3g} times as many in the "
        "largest"
    )
    because = {
        "none": f"{spread} (below 3): every image counts the same",
        "loss": f"{spread} (from 3): every class counts the same",
        "accuracy": "the largest class has less than 3 times the images of the smallest",
        "balanced_accuracy": "every class counts the same: the largest has 3 times the images of the smallest, or more",
    }
    assert balance(counts, "auto", BalanceConfig()) == Reasoned(method, because[method])
    assert selection(counts, "auto", BalanceConfig()) == Reasoned(figure, because[figure])


def test_a_balance_that_is_given_is_taken_and_the_threshold_moves() -> None:
    usual, higher = BalanceConfig(), BalanceConfig(uneven_from=4.0)
    for counts in ((1, 100), (5, 5)):
        assert balance(counts, "sampler", usual) == Reasoned("sampler", AS_GIVEN)
        assert balance(counts, "none", usual) == Reasoned("none", AS_GIVEN)
        assert selection(counts, "macro-f1", usual) == Reasoned("macro_f1", AS_GIVEN)
    assert (balance((10, 39), "auto", higher).value, selection((10, 39), "auto", higher).value) == ("none", "accuracy")
    assert balance((10, 40), "auto", higher).value == "loss"


@pytest.mark.parametrize(
    ("per_class", "head_only", "expected"),
    [(19.9, False, "light"), (20, False, "standard"), (1, True, "none"), (500, True, "none")],
)
def test_augmentation_by_table(per_class: float, head_only: bool, expected: str) -> None:
    found = augmentation(per_class, LEVELS, head_only=head_only)
    assert found.value == expected
    assert found.reason == (
        "the head is fitted to images as evaluation sees them"
        if head_only
        else f"{per_class:.0f} images a class: light below {LEVELS.light_below_per_class}"
    )


@pytest.mark.parametrize(
    ("known", "given", "expected", "reason"),
    [
        (case("full", images=299), "auto", "frozen", "the pretrained statistics stay: 299 training images, below 300"),
        (case("full", images=300), "auto", "train", "each batch's own: 300 training images, from 300 on"),
        (case("full", images=9), "train", "train", AS_GIVEN),
        (case(images=9), "frozen", "frozen", AS_GIVEN),
        (case(images=9), "auto", "train", "each batch's own statistics, in the layers that train"),
        (
            case("full", images=9, pretrained=False),
            "auto",
            "train",
            "each batch's own statistics, in the layers that train",
        ),
    ],
)
def test_statistics_by_table(known: Case, given: str, expected: str, reason: str) -> None:
    assert statistics(known, given, LOOP) == Reasoned(expected, reason)


@pytest.mark.parametrize(
    ("known", "given", "loop", "expected", "reason"),
    [
        (case(bare=0), None, LOOP, "momentum", "BatchNorm follows 10 of 10 trained weight tensors: at least half"),
        (case(bare=5), None, LOOP, "momentum", "BatchNorm follows 5 of 10 trained weight tensors: at least half"),
        (case(bare=6), None, LOOP, "adamw", "BatchNorm follows 4 of 10 trained weight tensors: less than half"),
        (case(bare=6), "sgd", LOOP, "sgd", f"{AS_GIVEN}; BatchNorm follows 4 of 10 trained weight tensors"),
        (
            case(bare=6),
            "adagrad",
            LOOP,
            "adagrad",
            f"{AS_GIVEN}; BatchNorm follows 4 of 10 trained weight tensors; on few photos 5.7 points behind the best "
            "(docs/policies.md)",
        ),
        (
            case(bare=6),
            None,
            LoopConfig(optimizer="lion"),
            "lion",
            f"{AS_GIVEN}; BatchNorm follows 4 of 10 trained weight tensors",
        ),
        (case("head", decayed=0), None, LOOP, "adamw", "for a head alone"),
        (case("head", decayed=0), None, LoopConfig(gradient_head_optimizer="lion"), "lion", "for a head alone"),
        (case("head", decayed=0), "momentum", LOOP, "momentum", AS_GIVEN),
        (case("lora"), None, LOOP, "adamw", "adapters or vectors alone train, which differ in size"),
        (case("bias", decayed=0), None, LOOP, "adamw", "adapters or vectors alone train, which differ in size"),
    ],
)
def test_optimizer_by_table(known: Case, given: str | None, loop: LoopConfig, expected: str, reason: str) -> None:
    assert optimizer(known, given, loop) == Reasoned(expected, reason)


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
    ("known", "name", "kept", "expected", "reason"),
    [
        (case(), "momentum", "train", 0.05, "the usual one of momentum"),
        (case(), "momentum", "frozen", 0.005, "at most 0.005 of weights that no norm follows"),
        (case(), "adamw", "frozen", 0.05, "the usual one of adamw"),
        (case(), "adam", "train", 2e-5, "the usual one of adam"),
        (case(pretrained=False), "momentum", "train", 0.005, "at most 0.005 from random weights"),
        (case("head", decayed=0, pretrained=False), "momentum", "train", 0.05, "the usual one of momentum"),
        (case("head", decayed=0), "momentum", "frozen", 0.05, "the usual one of momentum"),
        (case(bare=6), "momentum", "train", 0.005, "at most 0.005 of weights that no norm follows"),
        (case(bare=6, pretrained=False), "momentum", "train", 0.005, "at most 0.005 from random weights"),
        (case(bare=6), "adamw", "train", 0.05, "the usual one of adamw"),
    ],
)
def test_decay_by_table(known: Case, name: str, kept: str, expected: float, reason: str) -> None:
    assert decay(known, name, statistics=kept, travel=1.0) == Reasoned(expected, reason)
    assert decay(known, name, 0.3, statistics=kept, travel=1.0) == Reasoned(0.3, AS_GIVEN)


def test_a_long_way_limits_the_decay_of_bare_weights() -> None:
    found = decay(case(bare=6), "momentum", statistics="train", travel=1000.0)
    assert found == Reasoned(0.25 / 1000, "so that the run leaves 78% or more of weights that no norm follows")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("momentum", {}, 10),
        ("nesterov", {"momentum": 0.5}, 2),
        ("sgd", {"momentum": 0.9}, 1),
        ("adamw", {}, 1),
        ("momentum", {"momentum": 1.5}, 1),
    ],
)
def test_momentum_carries_the_decay(name: str, options: dict[str, object], expected: float) -> None:
    assert carried(name, options) == pytest.approx(expected)


def test_all_rules_together_follow_from_case_and_configuration() -> None:
    """The rate that a range test may find counts for the decay; only what the user gave is taken as it is."""
    config = FinetuneConfig(model="m", data=Path("imgs"))
    found = hyperparameters(case("full", bare=4, images=2000), config)
    assert (found.batch_size.value, found.epochs.value, found.statistics.value) == (32, 12, "train")
    assert (found.optimizer.value, found.rate.value, found.decay.value) == ("momentum", 0.1 * 0.3, 0.05)
    assert found.augmentation.value == "standard"
    assert found.bare_decay is not None
    assert found.bare_decay.value == pytest.approx(0.25 / (0.03 * 10 * 12 * 63))
    tested = hyperparameters(case("full", bare=4, images=2000), replace(config, lr="auto"))
    assert tested.bare_decay is not None
    assert tested.bare_decay.value == pytest.approx(found.bare_decay.value / config.range_test.highest)
    said = replace(config, lr=0.5, epochs=3, batch_size=4, optimizer="adamw", batchnorm="train")
    said = replace(said, loop=LoopConfig(weight_decay=0.2), optimizer_options=("eps=1e-6",))
    given = hyperparameters(case("full", bare=4), said)
    assert (given.rate.value, given.epochs.value, given.batch_size.value) == (0.5, 3, 4)
    assert (given.decay.value, given.bare_decay, given.options) == (0.2, None, {"eps": 1e-6})
    assert (given.layer_decay.value, given.warmup.value) == (None, LOOP.warmup_epochs)
    assert (found.schedule.value, found.patience.value, given.patience.value) == ("cosine", 12, 3)
    constant = hyperparameters(case("full"), replace(said, schedule="constant", patience=2))
    assert (constant.schedule, constant.patience) == (Reasoned("constant", AS_GIVEN), Reasoned(2, AS_GIVEN))
    snapshots = hyperparameters(case(bare=6), replace(config, snapshots=2, epochs=20))
    assert (snapshots.schedule.value, snapshots.patience.value, snapshots.warmup.value) == ("cyclic", 20, 2)
    averaged = hyperparameters(case(), replace(config, regularization=RegularizationConfig(swa=True)))
    assert (averaged.schedule.value, averaged.patience.value) == ("constant", 12)
    assert given.rate.reason == given.epochs.reason == given.decay.reason == given.statistics.reason == AS_GIVEN
    with pytest.raises(ConfigError, match="adamww"):
        hyperparameters(case(), replace(config, optimizer="adamww"))


@pytest.mark.parametrize("text", ["head", "last:2", "full", "lp-ft"])
def test_a_policy_has_the_traits_that_the_rules_read(text: str) -> None:
    """The same as of the tables' stand-ins."""
    policy, config = parse_policy(text), FinetuneConfig(model="m", data=Path("imgs"))
    stand_in = case(text.partition(":")[0], images=200)
    assert hyperparameters(replace(stand_in, policy=policy), config) == hyperparameters(stand_in, config)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("policy", ["any", "last"])
@pytest.mark.parametrize("steps", [20, 384, 100_000])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("momentum", {}),
        ("momentum", {"momentum": 0.99}),
        ("sgd", {}),
        ("nesterov", {}),
        ("sgdw", {}),
        ("adamw", {}),
        ("lion", {}),
        ("muon", {}),
    ],
)
def test_no_default_decay_takes_much_of_bare_weights(
    name: str, options: dict[str, object], steps: int, policy: str, pretrained: bool
) -> None:
    """Under a constant rate, which is the most that a schedule can be: what is left of weights without a gradient."""
    known = case(policy, bare=10, pretrained=pretrained)
    lr = rate(known, name, None, statistics="train", clips=True).value
    found = decay(known, name, statistics="train", travel=travel(name, lr, steps, options)).value
    assert found > 0
    assert math.exp(-0.26) < left_over(name, lr, found, steps=min(steps, 400), all_steps=steps, options=options) <= 1


def left_over(
    name: str, lr: float, weight_decay: float, *, steps: int, all_steps: int, options: dict[str, object]
) -> float:
    """Of a weight of 1 after so many steps without a gradient; fewer, at a higher decay, stand for all."""
    weight = nn.Parameter(torch.ones(1, 1))
    descent = create_optimizer(name, [weight], lr=lr, weight_decay=weight_decay * all_steps / steps, options=options)
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        descent.step()
    return float(weight.detach())


def test_mixed_networks_decay_their_bare_weights_gently() -> None:
    known, way = case(bare=4), travel("momentum", 0.03)
    usual = decay(known, "momentum", statistics="train", travel=way)
    assert usual.value == default_weight_decay("momentum") == 0.05
    found = bare_decay(known, "momentum", usual=usual, travel=way)
    assert found.value == pytest.approx(0.25 / (0.03 * 10 * 384))


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
