"""Wording of the report: the result in a sentence, and the sentences about scores and what was scored."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tl_kit import metrics
from tl_kit.combining.receipt import Receipt
from tl_kit.display import HONEST, visible
from tl_kit.errors import CheckpointError
from tl_kit.report_page.figures import Figure, Record, count, percent
from tl_kit.report_page.saved_results import Saved, Split
from tl_kit.report_page.scored import Scored
from tl_kit.reports.sentences import findings as receipt_findings
from tl_kit.reports.sentences import verdict
from tl_kit.score_kinds import what_chose
from tl_kit.storage.checkpoint import refit_digests

__all__ = ["headline", "images_figure", "left_classes", "receipt_lines", "scored_text", "short_names"]


def headline(saved: Saved, report: Record, computed: dict[str, Any]) -> tuple[tuple[Figure | str, ...], bool]:
    """The result in one sentence, of texts and figures; whether it is an estimate for new images.

    The interval of a recorded accuracy becomes an entry of ``computed``, the content of ``report``.
    """
    split = saved.splits[0] if saved.splits else None
    low_high: list[Figure | None] = []
    if split is not None:
        accuracy = saved.record.figure(*split.path, "accuracy", shape=percent)
        images, kind, name = split.images, split.kind, split.name
        many: Figure | str = images_figure(saved, split) or (count(images) if images else "")
        if accuracy is not None and images:
            computed["headline_interval"] = list(metrics.wilson(min(max(accuracy.value, 0.0), 1.0), images))
            low_high = [report.figure("headline_interval", place, shape=percent) for place in (0, 1)]
    elif saved.kind == "ensemble" and computed and computed.get("own") and computed["kind"] not in HONEST:
        return ("This ensemble has no score: each image was seen by a member. --data PATH scores it on others.",), False
    elif computed:
        accuracy, images = report.figure("scores", "accuracy", shape=percent), computed["images"]
        many, kind, name = report.figure("images", shape=count) or "", computed["kind"], computed["split"]
        low_high = [report.figure("interval", place, shape=percent) for place in (0, 1)]
    else:
        return ("This result has no scores yet.",), False
    if accuracy is None:
        return ("This result has no accuracy on record.",), False
    parts: list[Figure | str] = [accuracy, " of the "]
    parts += [many, " "] if many else []
    whose = "" if computed.get("own", True) else " of --data" if split is None else " of the run"
    one = images == 1
    parts.append(f"{_image_word(name)} image{'' if one else 's'}{whose} {'is' if one else 'are'} classified right")
    if low_high:
        parts += [" (95\u00a0% interval ", *(each for each in (low_high[0], " to ", low_high[1]) if each), ")"]
    data = [run.content.get("data") for run in saved.runs]
    refit = name == "val" and any(isinstance(each, dict) and each.get("refit") is True for each in data)
    parts.append(f"; {_kind_text(kind, saved.chosen, refit=refit)}.")
    if computed.get("own") and (lacking := computed["unscored"]["classes"]):
        have = "class has" if lacking == 1 else "classes have"
        parts.append(f" {count(lacking)} {have} no image among them.")
    return tuple(parts), kind in HONEST


def images_figure(saved: Saved, split: Split) -> Figure | None:
    """The number of a split's images as a figure of the record; None where the record has none."""
    for path in (
        ("images",),
        ("images", split.name),
        ("data", "images", split.name),
        ("receipt", "images", split.name),
    ):
        parent = saved.record.content if len(path) == 1 else saved.record.at(*path[:-1])
        if isinstance(parent, dict) and split.images is not None and parent.get(path[-1]) == split.images:
            return saved.record.figure(*path, shape=count)
    return None


def _image_word(split: str) -> str:
    return {"val": "validation", "all": "labelled", "out of fold": "scored"}.get(split, visible(split))


def _kind_text(kind: str, chose: Sequence[str], *, refit: bool = False) -> str:
    """A clause on the value of a score; ``refit``: the final model was fitted to these images too."""
    if refit and kind == "test":
        return (
            "they were scored by a model that was fitted without them, and the final one was then fitted to them too, "
            "so this is an estimate for new images like these"
        )
    return {
        "test": "none of them had a part in the model, so this is an estimate for new images like these",
        "out of fold": "each was scored by a model in which it had no part, so this is an estimate for one such model",
        "selected on": f"they chose {what_chose(chose)}, so this is too good as an estimate for new images",
        "trained on": "the model was trained on them, so this says nothing about new images",
        "mixed": "some of them had a part in the model, so this is too good as an estimate for new images",
    }.get(kind, "it is not recorded whether the model has seen them")


def scored_text(scored: Scored) -> str:
    """A sentence about the images behind the tables and pictures: which they are, and who predicted them."""
    images = count(len(scored.labels))
    if scored.models is not None:
        return f"What follows is of all {images} images, each as the model predicted it that had not seen it."
    how = "as the run predicted them" if scored.kept else "predicted anew for this report"
    whose = "" if scored.own else " of --data"
    text = f"What follows is of the {images} {_image_word(scored.split)} images{whose}, {how}"
    members = () if scored.predictor is None else scored.predictor.members
    refit = scored.split == "val" and any(refit_digests(member.meta) for member in members)
    return f"{text}; {_kind_text(scored.kind, scored.predictor.uses.chose if scored.predictor else (), refit=refit)}."


def left_classes(saved: Saved, scored: Scored, *, shown: int) -> str:
    """The sentence about classes that are not in the table, and where all of them stand; empty if none is left out."""
    left = len(scored.classes) - shown
    if left <= 0:
        return ""
    text = f"These are the {count(shown)} classes with most errors; {count(left)} others are left out. "
    if scored.models is not None:
        return f"{text}out_of_fold.csv has every prediction."
    data = "PATH" if scored.data is None else shlex.quote(str(scored.data))
    command = f"tlkit evaluate {shlex.quote(str(saved.folder))} --data {data} --split {scored.split} --json"
    return f"{text}{visible(command)} prints the figures of all classes and the whole matrix."


def receipt_lines(saved: Saved) -> list[str]:
    """Return the receipt as sentences; an empty list for a receipt of an earlier version, which lacks entries.

    Raises CheckpointError if it was changed so that they cannot be said.
    """
    if saved.receipt is None:
        return []
    receipt: Receipt = saved.record.at(*saved.receipt)
    try:
        lines = [verdict(receipt), *receipt_findings(receipt)]
    except KeyError:
        return []
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        where, name = saved.record.file or saved.record.name, ".".join(saved.receipt)
        raise CheckpointError(
            f"{where}: {name} cannot be read ({visible(str(error))}); the file is damaged or was changed"
        ) from error
    given = [str(member.get("checkpoint")) for member in receipt["members"]]
    for long, short in zip(given, short_names(given), strict=True):
        lines = [line.replace(long, short) for line in lines]
    return [visible(line) for line in lines]


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.replace("\\", "/").rstrip("/").split("/") for path in paths]
    for many in range(1, max(map(len, parts), default=1) + 1):
        found = ["/".join(each[-many:]) for each in parts]
        if len(set(found)) == len(set(paths)):
            return found
    return list(paths)
