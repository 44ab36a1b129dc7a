"""Results as HTML for notebooks: every text is escaped, the figures are the result's own, nothing is a script."""

from __future__ import annotations

import html
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tl_kit
from tests.helpers import quick, write_images
from tl_kit.display import figure, visible
from tl_kit.html_tables import Bar, html_block, html_lines, html_table
from tl_kit.inference.prediction import Prediction, Predictions

TAGS = {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "span"}
EVIL = '<img src=x onerror="alert(1)">&amp;'


class Reader(HTMLParser):
    """Reads a page strictly: tags must be known and closed in order, and have no attribute but ``style``."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert {name for name, _ in attrs} <= {"style"}
        assert all("url(" not in (value or "") and "color:#" not in (value or "") for _, value in attrs)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def read(result: Any) -> Reader:
    reader = Reader()
    reader.feed(result if isinstance(result, str) else result._repr_html_())
    reader.close()
    assert not reader.open
    return reader


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2), st.text(max_size=30))
def test_any_text_is_shown_as_it_is(cells: list[str], line: str) -> None:
    found = read(html_block(line, html_table(["a", "b"], [cells], align="lr"), html_lines([line])))
    assert found.rows == [["a", "b"], [visible(cell) for cell in cells]]
    assert found.text.startswith(visible(line))


def test_a_bar_is_as_long_as_its_share() -> None:
    assert 'width:2.00em"></span> 25.0 %' in html_table(["p"], [[Bar(0.25)]], align="l")


def test_predictions_show_their_classes() -> None:
    one = Prediction(EVIL, {EVIL: 0.75, "other": 0.25})
    assert [row[0] for row in read(one).rows] == [EVIL, "other"]
    assert read(one).rows[0][1] == " 75.0 %"
    broken = Prediction("b.png", {}, "not an image")
    assert "not an image" in read(broken).text
    several = read(Predictions([one, broken]))
    assert several.rows[1:] == [[EVIL, EVIL, " 75.0 %"], ["b.png", "not an image", ""]]
    many = Predictions([one] * 60)
    assert read(many).text.endswith("and 10 more")
    assert many == [one] * 60, "it is a list"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one of which has a name that is HTML."""
    root = write_images(tmp_path_factory.mktemp("html") / "images", ("red", "green"), images=9)
    (root / "red").rename(root / "<b>red<script>")
    return root


@pytest.fixture(scope="module")
def run(data: Path) -> tl_kit.FinetuneResult:
    return quick(data, data.parent / "run", epochs=1)


def test_a_run_shows_its_scores_and_marks(run: tl_kit.FinetuneResult) -> None:
    found = read(run)
    assert run.val is not None
    assert run.test is not None
    shown = {row[0]: row[1:] for row in found.rows}
    assert shown["accuracy"] == [figure("accuracy", scores["accuracy"]) for scores in (run.val, run.test)]
    assert all(note in found.text for note in run.notes)
    assert run.checkpoint in found.text


def test_evaluation_and_ensemble_show_theirs(run: tl_kit.FinetuneResult, data: Path, tmp_path: Path) -> None:
    evaluation = tl_kit.evaluate(run.checkpoint, data, split="test")
    found = read(evaluation)
    (row,) = [row for row in found.rows if row[0] == "<b>red<script>"]
    most = max(zip(evaluation.confusion[0], evaluation.per_class, strict=True))
    assert row[-1].startswith(f"{most[1]} {most[0]}")
    other = quick(data, tmp_path / "other", epochs=1, seed=1)
    paths = (Path(run.checkpoint), Path(other.checkpoint))
    result = tl_kit.ensemble(tl_kit.EnsembleConfig(checkpoints=paths, out=tmp_path / "e", bootstrap=50))
    found = read(result)
    assert [row[0] for row in found.rows[1:]] == [run.checkpoint, other.checkpoint, "ensemble (mean)"]
    assert found.rows[3][-2] == figure("nll", result.receipt["ensemble"]["test"]["nll"])
    assert "Gain over the best member" in found.text
    assert html.unescape(result._repr_html_()).count("<script>") == 0
