"""Records that a person or a fault has changed: the report is written, or one line names the file and the entry."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import quick, write_images
from tl_kit.config import EnsembleConfig, ReportLimits
from tl_kit.errors import CheckpointError, ConfigError, TlKitError
from tl_kit.report_page.page_facts import Looks, collect
from tl_kit.report_page.saved_results import open_result
from tl_kit.report_page.scored import score_folds
from tl_kit.report_page.settings_tables import digests, options, times, versions

WRONG: tuple[Any, ...] = (None, "text", -1, 1.7, True, [], {}, 2**70, [1], {"a": 1}, 0.5, float("inf"), ["x", None])
MANY = 1
FILES = {
    "run": ("tlkit.json",),
    "ensemble": ("ensemble.json", "members/01-run/tlkit.json"),
    "folds": ("folds.json", "fold-1/tlkit.json"),
    "fit": ("fit.json", "best-1/ensemble.json"),
}
Path_ = tuple[Any, ...]


def entries(content: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all entries; of a list those of the first two items."""
    if path:
        yield path
    some = content.items() if isinstance(content, dict) else enumerate(content[:2]) if isinstance(content, list) else ()
    for name, value in some:
        yield from entries(value, (*path, name))


def changed(content: Any, path: Path_, *value: Any) -> Any:
    """With another value at a path, or without the entry."""
    found = copy.deepcopy(content)
    inside = found
    for step in path[:-1]:
        inside = inside[step]
    if value:
        inside[path[-1]] = value[0]
    else:
        del inside[path[-1]]
    return found


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a result, with the record of a fit beside that of an ensemble."""
    kind = request.param
    copied = tmp_path / "copy"
    if kind == "fit":
        shutil.copytree(request.getfixturevalue("ensemble"), copied / "best-1")
        inner = json.loads((copied / "best-1" / "ensemble.json").read_text())
        receipt, names = inner["receipt"], inner["members"]
        row = {"network": "n", "what": "head", "chosen": True, "accuracy": 0.5, "nll": 1, "latency": 3, "seconds": 4}
        fit = {"format": 1, "best": "best-1", "classes": inner["classes"], "members": names, "leaderboard": [row, row]}
        scores = {name: receipt["ensemble"][name] for name in ("val", "test")}
        more = {"kinds": receipt["kinds"], "images": receipt["images"], "story": ["a", "b"], "seconds": 3.5}
        (copied / "fit.json").write_text(json.dumps({**fit, **scores, **more, "receipt": receipt}))
    else:
        shutil.copytree(request.getfixturevalue(kind), copied)
    return copied


def describe(folder: Path) -> None:
    """Everything that the page takes from records."""
    saved = open_result(folder)
    facts: dict[str, Any] = {"missing": "", "looks": Looks(), "findings": (), "examined": "", "suspects": 1}
    collect(saved, None, **facts, limits=ReportLimits(), names=True)
    for table in (options, versions, digests, times):
        table(saved)


@pytest.mark.parametrize("folder", ["fit"], indirect=True)
def test_a_fit_has_a_page_with_its_leaderboard(folder: Path, tmp_path: Path) -> None:
    page = tl_kit.report(folder, images=False, out=tmp_path / "page.html").file.read_text()
    assert "Leaderboard" in page


@pytest.mark.parametrize(("folder", "kind"), [(kind, kind) for kind in FILES], indirect=["folder"])
def test_a_changed_entry_gives_a_page_or_one_line_that_names_it(folder: Path, kind: str) -> None:
    refused: list[tuple[str, Path, Path_]] = []
    for name in FILES[kind]:
        file = folder / name
        content = json.loads(file.read_text())
        for number, path in enumerate(entries(content)):
            # an entry gets other values than its neighbours, or is left out
            values = [(WRONG[(MANY * number + each) % len(WRONG)],) for each in range(MANY)]
            for value in (*values, *([()] if number % 3 == 0 else [])):
                file.write_text(json.dumps(changed(content, path, *value)).replace("Infinity", "1e999"))
                try:
                    describe(folder)
                except TlKitError as error:
                    refused.append((str(error), file, path))
        file.write_text(json.dumps(content))
    assert len(refused) > 15
    assert [text for text, *_ in refused if "\n" in text] == []
    assert [each for each in refused if str(each[1]) not in each[0] and str(each[1].parent) not in each[0]] == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("test", "accuracy"), 1.7, "test.accuracy is 1.7, and must be a share from 0 to 1"),
        (("test", "accuracy"), "high", 'test.accuracy is "high", and must be a share from 0 to 1'),
        (("test", "nll"), -1, "test.nll is -1, and must be a number from 0"),
        (("test",), 5, "test is 5, and must be a JSON object"),
        (("kinds", "test"), "best", 'kinds.test is "best", and must be one of test, out of fold'),
        (("data", "images", "test"), -3, "data.images.test is -3, and must be a whole number"),
        (("chosen_by_val",), [1], "chosen_by_val.0 is 1, and must be a text"),
        (("data", "root"), 5, "data.root is no path"),
    ],
)
def test_a_wrong_figure_is_named_with_its_file(run: Path, tmp_path: Path, path: Path_, value: Any, said: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "tlkit.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(CheckpointError) as caught:
        tl_kit.report(tmp_path / "run", images=False)
    assert str(caught.value).startswith(f"{file}: {said}")


def test_a_member_that_is_not_there_is_named(ensemble: Path, tmp_path: Path) -> None:
    shutil.copytree(ensemble, tmp_path / "both")
    shutil.rmtree(tmp_path / "both" / "members" / "01-run")
    with pytest.raises(
        CheckpointError, match=r'ensemble\.json: members\.0 is "members/01-run", and must be the folder'
    ):
        tl_kit.report(tmp_path / "both")


def test_the_command_says_it_in_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    file = tmp_path / "run" / "tlkit.json"
    content = file.read_text()
    file.write_text(json.dumps(changed(json.loads(content), ("test", "accuracy"), float("nan"))))
    done = tlkit("report", tmp_path / "run")
    assert (done.code, "NaN is no number" in " ".join(done.err.split())) == (2, True)
    file.write_text(json.dumps(changed(json.loads(content), ("test", "accuracy"), -2)))
    done = tlkit("report", tmp_path / "run")
    assert (done.code, "test.accuracy is -2" in " ".join(done.err.split())) == (2, True)
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("column", "value"), [("p", "5"), ("p", "-5"), ("p", "1e308"), ("fold", "9999"), ("fold", "-1")]
)
def test_changed_predictions_of_folds_are_named(column: str, value: str, folds: Path, tmp_path: Path) -> None:
    shutil.copytree(folds, tmp_path / "folds")
    file = tmp_path / "folds" / "out_of_fold.csv"
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    rows[2][rows[0].index("fold") if column == "fold" else -1] = value
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)
    with pytest.raises(CheckpointError, match=r"out_of_fold\.csv: line 3 is broken; the file was changed"):
        score_folds(open_result(tmp_path / "folds"), None)


def test_a_deep_record_is_cut(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    content = json.loads((run / "tlkit.json").read_text())
    content["config"]["extra"] = "HERE"
    text = json.dumps(content).replace('"HERE"', '{"a":[' * 400 + '"DEEPEST"' + "]}" * 400)
    (tmp_path / "run" / "tlkit.json").write_text(text)
    page = tl_kit.report(tmp_path / "run", images=False).file.read_text()
    assert "DEEPEST" not in page
    assert "\\u2026" in page


def test_a_file_that_is_no_page_is_not_replaced(run: Path, tmp_path: Path) -> None:
    weights = run / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(ConfigError, match=r"--out .*model\.safetensors: is there already"):
        tl_kit.report(run, out=weights, images=False)
    assert weights.read_bytes() == before
    for _ in range(2):
        assert tl_kit.report(run, out=tmp_path / "page.html", images=False).size > 0


def test_validation_images_that_the_final_model_was_fitted_to_are_not_called_new(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=10)
    for split in ("train", "val"):
        shutil.copytree(data, tmp_path / "splits" / split)
    for number, path in enumerate(sorted((tmp_path / "splits" / "val").rglob("*.png"))):
        Image.fromarray(255 - np.asarray(Image.open(path)) // (2 + number)).save(path)
    head = quick(tmp_path / "splits", tmp_path / "run", policy="head", epochs=None)
    record = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    assert record["data"]["refit"] is True
    page = tl_kit.report(Path(head.checkpoint), images=False).file.read_text()
    assert "the final one was then fitted to them too" in page
    assert "none of them had a part in the model" not in page


def test_an_ensemble_of_folds_has_no_score_of_images_that_its_members_know(folds: Path, tmp_path: Path) -> None:
    members = tuple(sorted(folds.glob("fold-*")))
    together = tl_kit.ensemble(EnsembleConfig(checkpoints=members, out=tmp_path / "together"))
    result = tl_kit.report(together.checkpoint, images=False)
    assert result.sentence.startswith("This ensemble has no score: each image was seen by a member.")
