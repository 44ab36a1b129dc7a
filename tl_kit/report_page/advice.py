"""Advice: what to do next, each with what it may be worth; the most valuable first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_kit.config import FoldsConfig
from tl_kit.data.findings import Finding
from tl_kit.display import HONEST, visible
from tl_kit.report_page.class_tables import ClassRow
from tl_kit.report_page.figures import count, percent, plain, signed
from tl_kit.report_page.saved_results import Saved

__all__ = ["Advice", "advise"]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to do: a title, its reason, a command where there is one, and ``worth``, the share of images at stake.

    What makes the scores themselves doubtful comes before everything else: its worth is 1.
    """

    title: str
    text: str
    worth: float
    command: str = ""


def advise(
    saved: Saved,
    *,
    rows: Sequence[ClassRow],
    accuracy: float | None,
    suspects: int,
    findings: Sequence[Finding],
) -> list[Advice]:
    """All advice that the figures support, the most valuable first; one that says "nothing" where there is none."""
    found = [*_data(findings), *_honest(saved), *_labels(saved, suspects), *_members(saved)]
    if accuracy is not None:
        found += _weak_classes(rows, accuracy)
    if not found:
        text = "No class is worse than the others beyond chance, and no figure asks for a change."
        found = [Advice(title="Nothing", text=text, worth=0)]
    return sorted(found, key=lambda one: -one.worth)


def _data(findings: Sequence[Finding]) -> list[Advice]:
    """Faults that make scores too good: the same picture in two splits, and classes known by something else."""
    found = []
    for finding in findings:
        if finding.code.endswith("split-leak") or finding.code == "group-leak":
            found.append(Advice(title="Separate the splits", text=f"{finding.message}: {finding.remedy}.", worth=1))
        elif finding.code.endswith("-shortcut"):
            found.append(Advice(title="Remove a shortcut", text=f"{finding.message}. {finding.remedy}.", worth=0.9))
        elif finding.code.endswith("label-conflict"):
            found.append(Advice(title="Settle the labels", text=f"{finding.message}: {finding.remedy}.", worth=0.8))
    return found


def _honest(saved: Saved) -> list[Advice]:
    if not saved.splits or any(split.kind in HONEST for split in saved.splits):
        return []
    text = (
        "No image was kept apart from training and choosing, so no figure here is an estimate for new images. Folds "
        "score every image by a model in which it had no part."
    )
    return [
        Advice(
            title="Measure on images that the model has not seen",
            text=text,
            worth=1,
            command=f"tlkit finetune MODEL --data PATH --folds {FoldsConfig.folds}",
        )
    ]


def _labels(saved: Saved, suspects: int) -> list[Advice]:
    images = saved.record.at("images")
    if not suspects or not isinstance(images, int) or not images:
        return []
    text = (
        f"{count(suspects)} of {count(images)} labels are probably wrong, by models that have not seen the images. "
        "Look through suspects.csv from the top: a wrong label costs twice, in training and in the score."
    )
    return [Advice(title=f"Check {count(suspects)} labels", text=text, worth=suspects / images)]


def _members(saved: Saved) -> list[Advice]:
    """An ensemble where validation measured that it gains, or fewer members where they do as well."""
    together = saved.record.at("guard", "together")
    if saved.kind == "run" and isinstance(together, dict):
        alone = saved.record.at("val", "nll")
        joint, command = together.get("bounded_nll", together.get("nll")), together.get("command")
        kept = saved.record.at("guard", "compared", saved.record.text("guard", "kept"), "bounded_nll")
        base = kept if isinstance(kept, float) else alone
        if isinstance(joint, float) and isinstance(base, float) and isinstance(command, str) and joint < base:
            gain = float(together.get("accuracy") or 0) - float(saved.record.at("val", "accuracy") or 0)
            text = (
                f"On validation, which chose them, head and trained network together have NLL {plain(joint)}, against "
                f"{plain(base)} alone, and {100 * gain:+.1f} points of accuracy."
            )
            return [Advice(title="Combine", text=text, worth=max(gain, 0.001), command=command)]
    if saved.receipt is None:
        return []
    subset = saved.record.at(*saved.receipt, "smallest_subset", "members")
    members = saved.record.at(*saved.receipt, "members")
    if isinstance(subset, list) and isinstance(members, list) and 0 < len(subset) < len(members):
        over = saved.record.at(*saved.receipt, "smallest_subset", "nll_over_whole")
        which = f"member {subset[0]} is" if len(subset) == 1 else f"members {', '.join(map(str, subset))} are"
        text = (
            f"By NLL on validation, {which} within the noise of all {len(members)}"
            f"{f' ({signed(over)})' if isinstance(over, float) else ''}, with {len(subset)} of {len(members)} forward "
            "passes. Where an image must cost little, try that."
        )
        return [Advice(title="Predict with fewer members", text=text, worth=0.0005)]
    return []


def _weak_classes(rows: Sequence[ClassRow], accuracy: float) -> list[Advice]:
    """Classes whose recall lies below the accuracy of all images beyond chance."""
    total = sum(row.support for row in rows)
    found = []
    for row in rows:
        if row.recall_interval is None or row.recall_interval[1] >= accuracy:
            continue
        low, high = row.recall_interval
        name, gain = visible(row.name), (accuracy - row.recall) * row.support / total
        text = (
            f"It finds {percent(row.recall)} of them (95 % interval {percent(low)} to {percent(high)}, "
            f"{count(row.support)} images), against {percent(accuracy)} of all images. As good as the others, they "
            f"would bring {100 * gain:.1f} points of accuracy."
        )
        found.append(Advice(title=f"More images of {name}", text=text, worth=gain))
    return found
