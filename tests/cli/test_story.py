"""From images to named predictions, through the command line alone."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Story
from tests.cli.helpers import MODEL, TINY, tlkit

SCORES = {"accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece"}


def test_finetune_json(story: Story) -> None:
    result = story.second.json
    assert set(result) == {
        *("checkpoint", "model", "policy", "classes", "trainable_parameters", "epochs"),
        *("val", "test", "seconds", "audit", "status", "snapshots", "swa", "guard", "left_out", "refit"),
        *("kinds", "chosen_by_val", "cross_validated"),
    }
    assert result["classes"] == list(story.classes)
    assert (result["model"], result["policy"], result["epochs"], result["status"]) == (
        "test_vit",
        "full",
        2,
        "finished",
    )
    assert set(result["val"]) == set(result["test"]) == SCORES
    stages = {"setup", "scan", "data", "features", "train", "evaluate", "save"}
    assert set(result["seconds"]) == {"total", "first_batch", *stages}
    assert sum(result["seconds"][stage] for stage in stages) == pytest.approx(result["seconds"]["total"])
    assert set(result["audit"]) == {"frozen_tensors", "changed_tensors", "ok"}
    assert (Path(result["checkpoint"]) / "model.safetensors").is_file()


def test_the_head_policy_trains_only_the_head(story: Story) -> None:
    result = story.first.json
    features = (result["trainable_parameters"] - len(story.classes)) / len(story.classes)
    assert features == int(features)
    assert result["audit"]["frozen_tensors"] > 0
    assert result["audit"]["ok"] is True


def test_progress_without_a_terminal_is_one_line_each(story: Story) -> None:
    lines = story.second.err.splitlines()
    assert [line for line in lines if re.fullmatch(r"[\w ]+: [\d,]+ images in \d+\.\d s", line)]
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1", "2"]
    assert all("loss" in line and "data wait" in line and "val accuracy" in line for line in epochs)
    assert "\x1b" not in story.second.err
    assert "\r" not in story.second.err


def test_evaluate_repeats_the_run_s_own_scores(story: Story) -> None:
    for run in (story.first, story.second):
        for split in ("val", "test"):
            scores = tlkit("evaluate", run.json["checkpoint"], "--data", story.data, "--split", split, "--json").json
            assert scores["metrics"] == run.json[split]


def test_evaluate_json(story: Story) -> None:
    result = tlkit("evaluate", story.checkpoint, "--data", story.data, "--split", "all", "--json").json
    names = {"split", "images", "crops", "scales", "mc_dropout", "metrics", "per_class", "confusion", "left_out"}
    assert set(result) == names | {"kind", "seen"}
    assert result["images"] == 30
    assert list(result["per_class"]) == list(story.classes)
    assert all(set(row) == {"precision", "recall", "f1", "support"} for row in result["per_class"].values())
    assert [sum(row) for row in result["confusion"]] == [10, 10, 10]
    hits = sum(result["confusion"][i][i] for i in range(3))
    assert result["metrics"]["accuracy"] == pytest.approx(hits / 30)


def test_ensemble_json(story: Story) -> None:
    result = story.ensemble.json
    assert {"checkpoint", "crops", "scales", "rule", "members", "ensemble", "gain", "cost"} <= set(result)
    assert result["rule"] == "mean"
    members = {member["checkpoint"]: (member["val"], member["test"]) for member in result["members"]}
    assert members == {
        run.json["checkpoint"]: (run.json["val"], run.json["test"]) for run in (story.first, story.second)
    }
    assert set(result["ensemble"]) == {"val", "test"}
    assert set(result["gain"]) == {"accuracy", "ci95", "nll", "nll_ci95"}
    low, high = result["gain"]["ci95"]
    assert low <= result["gain"]["accuracy"] <= high


def test_ensemble_predicts_the_mean_of_its_members(story: Story) -> None:
    image = sorted((story.data / "2").iterdir())[0]
    found = []
    for checkpoint in (story.first, story.second, story.ensemble):
        done = tlkit("predict", checkpoint.json["checkpoint"], image, "--format", "jsonl", "--top", 3)
        found.append({row["label"]: row["probability"] for row in json.loads(done.out)["top"]})
    for name in story.classes:
        assert found[2][name] == pytest.approx((found[0][name] + found[1][name]) / 2, abs=1e-12)


def test_predict_gives_a_row_for_every_input_and_says_what_failed(story: Story, tmp_path: Path) -> None:
    good = sorted((story.data / "10").iterdir())[:2]
    bad = tmp_path / 'no, "image"\n.png'
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    absent = tmp_path / "absent.png"
    paths = [good[0], bad, absent, good[1]]
    done = tlkit("predict", story.checkpoint, *paths, "--format", "csv", "--top", 2)
    assert done.code == 1
    assert "2 of 4 images could not be predicted; their rows say why" in done.err
    rows = list(csv.reader(io.StringIO(done.out)))
    assert rows[0] == ["path", "label", "probability", "label_2", "probability_2", "error"]
    assert [row[0] for row in rows[1:]] == [str(path) for path in paths]
    assert all(len(row) == 6 for row in rows)
    for row in (rows[1], rows[4]):
        assert row[1] in story.classes
        assert row[3] in story.classes
        assert row[1] != row[3]
        assert 1 >= float(row[2]) >= float(row[4]) >= 0
        assert row[5] == ""
    for row in (rows[2], rows[3]):
        assert row[1:5] == [""] * 4
        assert row[5]


def test_predict_formats_agree(story: Story) -> None:
    arguments = ("predict", story.checkpoint, story.data / "10", "--top", 3)
    table, text, lines = (tlkit(*arguments, "--format", form) for form in ("table", "csv", "jsonl"))
    assert (table.code, text.code, lines.code) == (0, 0, 0)
    rows = list(csv.DictReader(io.StringIO(text.out)))
    objects = [json.loads(line) for line in lines.out.splitlines()]
    assert len(rows) == len(objects) == 10
    for row, item in zip(rows, objects, strict=True):
        assert set(item) == {"path", "label", "probability", "top", "error"}
        assert (row["path"], row["label"], float(row["probability"])) == (
            item["path"],
            item["label"],
            item["probability"],
        )
        assert [row["label"], row["label_2"], row["label_3"]] == [best["label"] for best in item["top"]]
        assert sum(best["probability"] for best in item["top"]) == pytest.approx(1)
        assert item["error"] is None
        assert item["path"] in table.out
    assert len(table.out.splitlines()) == 12  # header, rule, ten rows


def test_predict_shows_three_classes_unless_told(story: Story) -> None:
    done = tlkit("predict", story.checkpoint, story.data / "2", "--format", "csv")
    assert done.out.splitlines()[0].count("label") == 3


def test_there_are_no_more_columns_than_classes(story: Story) -> None:
    done = tlkit("predict", story.checkpoint, story.data / "2", "--format", "csv", "--top", 5)
    row = next(csv.DictReader(io.StringIO(done.out)))
    assert row["label_3"] in story.classes
    assert "label_4" not in row


@pytest.mark.parametrize("command", ["finetune", "evaluate", "ensemble", "predict", "doctor"])
def test_tables_show_hostile_names_as_they_are(story: Story, command: str, tmp_path: Path) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "finetune": (MODEL, "--data", story.data, *TINY, "--policy", "head", "--out", tmp_path / "[bold]out"),
        "evaluate": (story.checkpoint, "--data", story.data),
        "ensemble": (story.checkpoint, story.second.json["checkpoint"], "--out", tmp_path / "[bold]out"),
        "predict": (story.checkpoint, story.data / story.classes[2]),
        "doctor": ("--data", story.data),
    }
    done = tlkit(command, *arguments[command])
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err
    shown = "[bold]out" if command in ("finetune", "ensemble") else "[red]b\\x1b[31m"
    assert shown in done.out


def test_finetune_shows_scores_audit_and_checkpoint(story: Story, tmp_path: Path) -> None:
    done = tlkit("finetune", MODEL, "--data", story.data, *TINY, "--policy", "head", "--out", tmp_path / "c")
    accuracy = next(line for line in done.out.splitlines() if line.startswith("accuracy"))
    assert re.findall(r"[\d.]+ %", accuracy) == [
        f"{100 * story.first.json[split]['accuracy']:.1f} %" for split in ("val", "test")
    ]
    assert "none of them changed" in done.out
    assert f"checkpoint: {tmp_path / 'c'}" in done.out


def test_default_folders_are_numbered(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert tlkit("finetune", MODEL, "--data", story.data, *TINY, "--policy", "head").code == 0
    folders = sorted(path.name for path in (tmp_path / "ckpts").iterdir())
    assert folders == [f"{MODEL}-1", f"{MODEL}-2"]
    done = tlkit("ensemble", *sorted((tmp_path / "ckpts").iterdir()), "--json")
    assert Path(done.json["checkpoint"]).parent == Path("ensembles")


def test_doctor_json_and_exit_codes(story: Story, tmp_path: Path) -> None:
    fine = tlkit("doctor", "--data", story.data, "--json").json
    assert set(fine) == {"data", "blocks", "images", "findings"}
    assert fine["blocks"] is False
    assert sum(sum(split.values()) for split in fine["images"].values()) == 30
    (tmp_path / "only" / "one").mkdir(parents=True)
    broken = tlkit("doctor", "--data", tmp_path / "only", "--json")
    assert broken.code == 1
    report = json.loads(broken.out)
    assert report["blocks"] is True
    assert report["findings"][0]["severity"] == "error"
    table = tlkit("doctor", "--data", tmp_path / "only")
    assert table.code == 1
    assert "cannot be trained on as it is" in table.out


def test_models(story: Story) -> None:
    done = tlkit("models", "test_resnet")
    assert done.code == 0
    row = next(line for line in done.out.splitlines() if line.startswith(MODEL))
    assert re.search(r"\d+\.\d M +160x160 +\S+ +download", row)
    many = tlkit("models", "*")
    assert len(many.out.splitlines()) > 1000
    assert "parameters are shown for" in many.err
    none = tlkit("models", "no such [model]")
    assert (none.code, none.out) == (1, "")
    assert "no such [model]" in none.err


def test_a_member_worth_nothing_is_shown_without_a_sign_of_loss(story: Story, tmp_path: Path) -> None:
    done = tlkit("ensemble", story.checkpoint, story.checkpoint, "--out", tmp_path / "copies")
    assert done.code == 0, done.err
    assert "without it" in done.out
    assert " -0.0 " not in done.out
