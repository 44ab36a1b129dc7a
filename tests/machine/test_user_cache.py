"""The cache where there is no home, or none that can be written: a temporary one, and a line that says so."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import children
from tests.helpers import told
from tl_kit.errors import ResourceError
from tl_kit.machine import user_cache as module
from tl_kit.machine.user_cache import cache_line, prepare_libraries, user_cache
from tl_kit.storage.feature_cache import cache_report

ROOT = Path(__file__).parents[2]
VARIABLES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "MPLCONFIGDIR")


def no_entry(uid: int) -> None:
    raise KeyError(uid)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment that says nothing, a user without an entry in passwd, and a place for temporary folders."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(module, "_SAID", set())
    module._temporary.cache_clear()
    yield
    module._temporary.cache_clear()


def usual(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))


def test_with_a_home_it_is_there_and_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual(monkeypatch, tmp_path / "home")
    assert user_cache() == tmp_path / "home" / ".cache" / "tl-kit"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert user_cache() == tmp_path / "home" / ".cache" / "tl-kit"
    assert cache_line() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert user_cache() == tmp_path / "elsewhere" / "tl-kit"
    assert cache_line() is None
    assert told() == []


def test_a_relative_place_is_ignored_and_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert user_cache() == tmp_path / "home" / ".cache" / "tl-kit"
    assert told() == ["XDG_CACHE_HOME=caches is not an absolute path, and is ignored"]


def unusable(case: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """Bring a case about; a part of what is said of it."""
    if case == "no home":
        return "no home folder: HOME names none, and the user has no entry in passwd"
    if case == "a relative home":
        monkeypatch.setenv("HOME", "somewhere")
        return "no home folder"
    (folder / "file").write_text("")
    if case == "a home that is a file":
        monkeypatch.setenv("HOME", str(folder / "file"))
        return "the home folder: "
    if case == "an XDG cache that is a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
        return f"XDG_CACHE_HOME: {folder / 'file'} cannot be written"
    usual(monkeypatch, folder / "home")
    real = os.access  # root may write anywhere, but on a file system that is mounted read-only
    closed = folder / ("home" if case == "a home that is read-only" else "home/.cache/tl-kit")
    closed.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(os, "access", lambda path, mode, **o: Path(path) != closed and real(path, mode, **o))
    return f"the home folder: {folder / 'home' / '.cache' / 'tl-kit'} cannot be written"


CASES = ("no home", "a relative home", "a home that is a file", "an XDG cache that is a file")
CASES += ("a home that is read-only", "a cache folder of another user")


@pytest.mark.parametrize("case", CASES)
def test_else_it_is_a_temporary_one_that_is_private_and_said_once(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = unusable(case, monkeypatch, tmp_path)
    found = user_cache()
    assert found == user_cache()
    assert found.is_relative_to(tmp_path / "tmp")
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    (line,) = told()
    assert line.startswith(expected)
    assert str(found.parent) in line
    assert cache_line() == line
    user_cache()
    assert told() == []
    assert cache_report().directory == str(found / "features")


def test_it_goes_with_the_process_that_made_it_and_with_no_other(tmp_path: Path) -> None:
    folder = user_cache().parent
    module._remove(folder, os.getpid() + 1)
    assert folder.is_dir()
    module._remove(folder, os.getpid())
    assert not folder.exists()


def test_without_any_place_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    prepare_libraries()
    with pytest.raises(ResourceError, match="set XDG_CACHE_HOME or TMPDIR to a folder"):
        user_cache()


def test_libraries_are_pointed_elsewhere_only_where_they_must_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual(monkeypatch, tmp_path / "home")
    prepare_libraries()
    assert not set(VARIABLES[3:]) & os.environ.keys()
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("HF_HUB_CACHE", "/models")
    prepare_libraries()
    assert "HF_HOME" not in os.environ, "its user has said where"
    for variable, name in (("TORCH_HOME", "torch"), ("MPLCONFIGDIR", "matplotlib")):
        assert Path(os.environ.pop(variable)) == user_cache().parent / name
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # they would take the working directory
    prepare_libraries()
    assert os.environ.pop("HF_HOME") == str(tmp_path / "home" / ".cache" / "huggingface")
    for variable in ("TORCH_HOME", "MPLCONFIGDIR"):
        os.environ.pop(variable)


def test_libraries_do_not_follow_a_relative_home_into_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "somewhere")
    prepare_libraries()
    assert all(Path(os.environ.pop(variable)).is_absolute() for variable in ("HF_HOME", "TORCH_HOME", "MPLCONFIGDIR"))


CHILD = """
import os, pwd, sys

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody
from tl_kit.cli import main
try:
    main(sys.argv[1:])
finally:
    import huggingface_hub.constants as hub, torch.hub, matplotlib
    for place in (hub.HF_HOME, torch.hub.get_dir(), matplotlib.get_configdir(), matplotlib.get_cachedir()):
        assert os.path.isabs(place) and '~' not in place, place
"""


def test_a_real_process_without_a_home_works_and_leaves_nothing(tmp_path: Path) -> None:
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    env |= {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    done = children.run([sys.executable, "-c", CHILD, "cache"], cwd=work, env=env)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("no home folder: HOME names none, and the user has no entry in passwd: the cache is ")
    assert f"in {temporary}" in done.stdout
    assert list(work.iterdir()) == []
    assert list(temporary.iterdir()) == []
