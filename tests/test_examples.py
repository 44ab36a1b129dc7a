"""The examples run, and reach what they claim to show."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.helpers import few_digits
from tl_kit.zoo.starter import starter_path

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(starter_path("tf_efficientnet_lite0") is None, reason="the starter wheels are not installed"),
]


def test_first_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 500)
    accuracy = runpy.run_path(str(EXAMPLES / "first_classifier.py"))["main"](tmp_path, img_size=64)
    assert accuracy > 0.8, "ten digits, of which chance knows a tenth"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"test accuracy {accuracy:.1%}")
    assert len(lines) == 6
