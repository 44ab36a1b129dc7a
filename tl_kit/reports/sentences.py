"""Sentences that summarise an ensemble's receipt."""

from __future__ import annotations

from typing import Any

from tl_kit.combining.bootstrap import Gain
from tl_kit.combining.receipt import Receipt, best_member
from tl_kit.score_kinds import notes_on

__all__ = ["findings", "notes", "verdict"]


_DIGITS = 9  # behind the point, at most


def verdict(receipt: Receipt) -> str:
    """One sentence for the console: the gain over the best member, and whether it is distinguishable from zero."""
    if receipt["ensemble"]["val"] is None:
        if receipt["ensemble"]["test"] is None:
            return "Gain: not measured, every image was seen by a member."
        return "Gain over the best member: not measured, folds leave no image by which to choose it."
    best = receipt["members"][best_member(receipt["members"])]["checkpoint"]
    gain = receipt["gain"]
    if gain is None:
        return f"Gain over the best member by validation ({best}): not measured, there is no test split."
    if _nothing(gain):
        return f"Gain over the best member by validation ({best}): none, its predictions are the same."
    return f"Gain over the best member by validation ({best}): {_accuracy(gain, 'the best member alone is better')}"


def findings(receipt: Receipt) -> list[str]:
    """The receipt's further findings, one sentence each: other gains, temperature, smallest subset, cost."""
    lines = []
    gain, over_mean = receipt["gain"], receipt["gain_over_mean_member"]
    if over_mean is not None:
        lines.append(f"Gain over the mean member: {_accuracy(over_mean, 'the mean member is better')}")
    if gain is not None and over_mean is not None:
        alike = "" if receipt["calibration"]["temperature"] == 1 else " (each member with a temperature of its own)"
        if not _nothing(gain):
            lines.append(f"Test NLL{alike} against the best member: {_nll(gain)}.")
        lines.append(f"Test NLL{alike} against the mean member: {_nll(over_mean)}.")
    lines += [_derived(receipt), _temperature(receipt), _subset(receipt), _cost(receipt)]
    return [line for line in lines if line]


def notes(receipt: Receipt) -> list[str]:
    """Notes, one line each: scores that are too good as estimates, and how to get an honest one."""
    return notes_on([*(member["kinds"] for member in receipt["members"]), receipt["kinds"]], receipt["chosen_by_val"])


def _accuracy(gain: Gain, loss: str) -> str:
    lo, hi = (100 * bound for bound in gain["ci95"])
    outcome = _outcome(lo, hi) + (f": {loss}" if hi < 0 else "")
    return f"{100 * gain['accuracy']:+.1f} points of test accuracy (95 % interval {lo:+.1f} to {hi:+.1f}), {outcome}."


def _nothing(gain: Gain) -> bool:
    """True between predictions that are the same: an average of weights that fell back to one member, and this."""
    return not any((gain["accuracy"], gain["nll"], *gain["ci95"], *gain["nll_ci95"]))


def _nll(gain: Gain) -> str:
    lo, hi = gain["nll_ci95"]
    digits = 3
    while (lo > 0 or hi < 0) and digits < _DIGITS and round(min(abs(lo), abs(hi)), digits) == 0:
        digits += 1  # a zero is not distinguishable from zero
    return f"{gain['nll']:+.{digits}f} ({lo:+.{digits}f} to {hi:+.{digits}f}), {_outcome(lo, hi)}"


def _outcome(lo: float, hi: float) -> str:
    return "distinguishable from zero" if lo > 0 or hi < 0 else "not distinguishable from zero"


def _derived(receipt: Receipt) -> str:
    """The derived model in words: its ingredients, and its val score compared with the other candidates."""
    made = receipt["derived"]
    if made is None:
        return ""
    scores = _statistics(made)
    if made.get("fallback") is not None:
        return f"{made['rule']}: {made['fallback']}, which is what this ensemble holds. {scores}".strip()
    ingredients = made["ingredients"]
    if all("weight" in each for each in ingredients):
        parts = [f"{each['weight']:.2g} {each['checkpoint']}" for each in ingredients if each["weight"]]
        statistics = f", BatchNorm statistics {made['batchnorm']}" if made.get("batchnorm") is not None else ""
        return f"{made['rule']}: one model, {' + '.join(parts)}{statistics}. {scores}".strip()
    if all("features" in each for each in ingredients):
        features = sum(each["features"] for each in ingredients)
        return (
            f"{made['rule']}: one head on {features:,} features, fitted to {made['train_images']:,} training images; "
            f"C = {made['c']:g}, chosen on val."
        )
    return f"{made['rule']}: made of {', '.join(each['checkpoint'] for each in ingredients)}."


def _statistics(made: dict[str, Any]) -> str:
    """Scores of the chosen model, the best average with each kind of BatchNorm statistics, and the best member."""
    best: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {}
    for line in made.get("tried", ()):
        if "weights" not in line:  # not an average of the members' weights
            continue
        average = 1.0 not in line["weights"]
        kind = (line["batchnorm"] or "average") if average else "alone"
        rank = (line["nll"],) if average else (-line["accuracy"], line["nll"])
        if kind not in best or rank < best[kind][0]:
            best[kind] = rank, line
        if average and line["chosen"]:
            best["taken"] = rank, line
    names = {
        "taken": "this model",
        "average": "best average",
        "as averaged": "best average with statistics as averaged",
        "re-estimated": "with re-estimated ones",
        "alone": "best member",
    }
    lines = {names[kind]: best[kind][1] for kind in names if kind in best}
    shown = [f"{name} {line['nll']:.3f} ({100 * line['accuracy']:.1f} %)" for name, line in lines.items()]
    return f"On val, which chose among them, NLL: {', '.join(shown)}." if len(shown) > 1 else ""


def _temperature(receipt: Receipt) -> str:
    found = receipt["calibration"]
    if found["val"] is None:
        return (
            "No temperature: it would have to be fitted to images that no member has seen, and that of a single model "
            "is not the mean's."
        )
    if found["temperature"] == 1:
        return ""
    split = "val (selected on), out of fold" if found["test"] is None else "test"
    scores = found["val"] if found["test"] is None else found["test"]
    before, after = scores["before"], scores["after"]
    return (
        f"Temperature {found['temperature']:.2f}, fitted on val: on {split}, NLL {before['nll']:.3f} -> "
        f"{after['nll']:.3f}, ECE {100 * before['ece']:.1f} % -> {100 * after['ece']:.1f} %."
    )


def _subset(receipt: Receipt) -> str:
    subset = receipt["smallest_subset"]
    if subset is None:
        return ""
    if len(subset["members"]) == len(receipt["members"]):
        return "Smallest subset that val NLL cannot tell to be worse than the whole: all members."
    names = ", ".join(receipt["members"][member - 1]["checkpoint"] for member in subset["members"])
    lo, hi = subset["ci95"]
    return (
        f"Smallest subset that val NLL cannot tell to be worse than the whole: {len(subset['members'])} of "
        f"{len(receipt['members'])}, {names} (val NLL {subset['nll_over_whole']:+.3f}, "
        f"95 % interval {lo:+.3f} to {hi:+.3f})."
    )


def _cost(receipt: Receipt) -> str:
    cost = receipt["cost"]
    if cost is None:
        return ""
    passes = "1 forward pass" if cost["forward_passes"] == 1 else f"{cost['forward_passes']} forward passes"
    return (
        f"An image: {passes}, {1000 * cost['seconds_per_image']:.1f} ms as scored here; "
        f"{cost['parameters'] / 1e6:.1f} million parameters, {cost['weight_bytes'] / 2**20:.0f} MiB of weights."
    )
