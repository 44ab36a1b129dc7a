"""What surrounds the code: the site, the container, the build server's file and the citation fit the repository."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import yaml

import tl_kit
from tests import children

ROOT = Path(__file__).parent.parent


def content(name: str) -> dict[str, object]:
    read: dict[str, object] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return read


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """``--strict``: dead links and anchors, pages that no menu names, and names that do not exist end it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = children.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="tl_kit.finetune"' in page, "the page on Python is empty"
    assert "One fine-tuning run" in page or "Fine-tune" in page


def test_the_page_on_python_has_every_public_name_once() -> None:
    named = re.findall(r"^::: tl_kit\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(set(tl_kit.__all__) - {"__version__"})


def test_the_citation_is_of_this_version() -> None:
    citation = content("CITATION.cff")
    assert citation["version"] == tl_kit.__version__
    assert citation["license"] == "Apache-2.0"


def test_the_build_server_runs_what_everybody_runs() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = re.findall(r"- run: (.*)", (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert "make test" in commands
    assert {shlex.split(command)[1] for command in commands if command.startswith("make ")} <= set(targets)


def test_the_container_copies_files_that_its_context_has() -> None:
    """``.dockerignore`` leaves out everything but the files that it names."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {name for line in lines if re.match(r"COPY (?!--from)", line) for name in shlex.split(line)[1:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
