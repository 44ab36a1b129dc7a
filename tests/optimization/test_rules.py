"""The rule of the optimizer, and all rules together: each a pure function that gives a value and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.optimization.rule_cases import LOOP, case
from tl_kit.config import FinetuneConfig, LoopConfig, RegularizationConfig
from tl_kit.errors import ConfigError
from tl_kit.freezing.policies import parse_policy
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.rules import hyperparameters, optimizer


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
