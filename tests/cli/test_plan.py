"""``tlkit plan``: what it prints, and that it writes no checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import Outcome, tlkit
from tests.helpers import MODEL, quick, write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    write_images(folder / "images", images=15)
    quick(folder / "images", folder / "pretrained")
    return folder


def plan(folder: Path, *flags: object) -> Outcome:
    command = ("plan", MODEL, "--data", folder / "images", "--weights", folder / "pretrained", "--img-size", 32)
    return tlkit(*command, "--batch-size", 8, *flags)


def test_a_table_of_probes_one_of_choices_time_and_memory(folder: Path) -> None:
    done = plan(folder, "--policy", "last:2", "--epochs", 2)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["features", "of", "channels", "cross-validated", "s.e."]
    assert any(line.startswith("head input") and "%" in line for line in lines)
    assert any(line.startswith("your images are") for line in lines)
    for name in ("policy", "learning rate", "epochs", "batch size", "augmentation", "BatchNorm"):
        row = next(line for line in lines if line.startswith(name))
        assert len(row.split()) > 3, "each has its reason"
    assert "as you said" in next(line for line in lines if line.startswith("epochs"))
    assert any(line.startswith("time: about ") for line in lines)
    assert any(line.startswith("memory: about ") for line in lines)
    assert not (Path.cwd() / "ckpts").exists()


def test_json(folder: Path) -> None:
    done = plan(folder, "--json")
    assert done.code == 0, done.err
    assert set(done.json) == {"model", "policy", "facts", "choices", "settings", "steps", "estimate"}
    assert done.json["facts"]["images"] == 27
    assert set(done.json["estimate"]) == {"seconds", "stages", "bytes", "gpu_bytes"}
    assert done.json["estimate"]["bytes"] > 1e8, "torch alone takes more"


def test_a_mistake_is_one_line(folder: Path) -> None:
    done = plan(folder, "--policy", "lpft")
    assert done.code == 2
    assert "did you mean lp-ft?" in done.err.splitlines()[-1]
