"""Every command that prints a table, on terminals of four widths, with hostile names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminals import WIDTHS, hostile_images, shown, unfit
from tests.torture.table import record

pytestmark = pytest.mark.torture


def commands(top: Path, out: Path) -> dict[str, tuple[object, ...]]:
    data = ("--data", top / "images")
    model = ("test_resnet", *data, "--weights", "none", "--img-size", 32)
    quick, one = ("--policy", "full", "--epochs", 1), out / "members" / "member-1"
    return {
        "finetune": ("finetune", *model, "--policy", "head", "--out", out / "run"),
        "snapshots": ("finetune", *model, "--policy", "full", "--epochs", 2, "--late", 2, "--out", out / "late"),
        "folds": ("finetune", *model, "--policy", "head", "--folds", 2, "--out", out / "folds"),
        "members": ("finetune", *model, *quick, "--members", 6, "--out", out / "members"),
        "plan": ("plan", *model),
        "ensemble": ("ensemble", f"{out}/members/member-*", "--out", out / "ensemble"),
        "an ensemble of folds": ("ensemble", f"{out}/folds/fold-*", "--out", out / "of-folds"),
        "weighted": ("ensemble", f"{out}/late/epoch-*", "--rule", "weighted", "--out", out / "weighted"),
        "auto": ("ensemble", f"{out}/members/member-*", "--rule", "auto", "--out", out / "auto"),
        "evaluate": ("evaluate", one, *data),
        "predict": ("predict", one, top / "images", "--top", 5),
        "doctor": ("doctor", *data),
        "models": ("models", "resnet18"),
        "cache": ("cache",),
    }


@pytest.mark.parametrize("columns", WIDTHS)
def test_narrow_terminals(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile_images(tmp_path / "images")
    found = commands(tmp_path, tmp_path)
    lost = []
    for command, arguments in found.items():
        lines = shown(monkeypatch, columns, *arguments)
        if not lines or any(unfit(line, columns) for line in lines):
            lost.append(command)
    record("a narrow terminal", tries=len(found), survived=len(found) - len(lost), lost=lost)
