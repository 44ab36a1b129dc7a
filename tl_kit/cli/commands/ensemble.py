"""``tlkit ensemble``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_kit.cli.cells import figure, views_text
from tl_kit.cli.command import Given, command
from tl_kit.cli.commands.report import before_report, report_at_end
from tl_kit.cli.console import Console
from tl_kit.cli.session import answering_signals
from tl_kit.cli.show.distillation import distill_and_show
from tl_kit.cli.show.folds import is_of_folds, show_fold_scores
from tl_kit.config import EnsembleConfig, JsonConfig, ReportAtEndConfig, StudentConfig
from tl_kit.display import marked

if TYPE_CHECKING:
    from tl_kit import EnsembleResult

__all__ = ["ensemble"]

SHOWN = ("accuracy", "nll", "ece")


@command(EnsembleConfig, StudentConfig, ReportAtEndConfig, JsonConfig, usage="tlkit ensemble CKPT...")
def ensemble(given: Given, console: Console) -> None:
    """Combine checkpoints into one that predicts on its own. Shows what was gained over the best of them."""
    config, student, json = given.read(EnsembleConfig), given.read(StudentConfig).distill, given.read(JsonConfig).json
    at_end = given.read(ReportAtEndConfig).report
    with answering_signals(), before_report(at_end):
        import tl_kit

        if student is not None:
            tl_kit.check_student(student)
        result = tl_kit.ensemble(config, reporter=console)
        if json:
            console.notes(result.notes, json=True)
        if student is None and json:
            console.json(result.to_dict())
        if not json:
            _show(result, console)
        if at_end:
            how: dict[str, Any] = {"data": config.data, "decode": config.decode, "runtime": config.runtime}
            report_at_end(result.checkpoint, console, json=json, **how)
        if student is not None:
            distill_and_show(result, student, config, console, json=json)


def _show(result: EnsembleResult, console: Console) -> None:
    receipt = result.receipt
    if receipt["comparison"]:
        _show_comparison(result, console)
    if is_of_folds(result):
        show_fold_scores(result, console)
    else:
        _show_scores(result, console)
    _show_members(result, console)
    _show_weights(result, console)
    for line in result.findings:
        console.line(line)
    console.line(f"each image: {views_text(result.crops, result.mc_dropout)}")
    if receipt["ensemble"]["val"] or receipt["ensemble"]["test"]:
        console.entry("picture", str(result.picture))
    console.entry("checkpoint", str(result.checkpoint))


def _show_scores(result: EnsembleResult, console: Console) -> None:
    receipt = result.receipt
    splits = [split for split in ("val", "test") if receipt["ensemble"][split] is not None]
    kinds = [*(member["kinds"] for member in receipt["members"]), receipt["kinds"]]
    header = ["", *(f"{marked(split, kinds)} {name}" for split in splits for name in SHOWN)]
    together: list[tuple[str, Any]] = [(member["checkpoint"], member) for member in receipt["members"]]
    together.append((f"ensemble ({receipt['rule']})", receipt["ensemble"]))
    rows = [
        [name, *(figure(score, scores[split][score]) for split in splits for score in SHOWN)]
        for name, scores in together
    ]
    console.table(header, rows, align="l" + "r" * (len(header) - 1))
    console.notes(result.notes, json=False)
    console.line()


def _show_comparison(result: EnsembleResult, console: Console) -> None:
    """Show every rule's out-of-fold validation scores; the best of them is too optimistic, because it was chosen."""
    rows, val = [], marked("val", [result.receipt["kinds"]])
    for line in result.receipt["comparison"]:
        name = line["rule"] + (" (chosen)" if line["chosen"] else "")
        if line["accuracy"] is None or line["nll"] is None:
            rows.append([name, "", "", f"left out: {line['refused']}"])
            continue
        over = "" if line["standard_error"] is None else f"{line['nll_over_mean']:+.3f} ± {line['standard_error']:.3f}"
        rows.append([name, figure("accuracy", line["accuracy"]), figure("nll", line["nll"]), over])
    console.table(["rule", f"{val} accuracy", f"{val} nll", "nll over mean ± se"], rows, align="lrrw")
    console.line()


def _show_weights(result: EnsembleResult, console: Console) -> None:
    """Show the weights that were fitted to the members, and which of these change nothing."""
    weights = result.receipt["parameters"].get("weights")
    if not weights or result.receipt["derived"]:
        return
    names = [member["checkpoint"] for member in result.receipt["members"]]
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    idle = sum(weight == 0 for weight in weights)
    console.line(f"weights: {shown}" + ("; those of weight 0 change nothing, and take their time" if idle else ""))
    console.line()


def _show_members(result: EnsembleResult, console: Console) -> None:
    """Table of members: each one's contribution, if known, and the share of images on which each pair disagrees."""
    receipt = result.receipt
    split = "val" if receipt["ensemble"]["test"] is None else "test"
    matrix = receipt["disagreement"][split]
    if matrix is None:
        return
    numbers = [str(number) for number in range(1, len(matrix) + 1)]
    worth = receipt["derived"] is None
    shown = marked(split, [receipt["kinds"]])
    header = [f"{shown} accuracy without it", "nll without it"] if worth else []
    header = ["", "", *header, *(f"≠ {number}" for number in numbers)]
    rows = []
    for number, member, shares in zip(numbers, receipt["members"], matrix, strict=True):
        without = (member["leave_one_out"] or {}).get(split)
        lost = ["", ""] if without is None else [f"{0 - 100 * without['accuracy']:+.1f}", f"{without['nll']:+.3f}"]
        lost = lost if worth else []
        rows.append([number, member["checkpoint"], *lost, *(f"{100 * share:.0f} %" for share in shares)])
    console.table(header, rows, align="ll" + "r" * (len(header) - 2))
    console.line()
