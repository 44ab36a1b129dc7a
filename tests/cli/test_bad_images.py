"""Folders with everything wrong in them, from the command line: told, counted, predicted around, or refused."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.helpers import MODEL, TINY, Outcome, tlkit
from tests.helpers import write_images
from tests.images.bad_images import BROKEN, ENTRIES, KINDS, ODD_NAMES, plant, reason_of
from tl_kit.config import LeftOutConfig

BAD = {kind for kind in KINDS if reason_of(kind) is not None}
SEED = 5  # images of their own: features that other tests compute in other batches stay out of the cache of these
HEAD = (*TINY, "--policy", "head")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clean/`` has three classes of 10 images; ``data/`` the same, and every bad kind in the first class."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("clean", "data"):
        write_images(folder / name, images=10, seed=SEED)
    for kind in KINDS:
        plant(folder / "data" / "red", kind)
    (folder / "data" / ".DS_Store").write_bytes(b"\0")
    done = tlkit("finetune", MODEL, "--data", folder / "clean", *HEAD, "--out", folder / "ckpt", "--seed", 1)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Outcome:
    return tlkit("finetune", MODEL, "--data", folder / "data", *HEAD, "--out", folder / "trained", "--json")


def said(outcome: Outcome) -> list[str]:
    """What is said of files left out, as it is, without stages and figures."""
    return [line for line in outcome.err.splitlines() if line.startswith("left out: ")]


def check_left_out(listed: list[dict[str, str]], root: Path) -> None:
    assert Counter(item["path"] for item in listed) == Counter(str(root / "red" / kind) for kind in BAD)
    for item in listed:
        words = reason_of(Path(item["path"]).name)
        assert words is not None
        assert words in item["reason"]


def test_finetune_trains_on_the_rest_and_lists_what_it_left_out(folder: Path, trained: Outcome) -> None:
    check_left_out(trained.json["left_out"], folder / "data")
    meta = json.loads((folder / "trained" / "tlkit.json").read_text(encoding="utf-8"))
    assert meta["left_out"] == trained.json["left_out"]
    lines = said(trained)
    seen = sum(line.count(str(folder / "data" / "red")) for line in lines)
    more = sum(int(line.split()[2]) for line in lines if " more; " in line)
    assert seen + more == len(BAD)
    assert f"left out: {folder}/data/red/above: symbolic link to a folder that is read already" in lines
    assert "left out: hidden files and folders (1)" in lines
    assert max(Counter(line.split(": ")[0] for line in lines).values()) <= 4 * (LeftOutConfig.shown + 2)
    assert all(line.isprintable() for line in trained.err.splitlines())


def test_evaluate_scores_the_rest(folder: Path, trained: Outcome) -> None:
    done = tlkit("evaluate", folder / "ckpt", "--data", folder / "data", "--split", "all", "--json")
    assert done.json["images"] == 30 + len(KINDS) - len(BAD)
    check_left_out(done.json["left_out"], folder / "data")
    assert len(said(done)) >= LeftOutConfig.shown


def test_ensemble_tells_what_it_left_out(folder: Path, trained: Outcome) -> None:
    members = [folder / "trained"]
    again = tlkit("finetune", MODEL, "--data", folder / "data", *HEAD, "--seed", 2, "--out", folder / "second")
    assert again.code == 0
    done = tlkit("ensemble", *members, folder / "second", "--out", folder / "both", "--no-calibrate", "--json")
    assert done.code == 0, done.err
    assert said(done)[: LeftOutConfig.shown] == said(trained)[: LeftOutConfig.shown]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predict_has_a_row_for_every_input(folder: Path, form: str) -> None:
    clean = tlkit("predict", folder / "ckpt", folder / "clean", "--format", "jsonl")
    assert clean.code == 0
    done = tlkit("predict", folder / "ckpt", folder / "data", folder / "nothing.jpg", "--format", form, "--top", 1)
    assert done.code == 1
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(done.out)))
    else:
        rows = [json.loads(line) for line in done.out.splitlines()]
    assert "Traceback" not in done.err
    wanted = [str(folder / "data" / "red" / kind) for kind in KINDS]
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows) == 30 + len(wanted) + 1
    for kind, path in zip(KINDS, wanted, strict=True):
        error = found[path]["error"] or None
        assert (error is None) == (reason_of(kind) is None), kind
        assert error is None or (reason_of(kind) or "") in error
    assert found[str(folder / "nothing.jpg")]["error"].startswith("cannot be read: ")
    assert f"{len(BAD) + 1} of {len(rows)} images could not be predicted; their rows say why" in done.err
    for line in clean.out.splitlines():
        alone = json.loads(line)
        among = found[alone["path"].replace("/clean/", "/data/")]
        assert among["label"] == alone["label"]
        assert float(among["probability"]) == pytest.approx(alone["probability"], abs=1e-6)


def test_predict_takes_wildcards_and_files_that_look_like_them(folder: Path) -> None:
    data = folder / "data"
    given = [data / "green" / f"{SEED}-*.png", data / "red" / "*.png", data / "**" / f"{SEED}-3.png"]
    done = tlkit("predict", folder / "ckpt", *given, "--format", "jsonl")
    rows = [json.loads(line) for line in done.out.splitlines()]
    paths = [row["path"] for row in rows]
    assert sorted(paths[:10]) == sorted(str(data / "green" / f"{SEED}-{n}.png") for n in range(10))
    assert (paths[10], rows[10]["error"]) == (str(data / "red" / "*.png"), None), "a file of that name"
    assert {Path(path).parent.name for path in paths[11:]} == {"red", "blue"}, "below links there is no end"
    assert len(set(paths)) == len(paths), "what the first pattern gave, the last does not give again"


def test_a_folder_without_files_is_a_row_beside_others(folder: Path, tmp_path: Path) -> None:
    image = folder / "data" / "green" / f"{SEED}-0.png"
    done = tlkit("predict", folder / "ckpt", tmp_path, image, "--format", "jsonl")
    assert done.code == 1
    assert [json.loads(line)["error"] for line in done.out.splitlines()] == ["folder without files", None]
    alone = tlkit("predict", folder / "ckpt", tmp_path)
    assert (alone.code, alone.out) == (2, "")


@pytest.mark.parametrize("command", ["finetune", "folds", "plan", "evaluate", "ensemble"])
def test_strict_makes_one_line_of_them(command: str, folder: Path, tmp_path: Path, trained: Outcome) -> None:
    data, out = ("--data", folder / "data"), ("--out", tmp_path / "out")
    arguments: dict[str, tuple[object, ...]] = {
        "finetune": ("finetune", MODEL, *data, *HEAD, *out),
        "folds": ("finetune", MODEL, *data, *HEAD, *out, "--folds", 2),
        "plan": ("plan", MODEL, *data, "--weights", "none", "--img-size", 32),
        "evaluate": ("evaluate", folder / "ckpt", *data),
        "ensemble": ("ensemble", folder / "trained", folder / "ckpt", *data, *out),
    }
    done = tlkit(*arguments[command], "--strict")
    assert (done.code, done.out) == (2, "")
    line = done.err.splitlines()[-1]
    first = f"{folder}/data/red/600-scans.jpg: too large: "
    assert line.startswith(f"error: --strict: {len(BAD)} files or folders cannot be used, the first: {first}")
    assert line.endswith(f"; `tlkit doctor --data {folder}/data --json` lists all")
    assert not said(done)
    assert not (tmp_path / "out").exists()


def test_strict_passes_sound_images_and_hidden_files(folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", seed=SEED)
    (tmp_path / "data" / "red" / ".DS_Store").write_bytes(b"\0")
    assert tlkit("evaluate", folder / "ckpt", "--data", tmp_path / "data", "--strict").code == 0
    cut = tmp_path / "data" / "red" / "cut.png"  # its header is sound: only its pixels are not
    cut.write_bytes((tmp_path / "data" / "red" / f"{SEED}-1.png").read_bytes()[:2000])
    done = tlkit("evaluate", folder / "ckpt", "--data", tmp_path / "data", "--strict")
    assert done.code == 2
    assert f"--strict: 1 file or folder cannot be used, the first: {cut}: truncated; " in done.err


def test_doctor_lists_them_all(folder: Path) -> None:
    report = tlkit("doctor", "--data", folder / "data", "--json").json
    findings = [finding for finding in report["findings"] if finding["code"] == "excluded"]
    paths = [path for finding in findings for path in finding["paths"]]
    assert set(paths) == {str(folder / "data" / "red" / kind) for kind in BAD} | {str(folder / "data" / ".DS_Store")}


def test_max_pixels_moves_the_limit_of_every_command(folder: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", images=6, seed=SEED)  # 48 x 40 = 1,920 pixels
    big = data / "red" / "big.png"
    big.write_bytes((folder / "data" / "red" / "1x10000.png").read_bytes())
    limit, reason = ("--max-pixels", 9999), "too large: 1x10000 pixels, decompression bomb limit 9999 pixels"
    for command in (
        ("finetune", MODEL, "--data", data, *HEAD, "--out", tmp_path / "run"),
        ("evaluate", folder / "ckpt", "--data", data, "--split", "all"),
        ("predict", folder / "ckpt", big),
        ("doctor", "--data", data),
    ):
        refused = tlkit(*command, *limit)
        assert reason in refused.err + refused.out, command
        if command[0] == "finetune":
            command = (*command[:-1], tmp_path / "again")
        taken = tlkit(*command, "--max-pixels", 10000)
        assert taken.code == 0
        assert "too large" not in taken.err + taken.out
    for command in (("predict", folder / "ckpt", big), ("doctor", "--data", data)):
        done = tlkit(*command, "--max-pixels", 0)
        assert (done.code, done.out, done.err) == (2, "", "error: --max-pixels 0: must be at least 1\n")


def test_names_survive_cross_validation(folder: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", ("red", "green"), images=6, seed=SEED)
    for kind in ODD_NAMES:
        plant(data / "red", kind)
    (data / "green").rename(data / os.fsdecode(b"caf\xe9\n"))
    done = tlkit("finetune", MODEL, "--data", data, *HEAD, "--folds", 2, "--out", tmp_path / "folds")
    assert done.code == 0, done.err
    with (tmp_path / "folds" / "out_of_fold.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert {row["path"] for row in rows} == names
    assert {row["label"] for row in rows} == {"red", os.fsdecode(b"caf\xe9\n")}
    summary = json.loads((tmp_path / "folds" / "folds.json").read_text(encoding="utf-8"))
    assert summary["classes"] == [os.fsdecode(b"caf\xe9\n"), "red"]
    done = tlkit("predict", tmp_path / "folds" / "fold-1", data, "--format", "csv", "--top", 1)
    assert {row["path"] for row in csv.DictReader(io.StringIO(done.out))} == {str(data / name) for name in names}


def test_a_run_and_its_picture_may_have_any_name_that_is_unicode(folder: Path, tmp_path: Path) -> None:
    name = "$x_{\x1b[31m\n日本 $\\frac{$"
    options = (*TINY, "--policy", "full", "--epochs", 1, "--plot", "--json")
    done = tlkit("finetune", MODEL, "--data", folder / "clean", *options, "--out", tmp_path / name)
    assert done.json["checkpoint"] == str(tmp_path / name)
    assert (tmp_path / name / "curves.png").stat().st_size > 1000
    both = tlkit(
        "ensemble", tmp_path / name, folder / "ckpt", "--data", folder / "clean", "--out", tmp_path / f"{name}2"
    )
    assert both.code == 0, both.err
    for command in (
        ("finetune", MODEL, "--data", folder / "clean", *HEAD),
        ("ensemble", folder / "ckpt", tmp_path / name),
    ):
        refused = tlkit(*command, "--out", tmp_path / os.fsdecode(b"\xff"))
        assert refused.code == 2
        assert refused.err.splitlines()[-1].endswith("has bytes that are not UTF-8; choose another name")


def test_nothing_but_bad_images(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for kind in (*BROKEN, *ENTRIES):
            plant(tmp_path / "data" / name, kind)
    for command in (("finetune", MODEL, *HEAD, "--out", tmp_path / "run"), ("evaluate", folder / "ckpt")):
        done = tlkit(*command, "--data", tmp_path / "data")
        assert done.code == 2
        assert done.err.splitlines()[-1].startswith(f"error: {tmp_path / 'data'}: ")
