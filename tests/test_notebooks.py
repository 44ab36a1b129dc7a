"""The example notebooks run, one after the other in one kernel, and show results, progress and pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tl_kit.zoo.starter import starter_path

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ("first_classifier", "ensemble_with_receipt", "export")
Cells = dict[str, dict[str, Any]]
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(starter_path("tf_efficientnet_lite0") is None, reason="the starter wheels are not installed"),
]


def read(name: str) -> Any:
    return nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """What each code cell shows, by notebook and the first line that is not an import, as data by MIME type."""
    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        together = nbformat.v4.new_notebook()
        for name in NOTEBOOKS:  # no notebook sees the names of another
            together.cells += [nbformat.v4.new_code_cell("%reset -f"), *read(name).cells]
        NotebookClient(together, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    found: Cells = {}
    for cell in (cell for cell in together.cells if cell.cell_type == "code" and cell.source != "%reset -f"):
        mime: dict[str, Any] = {}
        for output in cell.outputs:
            for kind, content in output.get("data", {}).items():
                mime[kind] = mime.get(kind, "") + content if kind.startswith("text") else content
        found[cell.source] = mime
    return found


def of(shown: Cells, text: str) -> dict[str, Any]:
    (found,) = [mime for source, mime in shown.items() if text in source]
    return found


def test_they_are_stored_without_outputs() -> None:
    assert sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb")) == sorted(NOTEBOOKS)
    for name in NOTEBOOKS:
        notebook = read(name)
        nbformat.validate(notebook)
        assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs] == []
        assert [cell.execution_count for cell in notebook.cells if cell.get("execution_count")] == []


def test_a_run_shows_progress_epochs_and_scores(shown: Cells) -> None:
    mime = of(shown, 'policy="lp-ft:2"')
    bar = mime["application/vnd.jupyter.widget-view+json"]
    assert bar["model_id"], "the bar is a widget"
    page = mime["text/html"]
    assert re.search(r"policy lp-ft:2: [\d,]+ parameters trained, 2 epochs", page)
    assert len(re.findall(r"<tr><td[^>]*>[12]</td><td[^>]*>\d\.\d{3}</td>", page)) == 2, "a row for each epoch"
    accuracy = re.search(r">accuracy</td><td[^>]*>([\d.]+) %</td><td[^>]*>([\d.]+) %</td>", page)
    assert accuracy is not None
    assert float(accuracy[2]) > 60, "of ten digits, of which chance knows a tenth"


def test_pictures_and_predictions_are_shown(shown: Cells) -> None:
    assert of(shown, "curves.png")["image/png"]
    assert of(shown, "ensemble.picture")["image/png"]
    assert "5 predictions" in of(shown, '"7").iterdir())[:5]')["text/html"]
    assert "images of test (test)" in of(shown, "tl_kit.evaluate(")["text/html"]


def test_an_ensemble_shows_its_receipt(shown: Cells) -> None:
    page = of(shown, "tl_kit.EnsembleConfig(")["text/html"]
    assert "ensemble of 3" in page
    assert "Gain over the best member by validation" in page
    gain = re.search(r"([+-][\d.]+) points of test accuracy", page)
    said = re.search(r"'([+-][\d.]+)% accuracy", of(shown, 'ensemble.receipt["gain"]')["text/plain"])
    assert gain is not None
    assert said is not None
    assert float(gain[1]) == float(said[1])


def test_the_exported_file_says_what_tl_kit_says(shown: Cells) -> None:
    assert re.search(r">agreement</td><td[^>]*>1</td>", of(shown, "tl_kit.ExportConfig(")["text/html"])
    label = re.match(r"\('(\d)', ([\d.]+)\)", of(shown, "onnxruntime.InferenceSession")["text/plain"])
    assert label is not None
    page = of(shown, "tl_kit.predict(file")["text/html"]
    first = re.search(r"<tbody><tr><td[^>]*>(\d)</td>.*?([\d.]+) %", page)
    assert first is not None
    assert (first[1], float(first[2])) == (label[1], pytest.approx(100 * float(label[2]), abs=0.11))
