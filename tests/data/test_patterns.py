"""Patterns that no shell has expanded: what exists is itself, ``**`` is any folders, and nothing found is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tl_kit.data.patterns import expand
from tl_kit.errors import DataError

FILES = (
    *("a.jpg", "b.JPG", "c.png", ".hidden.jpg", "-x.jpg", "new\nline.jpg", "w?.jpg", "{a,b}.jpg", "back\\slash.jpg"),
    *("cats/1.jpg", "cats/2.jpg", "cats/tabby/3.jpg", "cats/tabby/deep/4.jpg", ".git/5.jpg", "cats/.trash/6.jpg"),
    *("g [old]/7.jpg", "g [old]/8.png", "g o/9.jpg", "g [old]/g [new]/10.jpg", "[2020] 1.jpg", "[2020] 2.jpg", "*.tif"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "data" / os.fsdecode(b"latin-\xe9.jpg")).write_bytes(b"")
    (tmp_path / "data" / "one.tif").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "data"


LATIN = os.fsdecode(b"latin-\xe9.jpg")
TOP = ["-x.jpg", "[2020] 1.jpg", "[2020] 2.jpg", "a.jpg", "back\\slash.jpg", LATIN, "new\nline.jpg", "w?.jpg"]
TOP = sorted([*TOP, "{a,b}.jpg"])
CATS = ["cats/1.jpg", "cats/2.jpg", "cats/tabby/3.jpg", "cats/tabby/deep/4.jpg"]
OLD = ["g [old]/7.jpg", "g [old]/g [new]/10.jpg"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.jpg", ["a.jpg"]),
        ("*.jpg", TOP),
        ("./*.png", ["c.png"]),
        ("cats/*.jpg", CATS[:2]),
        ("cats/**/*.jpg", CATS),
        ("cats/**/**/*.jpg", CATS),
        ("cats/**/deep/*", CATS[3:]),
        ("cats/**", ["cats", "cats/tabby", "cats/tabby/deep"]),
        ("cats/*/", ["cats/tabby"]),
        ("cats/a**b*", None),
        ("*/[12].jpg", CATS[:2]),
        ("*/[!1-3].jpg", ["g [old]/7.jpg", "g o/9.jpg"]),
        ("cats/?.jpg", CATS[:2]),
        ("cats/../cats/1.*", ["cats/../cats/1.jpg"]),
        ("g [old]", ["g [old]"]),
        ("g [old]/*.jpg", OLD[:1]),
        ("g [old]/**/*.jpg", OLD),
        ("*/g [new]/*.jpg", OLD[1:]),
        ("g [[]old]/7.*", OLD[:1]),
        ("g [ox]/*.jpg", ["g o/9.jpg"]),
        ("[2020] *.jpg", ["[2020] 1.jpg", "[2020] 2.jpg"]),
        ("*.tif", ["*.tif"]),
        ("*.ti[f]", ["*.tif", "one.tif"]),
        ("w?.jpg", ["w?.jpg"]),
        ("{a,b}.jpg", ["{a,b}.jpg"]),
        ("{c,d}.jpg", ["{c,d}.jpg"]),
        (".*.jpg", [".hidden.jpg"]),
        (".git/*", [".git/5.jpg"]),
        ("latin-*", [LATIN]),
        ("missing.jpg", ["missing.jpg"]),
        ("missing/*.jpg", None),
        ("a.jpg/*", None),
        ("*.gif", None),
        ("*.Png", None),
    ],
)
def test_what_a_pattern_stands_for(pattern: str, found: list[str] | None, folder: Path) -> None:
    for written, start in ((pattern, Path()), (f"{folder}/{pattern}", folder)):
        if found is None:
            with pytest.raises(DataError, match="matches nothing"):
                expand(written)
            continue
        expected = sorted((start / name for name in found), key=lambda path: path.parts)
        assert expand(written) == expected


def test_any_folders_from_here(folder: Path) -> None:
    everywhere = {str(path) for path in expand("**/*.jpg")}
    assert everywhere == {*TOP, *CATS, *OLD, "g o/9.jpg"}
    assert expand("**")[0] == Path()


def test_the_user_s_folder(folder: Path) -> None:
    assert expand("~/data/cats/*.jpg") == [folder / name for name in CATS[:2]]
    assert expand("~/data/cats/*/") == [folder / "cats/tabby"]
    (folder / "~").mkdir()
    (folder / "~" / "z.jpg").write_bytes(b"")
    assert expand("~") == [Path("~")]
    assert expand("~nobody-of-that-name/x.jpg") == [Path("~nobody-of-that-name/x.jpg")]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("cats\\*.jpg", "write / between folders"),
        ("cats/*.JPG", r"ignoring upper and lower case it would match 2, the first cats/1\.jpg"),
        ("", "empty"),
    ],
)
def test_what_nothing_matches_is_said_with_the_likely_reason(pattern: str, hint: str, folder: Path) -> None:
    with pytest.raises(DataError, match=hint):
        expand(pattern)


def test_links_in_loops_are_followed_once(folder: Path) -> None:
    for name in ("x", "y", "z"):
        (folder / "cats" / "tabby" / name).symlink_to(folder / "cats", target_is_directory=True)
    (folder / "linked").symlink_to(folder / "g o", target_is_directory=True)
    (folder / "cats" / "gone").symlink_to(folder / "nowhere")
    assert expand("cats/**/*.jpg") == [Path(name) for name in CATS]
    assert Path("linked/9.jpg") in expand("*/*.jpg")
    assert sum(path.name == "9.jpg" for path in expand("**/*.jpg")) == 1
