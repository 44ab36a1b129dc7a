"""The output folder of ``ensemble``: checked before the work, and written completely or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.receipt import Receipt
from tl_kit.config import EnsembleConfig
from tl_kit.errors import CheckpointError
from tl_kit.inference.predictor import Predictor
from tl_kit.reports.receipt_picture import draw_receipt
from tl_kit.storage.atomic import check_name, check_writable, new_numbered_folder
from tl_kit.storage.ensemble_folder import PICTURE, write_ensemble
from tl_kit.storage.run_options import save_options
from tl_kit.storage.seen_images import Uses

__all__ = ["check_out", "write_output"]


def check_out(out: Path | None) -> None:
    """Check the output folder before any scoring. Raises CheckpointError if it is not empty, or cannot be made."""
    if out is None:
        return
    folder = Path(out)
    check_name(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(f"--out {out}: is not empty; choose another folder or remove it")
    check_writable(folder)


def write_output(
    config: EnsembleConfig, predictor: Predictor, *, rule: FittedRule, fitted_on: Uses, receipt: Receipt
) -> Path:
    """Write the folder with copies of the predictor's members. Raises CheckpointError if it cannot be written."""
    folder = Path(config.out) if config.out is not None else new_numbered_folder(Path(config.default_out), "ensemble")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if receipt["ensemble"]["val"] or receipt["ensemble"]["test"]:
            draw_receipt(receipt, folder / PICTURE)
        write_ensemble(
            folder,
            [member.path for member in predictor.members],
            classes=predictor.classes,
            rule=rule,
            crops=config.crops,
            mc_dropout=config.mc_dropout,
            fitted_on=fitted_on,
            receipt=dict(receipt),
            **({} if config.data is None else {"scored_on": str(Path(config.data).absolute())}),
        )
        save_options(folder, config, command="ensemble")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error
    return folder
