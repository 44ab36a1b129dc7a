"""Settings, evidence, versions and times of a result, as rows of text and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from tl_kit.config import EnsembleConfig, FinetuneConfig, FitConfig
from tl_kit.display import visible
from tl_kit.report_page.figures import Figure, Record, count, milliseconds, percent, plain, points, seconds, signed
from tl_kit.report_page.saved_results import Saved
from tl_kit.report_page.wording import short_names
from tl_kit.storage.config_json import to_json

__all__ = [
    "choices",
    "combination",
    "digests",
    "disagreements",
    "facts_of_run",
    "leaderboard",
    "member_rows",
    "options",
    "times",
    "versions",
]

Row = tuple[str, "Figure | str"]
_HIDDEN = ("data", "model", "out")


def options(saved: Saved) -> list[Row]:
    """Options that differ from their defaults, of the result's own command or else of its first run."""
    for record in (saved.record, *saved.runs):
        config = record.mapping("config")
        if config:
            return list(_changed(config))
    return []


def _changed(config: Mapping[str, Any]) -> Iterator[Row]:
    kinds: dict[str, type[Any]] = {"checkpoints": EnsembleConfig, "time": FitConfig}
    kind: Any = next((known for name, known in kinds.items() if name in config), FinetuneConfig)
    usual = {field.name: to_json(field.default) for field in fields(kind) if field.default is not MISSING}
    for name, value in config.items():
        if value is None and name in _HIDDEN:
            continue
        default = usual.get(name)
        if name in _HIDDEN or name not in usual:
            yield visible(name), visible(_short(value))
        elif isinstance(value, Mapping) and isinstance(default, Mapping):
            for inner, one in value.items():
                if inner not in default or _flat(one) != _flat(default[inner]):
                    yield visible(f"{name}.{inner}"), visible(_short(one))
        elif _flat(value) != _flat(default):
            yield visible(name), visible(_short(value))


def _flat(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _epoch_title(record: Record) -> str:
    """The title of the best epoch, which is not kept where the head guard keeps another network."""
    return "epoch kept" if record.text("guard", "kept") in ("", "trained") else "best epoch of the training"


def facts_of_run(record: Record) -> list[Row]:
    """Outcome of a run: policy, epochs, optimizer, rate, and the outcome of its audit."""
    rows: list[Row] = []
    for title, path in (
        ("network", ("config", "model")),
        ("weights", ("weights", "source")),
        ("policy", ("policy",)),
        ("optimizer", ("settings", "optimizer")),
        ("schedule", ("settings", "schedule")),
        ("augmentation", ("settings", "augment")),
        ("precision", ("precision",)),
    ):
        if record.text(*path):
            rows.append((title, visible(record.text(*path))))
    for title, path, shape in (
        ("trained parameters", ("trainable_parameters",), count),
        ("epochs", ("epochs",), count),
        (_epoch_title(record), ("best_epoch",), count),
        ("learning rate", ("settings", "lr"), "{:.3g}".format),
        ("frozen tensors", ("audit", "frozen_tensors"), count),
        ("of them changed", ("audit", "changed_tensors"), count),
        ("cross-validated accuracy", ("cross_validated", "accuracy"), percent),
        ("cross-validated NLL", ("cross_validated", "nll"), plain),
    ):
        figure = record.figure(*path, shape=shape)
        if figure is not None:
            rows.append((title, figure))
    return rows


def combination(saved: Saved) -> list[Row]:
    """Combination of an ensemble's members: rule, temperature, crops of an image, passes with dropout."""
    if saved.receipt is None:
        return []
    record, rows = saved.record, list[Row]()
    if record.text(*saved.receipt, "rule"):
        rows.append(("rule", visible(record.text(*saved.receipt, "rule"))))
    for title, path, shape in (
        ("temperature", (*saved.receipt, "calibration", "temperature"), plain),
        ("crops of an image", ("crops",), count),
        ("passes with dropout", ("mc_dropout",), count),
    ):
        figure = record.figure(*path, shape=shape)
        if figure is not None:
            rows.append((title, figure))
    return rows


def choices(record: Record) -> list[tuple[str, bool, Figure | None, Figure | None]]:
    """Candidates that the head guard compared on validation: name, whether it was kept, accuracy and NLL."""
    compared = record.mapping("guard", "compared")
    crossed = {"head"} if record.at("guard", "out_of_fold") is True else set[str]()
    return [
        (
            visible(name) + (", cross-validated" if name in crossed else ""),
            name == record.text("guard", "kept"),
            record.figure("guard", "compared", name, "accuracy", shape=percent),
            record.figure("guard", "compared", name, "nll", shape=plain),
        )
        for name in compared
    ]


def disagreements(saved: Saved) -> list[list[Figure | None]]:
    """Shares of images on which members disagree, a row for each member; empty where the receipt has none."""
    if saved.receipt is None or not saved.splits:
        return []
    path = (*saved.receipt, "disagreement", saved.splits[0].name)
    many = range(len(saved.record.listed(*path, of=list)))
    if len(many) < 2:
        return []
    return [[saved.record.figure(*path, row, column, shape=percent) for column in many] for row in many]


def leaderboard(saved: Saved) -> list[tuple[str, str, bool, list[Figure | None]]]:
    """The rows of a fit: network, step, whether it is in the result, accuracy, NLL, latency (ms), seconds."""
    if saved.kind != "fit":
        return []
    record, found = saved.record, []
    for place, row in enumerate(record.listed("leaderboard", of=dict)):
        figures = [
            record.figure("leaderboard", place, name, shape=shape)
            for name, shape in (("accuracy", percent), ("nll", plain), ("latency", milliseconds), ("seconds", seconds))
        ]
        network, step = (record.text("leaderboard", place, name) for name in ("network", "what"))
        found.append((visible(network), visible(step), row.get("chosen") is True, figures))
    return found


def member_rows(saved: Saved) -> list[tuple[str, list[Figure | None], list[str]]]:
    """An ensemble's members: name, accuracy and NLL on the best split, what is lost without it, and kinds."""
    if saved.receipt is None or not saved.splits:
        return []
    record, split = saved.record, saved.splits[0].name
    many = range(len(record.listed(*saved.receipt, "members", of=dict)))
    names = short_names([record.text(*saved.receipt, "members", place, "checkpoint") for place in many])
    found = []
    for place, name in zip(many, names, strict=True):
        path: tuple[str | int, ...] = (*saved.receipt, "members", place)
        figures = [
            record.figure(*path, split, "accuracy", shape=percent),
            record.figure(*path, split, "nll", shape=plain),
            record.figure(*path, "leave_one_out", split, "accuracy", shape=points),
            record.figure(*path, "leave_one_out", split, "nll", shape=signed),
        ]
        found.append((visible(name), figures, [record.text(*path, "kinds", split)]))
    return found


def versions(saved: Saved) -> list[Row]:
    """The versions of packages, of the result or else of its first run."""
    for record in (saved.record, *saved.runs):
        found = record.mapping("versions")
        if found:
            return [(visible(name), visible(record.text("versions", name))) for name in found]
    return []


def digests(saved: Saved) -> list[Row]:
    """Digests: of the images with labels and splits, and of the pretrained weights of each run."""
    rows: list[Row] = []
    for record in dict.fromkeys(one.name for one in saved.runs):
        run = next(one for one in saved.runs if one.name == record)
        for title, path in (("images", ("data", "content")), ("pretrained weights", ("weights", "sha256"))):
            if run.text(*path):
                rows.append((f"{title} ({visible(run.name)})", visible(run.text(*path))))
    return rows


def times(saved: Saved) -> list[Row]:
    """Seconds by stage, of the result or else of its first run; a fit's in one number."""
    for record in (saved.record, *saved.runs):
        found = record.at("seconds")
        if isinstance(found, Mapping):
            rows = [(visible(str(name)), record.figure("seconds", name, shape=seconds)) for name in found]
            return [(name, figure) for name, figure in rows if figure is not None]
        figure = record.figure("seconds", shape=seconds)
        if figure is not None:
            return [("total", figure)]
    return []
