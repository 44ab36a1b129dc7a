"""A CSV file whose paths do not exist: of which form they are, and how they would be found."""

from __future__ import annotations

import pytest

from tests.data.images import write_classes
from tests.data.scans import error, write_csv
from tl_kit.data.scan import scan
from tl_kit.diagnosis.split_checks import doubts


def csv(folder, paths):
    return write_csv(folder, "path,label\n" + "\n".join(f'"{path}",{"ab"[i % 2]}' for i, path in enumerate(paths)))


@pytest.mark.parametrize(
    ("form", "said", "remedy"),
    [
        (
            "/home/anna/data/imgs/x/{}.png",
            "an absolute path, perhaps of another machine",
            "take /home/anna/data/ from each path",
        ),
        ("/imgs/x/{}.png", "an absolute path", "write it as imgs/x/0.png"),
        (
            "C:\\data\\imgs\\x\\{}.png",
            "an absolute path of a Windows machine",
            "take C:\\data\\ from each path, and write / for \\",
        ),
        ("imgs\\x\\{}.png", "written with Windows' backslashes", "write it as imgs/x/0.png"),
        ("\\\\server\\share\\x\\{}.png", "an absolute path of a Windows machine", "it exists as imgs/x/0.png"),
        ("x/{}.png", "relative to the CSV file's folder", "it is at imgs/x/0.png: put imgs/ before each path"),
        ("data/imgs/x/{}.png", "relative to the CSV file's folder", "take data/ from each path"),
        ("imgs/x/{}.PNG", "relative to the CSV file's folder", "it exists as imgs/x/0.png: write the paths like that"),
        ("imgs/X/{}.png", "relative to the CSV file's folder", "it exists as imgs/x/0.png"),
        ("~/imgs/x/{}.png", "written with ~", "imgs/x/0.png"),
        ("$DATA/x/{}.png", "written with a variable", "imgs/x/0.png"),
        ("https://example.org/x/{}.png", "a web address (https://)", "download the images"),
        ("s3://bucket/x/{}.png", "a web address (s3://)", "download the images"),
        ("gs://bucket/x/{}.png", "a web address", "download"),
        ("file:///data/imgs/x/{}.png", "a file:// address", "imgs/x/0.png"),
        ("nowhere/like-{}.jpg", "relative to the CSV file's folder", "no file of that name was found below"),
    ],
)
def test_every_path_is_missing(tmp_path, form, said, remedy):
    write_classes(tmp_path / "imgs", {"x": 6})
    text = error(csv(tmp_path, [form.format(i) for i in range(6)]))
    assert "none of its 6 paths exists; line 2: " in text
    assert said in text
    assert remedy in text


def test_paths_that_are_relative_to_the_current_folder(tmp_path, monkeypatch):
    write_classes(tmp_path / "imgs", {"x": 6})
    (tmp_path / "tables").mkdir()
    monkeypatch.chdir(tmp_path)
    text = error(csv(tmp_path / "tables", [f"imgs/x/{i}.png" for i in range(6)]))
    assert f"exists relative to the current folder: move the CSV file to {tmp_path}" in text


def test_most_paths_are_missing(tmp_path):
    write_classes(tmp_path / "imgs", {"x": 12})
    file = csv(tmp_path, [f"imgs/x/{i}.png" for i in range(4)] + [f"x/{i}.png" for i in range(4, 12)])
    (text,) = doubts(scan(file))
    assert text.startswith("8 of the 12 paths in labels.csv do not exist; line 6: 'x/4.png'")
    file = csv(tmp_path, [f"imgs/x/{i}.png" for i in range(10)] + ["x/10.png"])
    assert doubts(scan(file)) == []


def test_the_search_has_an_end(tmp_path, monkeypatch):
    from tl_kit.data import lostpaths

    write_classes(tmp_path / "imgs", {"x": 6, "y": 6})
    monkeypatch.setattr(lostpaths, "_SEARCHED", 5)
    assert "no file of that name was found" in error(csv(tmp_path, [f"gone/{i}.jpg" for i in range(6)]))
