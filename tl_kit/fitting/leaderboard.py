"""The leaderboard: a row for each step, and the story of a fit in five sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import standard_error
from tl_kit.combining.member_choice import MemberChoice
from tl_kit.data.listing import name_some
from tl_kit.display import step_number
from tl_kit.fitting.best_result import Pool
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.refits import first_entry
from tl_kit.fitting.step_words import KINDS

__all__ = ["Fastest", "Row", "fastest_of", "rows_of", "story"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step: what was tried, its seconds, its validation scores with standard errors, and what it added.

    Scores are None where the step did not finish. Those of a refit, which trained on validation images, are those of
    the run that it repeats, ``of``. ``rung``: the kind of step in one word. ``added``: by how much the best ensemble's
    validation NLL fell with this step. ``elapsed``: seconds from the start to its end. ``together``: the ensemble's NLL
    after it. ``side``: pixels a side of the images that it sees. Validation chose each run's epoch, what the head guard
    kept, and which networks were trained: its scores are too good.
    """

    name: str
    network: str
    rung: str
    what: str
    policy: str
    epochs: int
    status: str
    seconds: float
    elapsed: float
    accuracy: float | None = None
    accuracy_error: float | None = None
    nll: float | None = None
    nll_error: float | None = None
    added: float | None = None
    together: float | None = None
    latency: float | None = None
    parameters: int | None = None
    side: int | None = None
    chosen: bool = False
    of: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """The fastest result that validation cannot tell from the best: its members, scores, speed and size."""

    members: tuple[str, ...]
    accuracy: float
    nll: float
    latency: float
    parameters: int


def rows_of(entries: Sequence[Entry], pool: Pool, chosen: Sequence[str]) -> list[Row]:
    """The rows in the order of the steps."""
    places = {entry.name: place for place, entry in enumerate(pool.entries)}
    rows, last, latencies = list[Row](), None, pool.latencies
    for entry in entries:
        scores: dict[str, float | None] = {}
        first = first_entry(entry.attempt.step, entries)
        of = "" if first is None else first.name
        place = places.get(of or entry.name)
        if place is not None and entry.finished:
            scores |= _scores(pool.stack[place], pool.labels)
            together = float(entry.attempt.together.mean()) if entry.attempt.together.size else None
            added = None if last is None or together is None else last - together
            scores |= {"together": together, "added": added}
            last = together
        rows.append(
            Row(
                name=entry.name,
                network=entry.attempt.step.model,
                rung=entry.attempt.step.rung,
                what=_what(entry.attempt.step, of),
                policy=entry.policy,
                epochs=entry.epochs,
                status=entry.attempt.status,
                seconds=entry.seconds,
                elapsed=entry.elapsed,
                latency=latencies[place] if place is not None and entry.finished else None,
                parameters=entry.parameters or None,
                side=entry.side or None,
                chosen=entry.name in chosen,
                of=of,
                note=entry.attempt.note,
                **scores,
            )
        )
    return rows


def _what(step: Step, of: str) -> str:
    if step.images:
        return f"head of {step.images:,} training images"
    return f"refit of {step_number(of)} with validation images" if of else KINDS[step.rung]


def _known(error: float) -> float | None:
    """None for the standard error of a single image, and where all images are right, or none is: it would be 0."""
    return error if np.isfinite(error) and error > 0 else None


def _scores(probabilities: FloatArray, labels: NDArray[np.int64]) -> dict[str, float | None]:
    right = metrics.correct(probabilities, labels).astype(np.float64)
    losses = metrics.image_losses(probabilities, labels)
    return {
        "accuracy": float(right.mean()),
        "accuracy_error": _known(standard_error(right)),
        "nll": float(losses.mean()),
        "nll_error": _known(standard_error(losses)),
    }


def fastest_of(pool: Pool, choice: MemberChoice | None) -> Fastest | None:
    """The result that ``choose_best`` finds under "speed", described."""
    if choice is None:
        return None
    return Fastest(
        members=tuple(pool.names[member] for member in choice.members),
        accuracy=metrics.accuracy(choice.whole.estimate, pool.labels),
        nll=metrics.nll(choice.whole.estimate, pool.labels),
        latency=sum(pool.latencies[member] for member in choice.members),
        parameters=int(sum(pool.parameters[member] for member in choice.members)),
    )


def story(
    rows: Sequence[Row],
    *,
    seconds: float,
    val: Mapping[str, float],
    test: Mapping[str, Any] | None,
    fastest: Fastest | None,
    stopped: str,
) -> list[str]:
    """Five sentences: the steps, the winner, its test score, the worth of more time, and the fastest good model."""
    finished = [row for row in rows if row.accuracy is not None]
    counts = Counter(row.rung for row in finished)
    tried = ", ".join(f"{KINDS[rung]}: {counts[rung]}" for rung in KINDS if counts[rung])
    networks = len({row.network for row in finished})
    lines = [f"tried in {seconds:.0f} s: {networks} network{'s' if networks != 1 else ''}; {tried}{_smaller(finished)}"]
    won = [row.name for row in rows if row.chosen]
    how = won[0] if len(won) == 1 else f"the mean of {', '.join(won)}"
    before = ", before the refit" if any(row.chosen and row.of for row in rows) else ""
    lines.append(f"won: {how}; cross-fitted on validation{before}: {val['accuracy']:.1%}, NLL {val['nll']:.3f}")
    if test is not None:
        lines.append(_on_test(test))
    lines.append(f"more time: {stopped}{_last_gain(finished)}")
    if fastest is not None and set(fastest.members) != set(won):
        names = " and ".join(fastest.members)
        lines.append(
            f"fastest within the noise: {names}, {fastest.parameters / 1e6:.1f} M parameters, "
            f"{fastest.latency:.0f} ms an image; cross-fitted {fastest.accuracy:.1%}, NLL {fastest.nll:.3f}"
        )
    return lines


def _smaller(finished: Sequence[Row]) -> str:
    """Words on the size at which networks trained, where their heads saw larger images; else an empty text."""
    own = {row.network: row.side for row in finished if row.rung == "head" and row.side is not None}
    sides = {row.side for row in finished if row.side is not None and row.side < own.get(row.network, row.side)}
    return f" (at {' and '.join(map(str, sorted(sides)))} px, since the images are small)" if sides else ""


def _last_gain(finished: Sequence[Row]) -> str:
    """The change that the last steps brought, as what the next one may bring."""
    scored = [row for row in finished if not row.of]
    gains = [f"{-row.added:+.3f}" for row in scored[-2:] if row.added is not None]
    return "" if not gains else f"; the last steps changed the ensemble's NLL by {' and '.join(gains)}"


def _on_test(test: Mapping[str, Any]) -> str:
    times = "read once" if test["readings"] == 1 else f"read {test['readings']} times"
    none = f", none of {name_some(test['without'])}" if test.get("without") else ""
    text = f"test, {times}: {test['accuracy']:.1%}, NLL {test['nll']:.3f} ({test['images']:,} images{none})"
    best = test.get("best_member")
    return (
        text
        if best is None
        else f"{text}; its best member by validation alone {best['accuracy']:.1%}, NLL {best['nll']:.3f}"
    )
