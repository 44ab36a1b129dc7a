"""``tlkit predict``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

import typer

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import PROBLEMS_FOUND
from tl_kit.config import PredictConfig
from tl_kit.errors import ConfigError

if TYPE_CHECKING:
    import tl_kit
    from tl_kit import Prediction, PredictionStream

__all__ = ["predict"]

_STDIN = "-"


@command(PredictConfig, usage="tlkit predict CKPT PATH...")
def predict(given: Given, console: Console) -> None:
    """Name images: the most probable classes of each. Exit code 1 if an image cannot be predicted."""
    asked = given.read(PredictConfig)
    _check(asked)
    import tl_kit

    images = [_paths(asked, console) if image == _STDIN else image for image in asked.images]
    options: dict[str, Any] = {
        "crops": asked.crops,
        "mc_dropout": asked.mc_dropout,
        "decode": asked.decode,
        "fetch": asked.fetch,
        "image_column": asked.image_column,
        "runtime": asked.runtime,
        "reporter": console,
    }
    if asked.out is not None:
        written = tl_kit.predict_to_file(
            asked.checkpoint,
            images,
            asked.out,
            format=None if asked.format == "table" else asked.format,
            top=asked.top,
            resume=asked.resume,
            **options,
        )
        console.done()
        console.entry("predictions", str(written.path))
        failed, count = written.failed, written.rows
    else:
        with closing(tl_kit.predict_stream(asked.checkpoint, images, **options)) as found:
            failed, count = _show(found, asked, console)
    if failed:
        console.message(f"{failed} of {count} images could not be predicted; their rows say why")
        raise typer.Exit(PROBLEMS_FOUND)


def _check(asked: PredictConfig) -> None:
    """Raises ConfigError for options that do not go together."""
    if asked.out is None and asked.resume:
        raise ConfigError("--resume: goes on with a file; name it with --out")
    if asked.out is None and asked.format == "parquet":
        raise ConfigError("--format parquet: is written to a file; name it with --out")
    if asked.out is not None and asked.format == "table":
        raise ConfigError("--format table: is for people; a file (--out) is csv, jsonl or parquet")
    if asked.images.count(_STDIN) > 1:
        raise ConfigError("-: is given twice, and standard input can be read once")
    if asked.null and _STDIN not in asked.images:
        raise ConfigError("--null: is for paths on standard input; give - in the place of a path")
    if asked.fetch.allow_private and not asked.fetch.urls:
        raise ConfigError("--allow-private: is for addresses; give --urls too")


def _paths(asked: PredictConfig, console: Console) -> tl_kit.PathList:
    """The paths on standard input."""
    from tl_kit import PathList

    stream: IO[bytes] | None = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise ConfigError("-: there is no standard input; give paths")
    if stream.isatty():
        console.message("reading paths from the terminal, one a line; Ctrl-D ends them")
    return PathList(stream, null=asked.null)


def _show(found: PredictionStream, asked: PredictConfig, console: Console) -> tuple[int, int]:
    """Show predictions as they come, or for people all in one table; how many failed, and of how many."""
    from tl_kit import Rows

    if asked.format in (None, "table"):
        together = list(found)
        _table(together, asked.top, console)
        return sum(prediction.error is not None for prediction in together), len(together)
    rows, failed, count = Rows(asked.format or "", min(asked.top, len(found.classes))), 0, 0
    for prediction in found:
        console.stream(("" if count else rows.header) + rows.text([prediction]))
        failed += prediction.error is not None
        count += 1
    console.done()
    return failed, count


def _table(found: Sequence[Prediction], top: int, console: Console) -> None:
    """Show one row per image; reasons for missing predictions, if any, have a separate column."""
    best = [list(prediction.probabilities.items())[:top] for prediction in found]
    widest = max(map(len, best))
    errors = ["error"] if any(prediction.error is not None for prediction in found) else []
    rows = []
    for prediction, pairs in zip(found, best, strict=True):
        cells = [cell for label, p in pairs for cell in (label, f"{100 * p:.1f} %")]
        reason = [prediction.error or ""] if errors else []
        rows.append([prediction.source, *cells, *[""] * (2 * widest - len(cells)), *reason])
    suffixes = ["", *(f" {rank}" for rank in range(2, top + 1))]
    names = [f"{name}{suffix}" for suffix in suffixes for name in ("label", "prob.")]
    console.table(["image", *names[: 2 * widest], *errors], rows, align="l" + "lr" * widest + "w" * len(errors))
