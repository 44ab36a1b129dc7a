"""Docstrings begin with the field's own term: not with What, How, Where, Which, Whether, Who, When or Why."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_QUESTION = re.compile(r"(What|How|Where|Which|Whether|Who|When|Why)\b")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _questions(path: Path) -> list[str]:
    name = path.relative_to(_ROOT)
    texts = [
        ast.get_docstring(node) or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, _DOCUMENTED)
    ]
    return [f"{name}: {text.splitlines()[0]}" for text in texts if _QUESTION.match(text)]


def test_no_docstring_begins_with_a_question_word() -> None:
    files = [*(_ROOT / "tl_kit").rglob("*.py"), *(_ROOT / "recipes").rglob("*.py")]
    assert len(files) > 100
    assert [line for path in sorted(files) for line in _questions(path)] == []


def test_a_question_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}._ROOT", tmp_path)
    (tmp_path / "room.py").write_text('"""Somehow."""\ndef f():\n    """Whether it is."""\n')
    assert _questions(tmp_path / "room.py") == ["room.py: Whether it is."]
