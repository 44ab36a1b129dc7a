"""``tlkit finetune --folds K``: what is printed, what is written, and how it ends."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import CLASSES
from tests.cli.helpers import MODEL, TINY, Outcome, tlkit
from tests.helpers import write_images
from tests.torture.processes import NO_FORKS, Command
from tl_kit.storage.checkpoint import is_checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")


def run(images: Path, out: Path, *flags: object) -> Outcome:
    return tlkit("finetune", MODEL, "--data", images, *TINY, "--policy", "head", "--folds", 3, "--out", out, *flags)


@pytest.fixture(scope="module")
def mislabelled(images: Path) -> Path:
    """The story's images, with two in each other's class."""
    data = Path(shutil.copytree(images, images.parent / "mislabelled"))
    (data / "2" / "0-4.png").rename(data / "10" / "two.png")
    (data / "10" / "0-7.png").rename(data / "2" / "ten.png")
    return data


@pytest.fixture(scope="module")
def shown(mislabelled: Path) -> tuple[Path, Outcome]:
    out = mislabelled.parent / "[bold]folds"
    return out, run(mislabelled, out)


def test_the_folder_holds_a_checkpoint_a_fold_and_three_files(shown: tuple[Path, Outcome]) -> None:
    out, done = shown
    assert done.code == 0, done.err
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml",
        *("fold-1", "fold-2", "fold-3"),
        *("folds.json", "out_of_fold.csv", "suspects.csv"),
    ]
    assert all(is_checkpoint(out / f"fold-{number}") for number in (1, 2, 3))


def test_the_table_shows_what_the_summary_holds(shown: tuple[Path, Outcome]) -> None:
    out, done = shown
    summary = json.loads((out / "folds.json").read_text())
    lines = done.out.splitlines()
    for fold in summary["folds"]:
        line = next(line for line in lines if line.startswith(f"fold {fold['fold']} "))
        assert re.split(r" {2,}", line)[1:] == [
            "10",
            *(f"{100 * fold['test'][name]:.1f} %" for name in ("accuracy", "macro_f1")),
            f"{fold['test']['nll']:.3f}",
            f"{fold['seconds']:.1f} s",
        ]
    together = next(line for line in lines if line.startswith("out of fold"))
    assert f"{100 * summary['out_of_fold']['accuracy']:.1f} %" in together
    over = next(line for line in lines if line.startswith("over folds: "))
    mean, error = (100 * summary[name]["accuracy"] for name in ("mean", "standard_error"))
    assert f"accuracy {mean:.1f} ± {error:.1f} %" in over
    assert f"nll {summary['mean']['nll']:.3f} ± {summary['standard_error']['nll']:.3f}" in over


def test_the_suspects_are_shown_and_all_files_named(shown: tuple[Path, Outcome]) -> None:
    out, done = shown
    suspects = suspects_of(out)
    assert f"suspect labels: {len(suspects)} ({100 * len(suspects) / 30:.1f} % of the images)\n" in done.out
    rows = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in done.out.splitlines() if ".png " in line}
    assert len(rows) == len(suspects) <= 10
    assert list(rows)[:2] == ["2/ten.png", "10/two.png"] or list(rows)[:2] == ["10/two.png", "2/ten.png"]
    assert (rows["2/ten.png"][0], rows["2/ten.png"][2]) == ("2", "10")
    for row in suspects:
        assert rows[row["path"]][1] == f"{100 * float(row['p_label']):.1f} %"
        assert rows[row["path"]][3] == f"{100 * float(row['p_suggested']):.1f} %"
    for name in ("folds.json", "out_of_fold.csv", "suspects.csv"):
        assert f": {out / name}\n" in done.out
    assert "\x1b" not in done.out + done.err
    assert "3 folds of all 30 images, stratified" in done.err


def suspects_of(out: Path) -> list[dict[str, str]]:
    with (out / "suspects.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_of_many_suspects_the_first_ten_are_shown(tmp_path: Path) -> None:
    """Labels that mean nothing: one colour in three folders."""
    grey = write_images(tmp_path / "all", ("grey",), images=45) / "grey"
    for number, file in enumerate(sorted(grey.iterdir())):
        folder = tmp_path / "images" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    done = run(tmp_path / "images", tmp_path / "run")
    suspects = suspects_of(tmp_path / "run")
    assert len(suspects) > 10
    assert f"suspect labels: {len(suspects)} (" in done.out
    assert "; the first 10 of them\n" in done.out
    listed = [line.split()[0] for line in done.out.splitlines() if ".png " in line]
    assert listed == [row["path"] for row in suspects[:10]]


def test_json_is_one_object(mislabelled: Path, shown: tuple[Path, Outcome], tmp_path: Path) -> None:
    found = run(mislabelled, tmp_path / "run", "--json").json
    assert set(found) == {
        *("folder", "model", "classes", "images", "kind", "folds", "out_of_fold", "mean", "standard_error"),
        *("suspects", "files", "seconds"),
    }
    assert found["classes"] == list(CLASSES)
    assert found["images"] == sum(fold["images"]["test"] for fold in found["folds"]) == 30
    summary = json.loads((shown[0] / "folds.json").read_text())
    for name in ("out_of_fold", "mean", "standard_error", "suspects"):
        assert found[name] == summary[name]  # the same command twice, the same figures


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        (1, "--folds 1: must be at least 2"),
        (11, "--folds 11: no class has so many images; the largest number below that works is 10"),
        ("three", "--folds"),
    ],
)
def test_what_cannot_be_is_one_line(images: Path, tmp_path: Path, folds: object, says: str) -> None:
    done = run(images, tmp_path / "run", "--folds", folds)
    assert (done.code, done.out) == (2, "")
    assert says in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_the_folder_of_all_folds_is_refused_where_a_checkpoint_is_wanted(
    images: Path, shown: tuple[Path, Outcome]
) -> None:
    done = tlkit("evaluate", shown[0], "--data", images)
    assert done.code == 2
    assert "give one of them, such as fold-1" in done.err
    assert tlkit("evaluate", shown[0] / "fold-1", "--data", images, "--split", "all").code == 0


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
def test_ctrl_c_keeps_the_finished_folds_and_says_so(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = (*TINY, "--policy", "full", "--epochs", 1, "--folds", 10, "--out", out)
    command = ("finetune", MODEL, "--data", images, *options, "--json")
    process = Command(command, tmp_path / "err", out=tmp_path / "out")
    assert process.wait_for("\nfold 2 of 10")
    process.send(signal.SIGINT)
    assert (process.wait(), (tmp_path / "out").read_text()) == (130, "")
    assert process.text().splitlines()[-1].startswith("interrupted: 1 of 10 folds are finished, in ")
    assert "Traceback" not in process.text()
    assert is_checkpoint(out / "fold-1")
    assert {path.name for path in out.iterdir()} <= {"config.yaml", "fold-1", "fold-2", "state"}
    again = tlkit("finetune", MODEL, "--data", images, *options)
    assert again.code == 2
    assert "is not empty" in again.err
