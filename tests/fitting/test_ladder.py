"""The ladder: which step follows from what the steps before it have reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tl_kit.config import FinetuneConfig, LadderConfig
from tl_kit.fitting.candidates import Candidate
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Attempt, Step, next_step
from tl_kit.fitting.prices import last_layers
from tl_kit.freezing.auto import choose_policy
from tl_kit.freezing.facts import Facts
from tl_kit.zoo.forward_cost import ForwardCost

CONFIG = LadderConfig()
IMAGES = 40


def networks(*names: str) -> list[Candidate]:
    return [Candidate(name, ForwardCost(1e9 * (i + 1), 1000, 224), "mit", "a test") for i, name in enumerate(names)]


def spread(mean: float, seed: int = 0) -> np.ndarray:
    """Losses of images around a mean."""
    noise = np.random.default_rng(seed).normal(0, 0.05, IMAGES)
    return mean + noise - noise.mean()


def finished(step: Step, nll: float, *, together: float | None = None, kept: str = "trained") -> Attempt:
    return Attempt(
        step=step,
        status="finished",
        losses=spread(nll),
        together=spread(nll if together is None else together),
        crop_mode=step.crop_mode or "center",
        kept=kept if step.trains else None,
    )


def climb(
    nll: Callable[[Step], float | Attempt],
    names: Sequence[str] = ("small", "middle", "large"),
    *,
    views: Sequence[str] = (),
    early: bool = False,
    config: LadderConfig = CONFIG,
) -> tuple[list[Step], str]:
    """All steps, each with the NLL that ``nll`` says, and the last word."""
    done: list[Attempt] = []
    while True:
        step = next_step(done, networks(*names), views=views, early=early, seed=0, config=config)
        if isinstance(step, str):
            return [attempt.step for attempt in done], step
        found = nll(step)
        done.append(found if isinstance(found, Attempt) else finished(step, found))
        assert len(done) < 100


def test_heads_of_all_networks_come_first_and_the_first_chooses_the_crop() -> None:
    steps, _ = climb(lambda step: 0.5)
    heads = steps[:3]
    assert [(step.rung, step.model) for step in heads] == [("head", n) for n in ("small", "middle", "large")]
    assert [step.crop_mode for step in heads] == [None, "center", "center"]
    assert "head" not in [step.rung for step in steps[3:]]


def test_the_best_heads_network_sees_the_other_crop() -> None:
    nll = {"small": 0.5, "middle": 0.3, "large": 0.4}
    steps, _ = climb(lambda step: nll[step.model], views=("center", "squash"))
    assert steps[3] == Step("view", "middle", 0, "squash")
    assert [step.rung for step in steps[4:7]] == ["short", "short", "full"]


@pytest.mark.parametrize("rung", ["short", "full", "member"])
def test_the_other_networks_see_the_other_crop_last_of_all(rung: str) -> None:
    """Whatever ends the training: it did not help, or there is no time for it."""

    def outcome(step: Step) -> Attempt:
        if step.rung == rung == "member":
            return Attempt(step=step, status="no time")
        nll = {"small": 0.5, "middle": 0.3, "large": 0.4}[step.model]
        return finished(step, nll, kept="head" if step.rung == rung else "trained")

    steps, last = climb(outcome, views=("center", "squash"))
    assert steps[-2:] == [Step("view", "large", 0, "squash"), Step("view", "small", 0, "squash")]
    assert steps[-3].rung == rung
    assert ("there is no time for a further member" if rung == "member" else "did not help") in last
    few, _ = climb(outcome, views=("center", "squash"), config=replace(CONFIG, most_views=2))
    assert few == steps[:-1]
    assert climb(outcome)[0] == [step for step in steps if step.rung != "view"]


def test_a_view_without_time_is_not_proposed_again() -> None:
    def outcome(step: Step) -> Attempt:
        if step.rung == "view":
            return Attempt(step=step, status="no time")
        return finished(step, 0.4, kept="head")

    steps, last = climb(outcome, views=("center", "squash"))
    assert sum(step.rung == "view" for step in steps) == 3
    assert "did not help" in last


def test_the_better_half_trains_shortly_and_the_best_of_it_in_full() -> None:
    head = {"small": 0.5, "middle": 0.3, "large": 0.4, "huge": 0.6}
    short = {"middle": 0.29, "large": 0.2}
    steps, _ = climb(lambda step: short.get(step.model, 1) if step.rung == "short" else head[step.model], list(head))
    assert [(s.rung, s.model) for s in steps[4:7]] == [("short", "middle"), ("short", "large"), ("full", "large")]


def test_a_single_network_is_not_halved() -> None:
    steps, _ = climb(lambda step: 0.5, ["only"])
    assert [step.rung for step in steps[:2]] == ["head", "full"]


def test_members_are_the_runner_up_and_then_other_seeds() -> None:
    nll = {"small": 0.5, "middle": 0.3, "large": 0.4}
    gain = iter(np.linspace(0.3, 0.05, 30))
    steps, last = climb(lambda step: finished(step, nll[step.model], together=float(next(gain))))
    members = [(step.model, step.seed) for step in steps if step.rung == "member"]
    assert len(members) == CONFIG.members
    assert members == [("large", 0), *(("middle", seed) for seed in range(1, CONFIG.members))][: CONFIG.members]
    assert "further members" in last


def test_it_ends_when_members_bring_no_more_than_noise() -> None:
    steps, last = climb(lambda step: finished(step, 0.4, together=0.3))
    assert sum(step.rung == "member" for step in steps) == CONFIG.patience
    assert "no more than noise" in last


@pytest.mark.parametrize("rung", ["short", "full"])
def test_it_ends_where_training_does_not_help(rung: str) -> None:
    steps, last = climb(lambda step: finished(step, 0.4, kept="head" if step.rung == rung else "trained"))
    assert steps[-1].rung == rung
    assert "did not help" in last


@pytest.mark.parametrize("broken", ["small", "middle", "large"])
def test_failed_steps_are_passed_over(broken: str) -> None:
    def outcome(step: Step) -> Attempt:
        if step.model == broken:
            return Attempt(step=step, status="failed", note="broken")
        return finished(step, 0.4)

    steps, _ = climb(outcome)
    assert [step.rung for step in steps if step.model == broken] == ["head"]
    assert sorted(step.model for step in steps if step.rung == "head") == ["large", "middle", "small"]
    assert any(step.rung == "full" for step in steps)


def test_without_a_head_nothing_follows() -> None:
    steps, last = climb(lambda step: Attempt(step=step, status="failed", note="broken"))
    assert [step.rung for step in steps] == ["head"] * 3
    assert last == "no network's head could be fitted"


def test_no_time_for_one_short_run_is_none_for_the_others() -> None:
    def outcome(step: Step) -> Attempt:
        if step.rung == "short":
            return Attempt(step=step, status="no time")
        return finished(step, {"small": 0.5, "middle": 0.3, "large": 0.4}[step.model])

    steps, _ = climb(outcome)
    assert [(s.rung, s.model) for s in steps[3:5]] == [("short", "middle"), ("full", "middle")]


def test_members_wait_for_the_run_in_full() -> None:
    steps, last = climb(
        lambda step: Attempt(step=step, status="out of time") if step.rung == "full" else finished(step, 0.4)
    )
    assert steps[-1].rung == "full"
    assert last == "the run in full did not finish"


@pytest.mark.parametrize("fits", [True, False])
def test_without_time_for_a_run_in_full_the_fastest_network_trains_in_part(fits: bool) -> None:
    def outcome(step: Step) -> Attempt:
        if step.rung in ("short", "full") or (step.rung == "part" and not fits):
            return Attempt(step=step, status="no time")
        return finished(step, {"small": 0.5, "middle": 0.3, "large": 0.4}[step.model])

    steps, last = climb(outcome)
    assert [(s.rung, s.model) for s in steps[3:]] == [("short", "middle"), ("full", "middle"), ("part", "small")]
    assert last == "there is no time to train more"


@pytest.mark.parametrize("fits", [True, False])
def test_where_last_layers_have_dropped_what_matters_and_time_is_short_they_train_before_further_heads(
    fits: bool,
) -> None:
    """Once: where there is no time for it then, there is none later."""

    def outcome(step: Step) -> Attempt:
        if step.rung in ("short", "full") or (step.rung == "part" and not fits):
            return Attempt(step=step, status="no time")
        return finished(step, {"small": 0.5, "middle": 0.3, "large": 0.4}[step.model])

    steps, last = climb(outcome, early=True)
    expected = [("head", "small"), ("full", "small"), ("part", "small"), ("head", "middle"), ("head", "large")]
    assert [(s.rung, s.model) for s in steps[:5]] == expected
    assert [s.rung for s in steps[5:]] == ["short", "full"]
    assert last == "there is no time to train more"


HEADS = {"small": 0.5, "middle": 0.3, "large": 0.4}
EARLY = [("head", "small"), ("full", "small"), ("head", "middle"), ("head", "large")]


def test_a_network_that_has_trained_before_further_heads_and_beats_their_short_runs_stays_the_first() -> None:
    gain = iter(np.linspace(0.3, 0.05, 30))

    def outcome(step: Step) -> Attempt:
        nll = {"short": 0.25, "full": 0.1}.get(step.rung, HEADS[step.model])
        return finished(step, nll, together=float(next(gain)))

    steps, _ = climb(outcome, early=True)
    assert [(s.rung, s.model) for s in steps[:6]] == [*EARLY, ("short", "middle"), ("short", "large")]
    assert [(s.rung, s.model, s.seed) for s in steps[6:8]] == [("member", "middle", 0), ("member", "small", 1)]


@pytest.mark.parametrize(
    ("kept", "nll"), [("head", 0.5), ("trained", 0.45), ("trained", 0.29)], ids=["no help", "worse", "better"]
)
def test_a_network_that_trained_first_gives_way_to_a_better_one(kept: str, nll: float) -> None:
    """To one whose short run is better, whether or not its own training helped; and time for it is asked for."""

    def outcome(step: Step) -> Attempt:
        if step.model == "small" and step.rung == "full":
            return finished(step, nll, kept=kept)
        return finished(step, {"short": 0.2, "full": 0.1}.get(step.rung, HEADS[step.model]))

    steps, _ = climb(outcome, early=True)
    assert [(s.rung, s.model) for s in steps[:7]] == [
        *EARLY,
        ("short", "middle"),
        ("short", "large"),
        ("full", "middle"),
    ]


@pytest.mark.parametrize(("nll", "following"), [(0.25, "small"), (0.45, "middle")])
def test_without_time_for_short_runs_the_better_of_training_and_head_leads(nll: float, following: str) -> None:
    def outcome(step: Step) -> Attempt:
        if step.rung == "short":
            return Attempt(step=step, status="no time")
        return finished(step, nll if step.model == "small" and step.rung == "full" else HEADS[step.model])

    steps, _ = climb(outcome, early=True)
    assert [(s.rung, s.model) for s in steps[:5]] == [*EARLY, ("short", "middle")]
    led = ("member", "middle") if following == "small" else ("full", "middle")
    assert (steps[5].rung, steps[5].model) == led


def test_a_part_that_has_finished_is_not_followed_by_the_whole_before_further_heads() -> None:
    """A fit that is resumed asks anew about what had no time; the order of its steps stays."""
    done = [finished(Step("head", "small"), 0.5), finished(Step("part", "small", 0, "center"), 0.3)]
    following = next_step(done, networks("small", "middle"), views=(), early=True, seed=0, config=CONFIG)
    assert following == Step("head", "middle", 0, "center")


def test_training_at_a_smaller_size_helps_only_if_it_beats_the_head() -> None:
    """The head guard compares with a head at the smaller size."""

    def outcome(step: Step) -> Attempt:
        return finished(step, 0.6 if step.trains else HEADS[step.model])

    _, last = climb(outcome)
    assert "did not help" in last


def test_last_layers_of_a_network_over_a_limit_do_not_train_early() -> None:
    def outcome(step: Step) -> Attempt:
        return replace(finished(step, 0.4), allowed=step.model != "small")

    steps, _ = climb(outcome, early=True)
    assert [step.rung for step in steps[:3]] == ["head"] * 3


@pytest.mark.parametrize(("candidates", "policy", "views"), [(2, "lp-ft:2", 2), (1, "lp-ft:3", 4)])
def test_few_last_layers_train_on_few_views_while_heads_wait(candidates: int, policy: str, views: int) -> None:
    """Two groups hold a third of the parameters here, three more than half."""
    head = Entry(attempt=finished(Step("head", "small"), 0.5), name="01", seconds=1.0, elapsed=1.0)
    base = FinetuneConfig(model="tf_efficientnet_lite0", data="imgs")
    options = last_layers(base, networks("small", "middle")[:candidates], [head], CONFIG)
    facts = Facts(
        images=50, classes=5, smallest=10, largest=10, pretrained=True, shares=(0.12, 0.33, 0.79, 1.0), linear_head=True
    )
    assert str(choose_policy(facts, options.auto)[0]) == policy
    assert options.cache.default_views == views


def test_the_order_of_equal_attempts_does_not_matter() -> None:
    """What follows depends on the attempts' figures alone."""
    heads = [finished(Step("head", name, 0, "center"), nll) for name, nll in (("a", 0.4), ("b", 0.3), ("c", 0.5))]
    heads[0] = replace(heads[0], step=Step("head", "a", 0, None))
    first = next_step(heads, networks("a", "b", "c"), views=(), seed=0, config=CONFIG)
    again = next_step(list(heads), networks("a", "b", "c"), views=(), seed=0, config=CONFIG)
    assert first == again == Step("short", "b", 0, "center")


def test_a_network_over_a_limit_is_not_trained() -> None:
    def outcome(step: Step) -> Attempt:
        slow = replace(finished(step, {"small": 0.5, "middle": 0.3, "large": 0.4}[step.model]), allowed=False)
        return slow if step.model == "middle" else replace(slow, allowed=True)

    steps, _ = climb(outcome, views=("center", "squash"))
    assert [step.rung for step in steps if step.model == "middle"] == ["head"]
    assert ("full", "large") in [(step.rung, step.model) for step in steps]
    assert climb(lambda step: replace(finished(step, 0.4), allowed=False))[1] == "no network is within the limits"


def test_images_lost_on_the_way_do_not_end_the_climb() -> None:
    def outcome(step: Step) -> Attempt:
        found = finished(step, 0.4)
        return replace(found, together=found.together[1:]) if step.rung == "member" else found

    steps, _ = climb(outcome)
    assert sum(step.rung == "member" for step in steps) >= CONFIG.patience
