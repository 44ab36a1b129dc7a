"""``tlkit plan``: what it prints, and that it writes no checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.helpers import Outcome, tlkit
from tests.helpers import MODEL, quick, quick_config, write_images
from tl_kit.data.scan import scan
from tl_kit.series.records import SeriesRecords


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
    assert set(done.json) == {"model", "policy", "facts", "choices", "settings", "steps", "estimate", "offers"}
    assert done.json["facts"]["images"] == 27
    assert set(done.json["estimate"]) == {"seconds", "stages", "bytes", "gpu_bytes", "head_alone"}
    assert done.json["estimate"]["bytes"] > 1e8, "torch alone takes more"


def test_a_mistake_is_one_line(folder: Path) -> None:
    done = plan(folder, "--policy", "lpft")
    assert done.code == 2
    assert "did you mean lp-ft?" in done.err.splitlines()[-1]


def test_several_runs_are_planned_once_for_each_kind(folder: Path) -> None:
    """Members that differ in their seed are of one kind, those of two policies are two."""
    command = ("--policy", "last:2", "--epochs", 1)
    done = plan(folder, *command, "--members", 3)
    assert done.code == 0, done.err
    assert done.out.count("time: about ") == 1
    assert done.out.splitlines()[-1].startswith("3 runs: about ")
    two = plan(folder, *command, "--policy", "last:1,full", "--vary", "policy")
    assert two.code == 0, two.err
    assert [line for line in two.out.splitlines() if line.endswith(":")] == ["last:1:", "full:"]
    assert two.out.splitlines()[-1].startswith("2 runs: about ")
    found = plan(folder, *command, "--folds", 4, "--json").json
    assert (found["runs"], len(found["plans"])) == (4, 1)
    assert found["seconds"] == pytest.approx(4 * found["plans"][0]["estimate"]["seconds"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--members", 2, "--folds", 2), "--folds: scores one model on every image"),
        (("--members", 1), "--members 1: must be at least 2"),
        (("--vary", "model"), "--vary model: give two names or more"),
        (("--save-every", "often"), "--save-every often: must be a number of seconds, or none"),
        (
            ("--resume", "run"),
            "MODEL: --resume continues with the options that the run began with; leave this option out",
        ),
    ],
)
def test_what_finetune_would_refuse_plan_refuses(folder: Path, flags: tuple[object, ...], message: str) -> None:
    done = plan(folder, *flags)
    assert done.code == 2
    assert message in done.err.splitlines()[-1]


def test_resume_plans_the_run_with_the_options_it_began_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths hold from another folder too, as they do for finetune."""
    planned = tlkit("plan", "--resume", folder / "pretrained", "--json").json
    began = json.loads((folder / "pretrained" / "tlkit.json").read_text())
    assert planned["model"] == MODEL
    assert planned["settings"]["epochs"] == began["settings"]["epochs"]
    assert planned["settings"]["lr"] == began["settings"]["lr"]


def test_resume_plans_members_that_ended_early(folder: Path, tmp_path: Path) -> None:
    config = quick_config(folder / "images", tmp_path / "members")
    began = SeriesRecords(tmp_path / "members", "members")
    (tmp_path / "members").mkdir()
    began.begin(config, 3, scan(folder / "images"), vary="bootstrap")
    found = tlkit("plan", "--resume", tmp_path / "members", "--json").json
    assert found["runs"] == 3
