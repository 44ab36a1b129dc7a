"""Advice: what to do next, each with what it may be worth; the most valuable first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tl_kit.config import FoldsConfig, ReportLimits
from tl_kit.data.findings import Finding
from tl_kit.display import HONEST, visible
from tl_kit.report_page.class_tables import ClassRow
from tl_kit.report_page.computed import Computed
from tl_kit.report_page.figures import count, percent, plain, signed
from tl_kit.report_page.saved_results import Saved

__all__ = ["Advice", "advise"]

_Z = 1.96  # of a normal distribution, for an interval of 95 %


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
    saved: Saved, made: Computed, *, suspects: int, findings: Sequence[Finding], limits: ReportLimits
) -> list[Advice]:
    """All advice that the figures support, the most valuable first; one that says "nothing" where there is none.

    ``made``: what was computed from the scored images; ``suspects``: how many labels folds suspect.
    """
    found = [*_data(findings), *_honest(saved), *_labels(saved, suspects), *_members(saved)]
    if made.rows:
        images = [*_unscored(made), *_guess(made), *_weak_classes(made), *_few(saved, made, limits)]
        foreign = "" if made.content.get("own", True) else "Of the images of --data: "
        found += [replace(one, text=foreign + one.text) for one in images]
    if not found and made.rows:
        text = "No class is worse than the others beyond chance, and no figure asks for a change."
        found = [Advice(title="Nothing", text=text, worth=0)]
    elif not found:
        text = "No image was scored for this page, so it cannot say which classes are weak; --data names the images."
        found = [Advice(title="Show it the images", text=text, worth=0)]
    return sorted(found, key=lambda one: -one.worth)


def _data(findings: Sequence[Finding]) -> list[Advice]:
    """Faults that make scores too good: the same picture in two splits, and classes known by something else."""
    found = []
    for finding in findings:
        if finding.code.endswith("split-leak") or finding.code == "group-leak":
            found.append(Advice(title="Separate the splits", text=_sentences(finding), worth=1))
        elif finding.code.endswith("-shortcut"):
            found.append(Advice(title="Remove a shortcut", text=_sentences(finding), worth=0.9))
        elif finding.code.endswith("label-conflict"):
            found.append(Advice(title="Settle the labels", text=_sentences(finding), worth=0.8))
    return found


def _sentences(finding: Finding) -> str:
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in (finding.message, finding.remedy))


def _honest(saved: Saved) -> list[Advice]:
    if not saved.splits or any(split.kind in HONEST for split in saved.splits):
        return []
    text = (
        "No score on record is of images alone that had no part in the model, so none is an estimate for new images. "
        "Folds score each training and validation image by a model in which it had no part."
    )
    return [
        Advice(title="Measure on images that the model has not seen", text=text, worth=1, command=_folds_command(saved))
    ]


def _folds_command(saved: Saved) -> str:
    """The command that cross-validates the (first) run's network on its images."""
    network = next(filter(None, (run.text("config", "model") or run.text("model") for run in saved.runs)), "MODEL")
    data = "PATH" if saved.data is None else str(saved.data)
    first = saved.runs[0] if saved.runs else None
    side = None if first is None else first.whole("config", "img_size")
    policy = "" if first is None else first.text("config", "policy")
    options = (f" --policy {shlex.quote(policy)}" if policy not in ("", "auto") else "") + (
        f" --img-size {side}" if side else ""
    )
    return visible(
        f"tlkit finetune {shlex.quote(network)} --data {shlex.quote(data)}{options} --folds {FoldsConfig.folds}"
    )


def _unscored(made: Computed) -> list[Advice]:
    """Images to add of classes of which none was scored."""
    classes, names = made.content["unscored"]["classes"], made.content["unscored"]["first"]
    if not classes:
        return []
    more = classes - len(names)
    shown = ", ".join(map(visible, names)) + (f" and {count(more)} more" if more else "")
    text = (
        f"No scored image is of {shown}: these scores say nothing of {'it' if classes == 1 else 'them'}. Put images of "
        "every class into the split that is scored."
    )
    return [Advice(title=f"Score images of {shown}", text=text, worth=1)]


def _guess(made: Computed) -> list[Advice]:
    """A score that is not better, beyond chance, than one answer for all images."""
    low, high = made.content["interval"]
    name, share = visible(made.content["commonest"]["name"]), made.content["commonest"]["share"]
    if low > share or share == 1:
        return []
    text = (
        f"Whoever always says {name} is right on {percent(share)} of these images, and the accuracy lies between "
        f"{percent(low)} and {percent(high)} (95\u00a0% interval). Balanced accuracy and macro F1 say more here."
    )
    return [Advice(title=f"Not measurably better than always saying {name}", text=text, worth=0.7)]


def _few(saved: Saved, made: Computed, limits: ReportLimits) -> list[Advice]:
    """More images to score, where the accuracy is known too roughly to choose by it."""
    low, high = made.content["interval"]
    if high - low <= limits.wide:
        return []
    share = min(max(made.content["scores"]["accuracy"], 0.1), 0.9)
    enough = round(_Z**2 * share * (1 - share) / (limits.wide / 4) ** 2, -1)
    folds = saved.kind != "folds"
    text = (
        f"The accuracy is known to {100 * (high - low):.0f} points only (95\u00a0% interval {percent(low)} to "
        f"{percent(high)}), from {count(made.content['images'])} images. About {count(enough)} would do to know it to "
        f"{100 * limits.wide / 2:.0f} points."
    )
    return [
        Advice(
            title="Score more images",
            text=text + (" Folds score each training and validation image, too." if folds else ""),
            worth=0.001,
            command=_folds_command(saved) if folds else "",
        )
    ]


def _labels(saved: Saved, suspects: int) -> list[Advice]:
    images = saved.record.whole("images") if saved.kind == "folds" else None
    if not suspects or not images:
        return []
    one = suspects == 1
    text = (
        f"{count(suspects)} of {count(images)} labels {'is' if one else 'are'} suspect, by models that have not seen "
        "the images. Look through suspects.csv from the top: a wrong label costs twice, in training and in the score."
    )
    return [Advice(title=f"Check {count(suspects)} label{'' if one else 's'}", text=text, worth=suspects / images)]


def _members(saved: Saved) -> list[Advice]:
    """An ensemble where validation measured that it gains, or fewer members where they do as well."""
    record = saved.record
    if saved.kind == "run":
        kept, command = record.text("guard", "kept"), record.text("guard", "together", "command")
        joint = record.number("guard", "together", "bounded_nll")
        base = record.number("guard", "compared", kept, "bounded_nll")
        if joint is None or base is None:
            joint, base = record.number("guard", "together", "nll"), record.number("val", "nll")
        if joint is None or base is None or not command or joint >= base:
            return []
        together, alone = record.number("guard", "together", "accuracy"), record.number("val", "accuracy")
        gain = 0.0 if together is None or alone is None else together - alone
        text = (
            f"On validation, which chose them, head and trained network together have NLL {plain(joint)}, against "
            f"{plain(base)} alone, and {100 * gain:+.1f} points of accuracy."
        )
        return [Advice(title="Combine", text=text, worth=max(gain, 0.001), command=visible(command))]
    if saved.receipt is None:
        return []
    subset = record.listed(*saved.receipt, "smallest_subset", "members", of=int)
    members = record.listed(*saved.receipt, "members", of=dict)
    if not 0 < len(subset) < len(members):
        return []
    over = record.number(*saved.receipt, "smallest_subset", "nll_over_whole")
    which = f"member {subset[0]} is" if len(subset) == 1 else f"members {', '.join(map(str, subset))} are"
    text = (
        f"By NLL on validation, {which} within the noise of all {len(members)}"
        f"{'' if over is None else f' ({signed(over)})'}, with {len(subset)} of {len(members)} forward passes. Where "
        "an image must cost little, try that."
    )
    return [Advice(title="Predict with fewer members", text=text, worth=0.0005)]


def _weak_classes(made: Computed) -> list[Advice]:
    """Classes whose recall lies below the accuracy of all images beyond chance."""
    accuracy, images = made.content["scores"]["accuracy"], made.content["images"]
    several = made.content["classes"] > 2  # of two, a missed image is always taken for the other
    found = [_weak_class(row, accuracy, images, several=several) for row in made.weak]
    more = made.weak_total - len(made.weak)
    if more:
        last = found[-1].text + f" {count(more)} more class{'es are' if more > 1 else ' is'} worse beyond chance."
        found[-1] = Advice(title=found[-1].title, text=last, worth=found[-1].worth)
    return found


def _weak_class(row: ClassRow, accuracy: float, images: int, *, several: bool) -> Advice:
    low, high = row.recall_interval or (0.0, 1.0)
    gain, missed = (accuracy - row.recall) * row.support / images, row.support - round(row.recall * row.support)
    text = (
        f"It finds {percent(row.recall)} of them (95\u00a0% interval {percent(low)} to {percent(high)}, "
        f"{count(row.support)} images), against {percent(accuracy)} of all images. Found as often as all are, they "
        f"would bring {100 * gain:.1f} points of accuracy."
    )
    if several and 2 * row.taken > missed:
        text += (
            f" {count(row.taken)} of the {count(missed)} missed are taken for {visible(row.taken_for)}: look at these "
            "first, since labels that nobody can tell apart are not mended by more images."
        )
    return Advice(title=f"More images of {visible(row.name)}", text=text, worth=gain)
