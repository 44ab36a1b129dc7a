"""The ladder: which step comes next, by what the steps before it have reached. It knows no clock."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from tl_kit.combining.bootstrap import worse_by_more_than_noise
from tl_kit.config import LadderConfig
from tl_kit.fitting.candidates import Candidate

__all__ = ["Attempt", "Rung", "Status", "Step", "first_run", "next_step", "waiting"]

Rung: TypeAlias = Literal["sample", "head", "view", "short", "full", "part", "member", "refit"]
Status: TypeAlias = Literal["finished", "out of time", "no time", "failed"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One step: a network, and how it is trained. Equal steps of equal epochs give equal weights.

    ``rung``: ``head``, a head on pretrained features; ``view``, the same on images cropped in another way; ``short``
    and ``full``, training by the policy that the rules give, for a share of the epochs and for all of them; ``part``,
    training of the last layers alone, where there is no time for the run in full; ``member``, one more run in full;
    ``refit``, the run of the rung ``of`` again, on validation images too; ``sample``, a first head on about so many
    ``images`` of the training images. ``crop_mode`` None: to be chosen by the run.
    """

    rung: Rung
    model: str
    seed: int = 0
    crop_mode: str | None = None
    of: str = ""
    images: int = 0

    @property
    def trains(self) -> bool:
        """True where more than a head trains."""
        return self.rung in ("short", "full", "part", "member", "refit")


@dataclass(frozen=True, eq=False, kw_only=True)
class Attempt:
    """A step and what became of it.

    ``losses`` (n,): the NLL of each validation image, where it ``finished``. ``kept``: the network that the head guard
    kept, ``head`` where training did not help. ``together`` (n,): the losses of the best ensemble after this step.
    ``crop_mode``: the one that the run used. ``allowed``: False where the network alone is over a limit on the result.
    ``note``: why it did not finish.
    """

    step: Step
    status: Status
    losses: FloatArray = field(default_factory=lambda: np.empty(0))
    together: FloatArray = field(default_factory=lambda: np.empty(0))
    crop_mode: str = ""
    kept: str | None = None
    allowed: bool = True
    note: str = ""

    @property
    def nll(self) -> float:
        """Mean NLL on validation; infinite without a result."""
        return float(self.losses.mean()) if self.losses.size else math.inf


def next_step(
    done: Sequence[Attempt],
    candidates: Sequence[Candidate],
    *,
    views: Sequence[str],
    early: bool = False,
    chosen: Collection[Step] = (),
    seed: int,
    config: LadderConfig,
) -> Step | str:
    """Return the next step of the fit; where there is none, a sentence with the reason.

    ``views``: crop modes that are worth comparing, if any. ``early``: the first network trains in full before the heads
    that wait, or only its last layers where there is no time for more. ``chosen``: the members of the best ensemble.
    Those that trained do so again, on validation images too, before further members and at the end. The network that
    trained early does so before further heads. At the very end, the other networks' heads see the other crops. The step
    depends on nothing but the arguments. One that there was ``no time`` for is not proposed again.
    """
    tried = {attempt.step for attempt in done}
    for step in _steps(done, candidates, views=views, early=early, chosen=chosen, seed=seed, config=config):
        if isinstance(step, str) or step.rung == "member":
            refit = next((each for each in _refits(done, chosen) if each not in tried), None)
            if refit is not None:
                return refit
        if isinstance(step, str):
            return next((each for each in _further_views(done, views, seed, config) if each not in tried), step)
        if step not in tried:
            return step
    raise AssertionError("the steps end with a sentence")


def first_run(step: Step) -> Step:
    """The step that a refit repeats."""
    return replace(step, rung=cast("Rung", step.of), of="")


def _refits(done: Sequence[Attempt], chosen: Collection[Step]) -> Iterator[Step]:
    """Refits of the chosen runs that trained; where the head was kept, its head has been fitted to all images."""
    for attempt in done:
        step = attempt.step
        if step in chosen and step.trains and attempt.status == "finished" and attempt.kept != "head":
            yield replace(step, rung="refit", of=step.rung)


def _further_views(done: Sequence[Attempt], views: Sequence[str], seed: int, config: LadderConfig) -> Iterator[Step]:
    """Heads of the best networks on images cropped in other ways: members that cost one pass over the images each."""
    used = {(a.step.model, a.crop_mode) for a in done if a.status == "finished" and not a.step.trains}
    heads = [attempt for attempt in _ranked(done, "head") if attempt.allowed][: config.most_views]
    for name in (head.step.model for head in heads):
        yield from (Step("view", name, seed, mode) for mode in views if (name, mode) not in used)


def waiting(done: Sequence[Attempt], candidates: Sequence[Candidate]) -> list[str]:
    """Names of the networks whose heads have not been tried yet, in the candidates' order."""
    had = {attempt.step.model for attempt in done if attempt.step.rung == "head"}
    return [each.name for each in candidates if each.name not in had]


def _steps(
    done: Sequence[Attempt],
    candidates: Sequence[Candidate],
    *,
    views: Sequence[str],
    early: bool,
    chosen: Collection[Step],
    seed: int,
    config: LadderConfig,
) -> Iterator[Step | str]:
    """All steps in their order, as far as the attempts so far determine them."""
    head = next((a for a in done if a.status == "finished" and a.step.rung != "sample"), None)
    first = None if head is None else head.crop_mode
    heads_left = waiting(done, candidates)
    if early and heads_left and head is not None and head.allowed:
        yield from _before_heads(done, head, chosen, seed)
    yield from (Step("head", name, seed, first) for name in heads_left)
    fitted = _ranked(done, "head")
    heads = [attempt for attempt in fitted if attempt.allowed]
    if not heads:
        sample = "there is no time for a further head" if _ranked(done, "sample") else ""
        yield "no network is within the limits" if fitted else sample or "no network's head could be fitted"
        return
    used = {attempt.crop_mode for attempt in heads}
    yield from (Step("view", heads[0].step.model, seed, mode) for mode in views if mode not in used)
    modes = {attempt.step.model: attempt.crop_mode for attempt in heads}
    trained = [attempt for attempt in _ranked(done, "full") if _helps(done, attempt) and attempt.nll <= heads[0].nll]
    halved = min(config.most_short, math.ceil(config.halved * len(heads))) if len(heads) > 1 else 0
    shorts = [head for head in heads[:halved] if head.step.model not in {each.step.model for each in trained}]
    for head in shorts:
        if _no_time_for(done, "short"):
            break
        yield Step("short", head.step.model, seed, modes[head.step.model])
    ranked = sorted([*trained, *_ranked(done, "short")], key=lambda each: each.nll)
    order = list(dict.fromkeys(attempt.step.model for attempt in (*ranked, *heads)))
    if not trained and _helpless(done, "short", len(shorts)):
        yield "training more than the heads did not help"
        return
    full = Step("full", order[0], seed, modes[order[0]])
    yield full
    if _without_time(done, full):
        costs = {each.name: each.cost.operations for each in candidates}
        cheapest = min(order, key=lambda name: costs[name])
        yield Step("part", cheapest, seed, modes[cheapest])
        yield "there is no time to train more"
        return
    yield from _further(done, order, modes, seed, config)


def _before_heads(done: Sequence[Attempt], head: Attempt, chosen: Collection[Step], seed: int) -> Iterator[Step]:
    """Training of the head's network before further heads: in full, or in part where there was no time for that.

    Its refit follows, which brings more here than the heads of others. A resumed fit asks anew about what had no time;
    one whose part has trained goes on with the heads all the same.
    """
    whole = Step("full", head.step.model, seed, head.crop_mode)
    part = replace(whole, rung="part")
    if not any(attempt.step == part and attempt.status == "finished" for attempt in done):
        yield whole
    if _without_time(done, whole):
        yield part
    yield from _refits(done, chosen)


def _further(
    done: Sequence[Attempt],
    order: Sequence[str],
    modes: dict[str, str],
    seed: int,
    config: LadderConfig,
) -> Iterator[Step | str]:
    """Members after the run in full: the runner-up, then the best network with other seeds."""
    if not _ranked(done, "full"):
        yield "the run in full did not finish"
        return
    if _helpless(done, "full", 1):
        yield "training more than the head did not help"
        return
    others = [Step("member", model, seed, modes[model]) for model in order[1:2]]
    seeds = [Step("member", order[0], seed + more, modes[order[0]]) for more in range(1, config.members + 1)]
    if _no_time_for(done, "member"):
        yield "there is no time for a further member"
        return
    for count, step in enumerate([*others, *seeds][: config.members]):
        if count >= config.patience and not _still_gaining(done, config.patience):
            yield f"the last {config.patience} members lowered the ensemble's NLL by no more than noise"
            return
        yield step
    yield f"the ladder ends after {config.members} further members"


def _ranked(done: Sequence[Attempt], rung: Rung) -> list[Attempt]:
    """The finished attempts of a rung, the lowest NLL first."""
    return sorted((a for a in done if a.step.rung == rung and a.status == "finished"), key=lambda each: each.nll)


def _without_time(done: Sequence[Attempt], step: Step) -> bool:
    """True where there was no time for the step."""
    return any(attempt.step == step and attempt.status == "no time" for attempt in done)


def _no_time_for(done: Sequence[Attempt], rung: Rung) -> bool:
    """True where there was no time for some step of the rung."""
    return any(attempt.step.rung == rung and attempt.status == "no time" for attempt in done)


def _helps(done: Sequence[Attempt], trained: Attempt) -> bool:
    """True where the head guard kept more than the head, and the network's own head has no lower NLL.

    The guard's head may have seen the images at a smaller size.
    """
    heads = (attempt for attempt in _ranked(done, "head") if attempt.step.model == trained.step.model)
    return trained.kept != "head" and all(trained.nll <= head.nll for head in heads)


def _helpless(done: Sequence[Attempt], rung: Rung, count: int) -> bool:
    """True where ``count`` attempts of a rung finished, and training helped in none of them."""
    found = _ranked(done, rung)
    return bool(count) and len(found) >= count and not any(_helps(done, attempt) for attempt in found)


def _still_gaining(done: Sequence[Attempt], patience: int) -> bool:
    """False where the last ``patience`` members together lowered the ensemble's NLL by no more than noise."""
    finished = [attempt for attempt in done if attempt.status == "finished" and attempt.step.rung != "refit"]
    latest = [attempt for attempt in finished if attempt.step.rung == "member"][-patience:]
    if len(latest) < patience:
        return True
    steps = [(finished[finished.index(each) - 1].together, each.together) for each in latest]
    if not latest[-1].together.size:
        return False
    if len({losses.size for pair in steps for losses in pair}) > 1:
        return True
    return worse_by_more_than_noise(np.sum([before - after for before, after in steps], axis=0))
