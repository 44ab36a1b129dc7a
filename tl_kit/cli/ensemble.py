"""``tlkit ensemble``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_kit.cli import options
from tl_kit.cli.console import Console
from tl_kit.cli.session import session
from tl_kit.cli.text import figure
from tl_kit.config import DecodeConfig, EnsembleConfig

if TYPE_CHECKING:
    from tl_kit.api import EnsembleResult

__all__ = ["ensemble"]

SHOWN = ("accuracy", "nll", "ece")


def ensemble(
    checkpoints: options.Checkpoints,
    data: options.DataOfMembers = EnsembleConfig.data,
    out: options.Out = EnsembleConfig.out,
    rule: options.Rule = EnsembleConfig.rule,
    calibrate: options.Calibrate = EnsembleConfig.calibrate,
    crops: options.Crops = None,
    scales: options.Scales = None,
    strict: options.Strict = EnsembleConfig.strict,
    max_pixels: options.MaxPixels = DecodeConfig.max_pixels,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Combine checkpoints into one that predicts on its own. Shows what was gained over the best of them."""
    with session(debug=debug) as console:
        chosen = options.crop_config(crops, scales) or EnsembleConfig.crops
        config = EnsembleConfig(
            checkpoints=tuple(checkpoints),
            data=data,
            out=out,
            rule=rule,
            calibrate=calibrate,
            crops=chosen,
            strict=strict,
            decode=DecodeConfig(max_pixels=max_pixels),
        )
        from tl_kit import api

        result = api.ensemble(config, reporter=console)
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)


def _show(result: EnsembleResult, console: Console) -> None:
    if result.receipt["comparison"]:
        _show_comparison(result, console)
    _show_scores(result, console)
    _show_members(result, console)
    for line in result.findings:
        console.line(line)
    console.line(f"each image: {result.crops}")
    console.line(f"picture: {result.picture}")
    console.line(f"checkpoint: {result.checkpoint}")


def _show_scores(result: EnsembleResult, console: Console) -> None:
    receipt = result.receipt
    splits = [split for split in ("val", "test") if receipt["ensemble"][split] is not None]
    header = ["", *(f"{split} {name}" for split in splits for name in SHOWN)]
    together: list[tuple[str, Any]] = [(member["checkpoint"], member) for member in receipt["members"]]
    together.append((f"ensemble ({receipt['rule']})", receipt["ensemble"]))
    rows = [
        [name, *(figure(score, scores[split][score]) for split in splits for score in SHOWN)]
        for name, scores in together
    ]
    console.table(header, rows, align="l" + "r" * (len(header) - 1))
    console.line()


def _show_comparison(result: EnsembleResult, console: Console) -> None:
    """Every rule's validation scores, out of fold."""
    rows = []
    for line in result.receipt["comparison"]:
        name = line["rule"] + (" (chosen)" if line["chosen"] else "")
        if line["accuracy"] is None or line["nll"] is None:
            rows.append([name, "", "", f"left out: {line['refused']}"])
            continue
        over = "" if line["standard_error"] is None else f"{line['nll_over_mean']:+.3f} ± {line['standard_error']:.3f}"
        rows.append([name, figure("accuracy", line["accuracy"]), figure("nll", line["nll"]), over])
    console.table(["rule", "val accuracy", "val nll", "nll over mean ± se"], rows, align="lrrl")
    console.line()


def _show_members(result: EnsembleResult, console: Console) -> None:
    """What each member is worth, and with which share of images it disagrees with each other one."""
    receipt = result.receipt
    split = "val" if receipt["ensemble"]["test"] is None else "test"
    matrix = receipt["disagreement"][split] or []
    numbers = [str(number) for number in range(1, len(matrix) + 1)]
    header = ["", f"{split} accuracy without it", "nll without it", *(f"≠ {number}" for number in numbers)]
    rows = []
    for number, member, shares in zip(numbers, receipt["members"], matrix, strict=True):
        without = (member["leave_one_out"] or {}).get(split)
        lost = ["", ""] if without is None else [f"{-100 * without['accuracy']:+.1f}", f"{without['nll']:+.3f}"]
        rows.append([f"{number}  {member['checkpoint']}", *lost, *(f"{100 * share:.0f} %" for share in shares)])
    console.table(header, rows, align="l" + "r" * (len(header) - 1))
    console.line()
