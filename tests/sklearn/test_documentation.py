"""The examples of docs/scikit_learn.md run, one after the other, and say what they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import NEARLY_SQUARE, write_images
from tl_kit.zoo.starter import starter_path

PAGE = Path(__file__).parents[2] / "docs" / "scikit_learn.md"


def smaller(block: str) -> str:
    """The same example on images of 64 pixels, of which a pass takes a tenth of the time."""
    return block.replace('"head"', '"head", img_size=64').replace('_lite0"', '_lite0", img_size=64')


@pytest.mark.real
@pytest.mark.skipif(starter_path("tf_efficientnet_lite0") is None, reason="the starter wheels are not installed")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "imgs", images=6, size=NEARLY_SQUARE)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(smaller(block), str(PAGE), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("['blue' 'green' 'red'] 1.0")
    assert lines[-3:-1] == ["['blue']", "blue"]
    assert min(map(float, lines[-1].strip("[]").split())) > 0.6, "of three colours, of which chance knows a third"
