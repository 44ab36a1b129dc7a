"""Wildcards that no shell has expanded, in the commands that take several paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Story
from tests.cli.helpers import tlkit

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def photos(story: Story, tmp_path: Path) -> Path:
    """Nine photos in folders within folders."""
    files = sorted((story.data / "2").iterdir())
    for number, name in enumerate(("", "a", "a/b", "g [old]", "g [old]/x", "g o", ".hidden", "z", "a/b/c")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(files[number], folder / f"{number}.jpg")
    return tmp_path / "photos"


def predicted(story: Story, *given: object) -> list[str]:
    done = tlkit("predict", story.checkpoint, *given, "--format", "jsonl")
    assert done.code == 0, done.err
    return [Path(json.loads(line)["path"]).name for line in done.out.splitlines()]


def test_two_stars_are_any_folders(story: Story, photos: Path) -> None:
    assert sorted(predicted(story, f"{photos}/**/*.jpg")) == [f"{n}.jpg" for n in (0, 1, 2, 3, 4, 5, 7, 8)]
    assert predicted(story, f"{photos}/a/**/*.jpg") == ["1.jpg", "2.jpg", "8.jpg"]


def test_a_folder_with_brackets_in_its_name(story: Story, photos: Path) -> None:
    assert predicted(story, f"{photos}/g [old]/*.jpg") == ["3.jpg"]
    assert predicted(story, f"{photos}/g [old]") == ["3.jpg", "4.jpg"]
    assert predicted(story, f"{photos}/g [old]/3.jpg") == ["3.jpg"]


def test_a_file_is_predicted_once_unless_it_was_named_twice(story: Story, photos: Path) -> None:
    named = photos / "a" / "1.jpg"
    assert predicted(story, named, f"{photos}/a/*.jpg", f"{photos}/a", f"{photos}/a/*/") == ["1.jpg", "2.jpg", "8.jpg"]
    assert predicted(story, f"{photos}/a/*.jpg", named, named) == ["1.jpg", "1.jpg", "1.jpg"]


@pytest.mark.parametrize("pattern", ["*.gif", "none/*.jpg", "a[0-9].jpg", "a/*/*/*/*"])
def test_a_pattern_that_nothing_matches_ends_the_command(pattern: str, story: Story, photos: Path) -> None:
    done = tlkit("predict", story.checkpoint, photos / "0.jpg", f"{photos}/{pattern}")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {photos}/{pattern}: no such file, and as a pattern it matches nothing\n"


def test_an_empty_path_is_not_the_working_folder(story: Story) -> None:
    done = tlkit("predict", story.checkpoint, "")
    assert done.code == 2
    assert "empty" in done.err


def test_checkpoints_that_match(story: Story, tmp_path: Path) -> None:
    folder = tmp_path / "runs [1]"
    shutil.copytree(story.checkpoint, folder / "one")
    shutil.copytree(story.second.json["checkpoint"], folder / "two")
    shutil.copytree(story.ensemble.json["checkpoint"], folder / "deep" / "both")
    (folder / "notes.txt").write_text("nothing")
    done = tlkit("ensemble", f"{folder}/*", "--data", story.data, "--out", tmp_path / "a", "--no-calibrate", "--json")
    assert [Path(member["checkpoint"]).name for member in done.json["members"]] == ["one", "two"]
    assert "left out, since they hold no checkpoint: " in done.err
    assert " and 1 more" in done.err
    done = tlkit(
        "ensemble", f"{folder}/**/both", f"{folder}/one", "--data", story.data, "--out", tmp_path / "b", "--json"
    )
    assert len(done.json["members"]) == 3
    done = tlkit("ensemble", f"{folder}/*.txt", folder / "one")
    assert done.code == 2
    assert "none of the 1 files and folders that match holds a checkpoint" in done.err
    done = tlkit("ensemble", f"{folder}/x*", folder / "one")
    assert done.code == 2
    assert "matches nothing" in done.err
