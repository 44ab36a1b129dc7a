"""Lists of paths, as they come on standard input."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.inference.streaming.conftest import SMALL, Story, listed
from tl_kit import PathList, StreamConfig
from tl_kit.errors import ConfigError, DataError, InputError


def texts(content: bytes, **options: Any) -> list[str]:
    return [text for text in PathList(io.BytesIO(content), **options).paths(StreamConfig()) if text is not None]


def test_the_lines_of_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert texts(b"a.jpg\nb c.jpg\n\n a \n./x/../y.png") == ["a.jpg", "b c.jpg", " a ", "./x/../y.png"]
    assert texts(b"\xef\xbb\xbfa\r\nb\r\n\r\n") == ["a", "b"]
    assert texts(b"caf\xe9\xff\n") == [os.fsdecode(b"caf\xe9\xff")]
    assert texts(b"a\nb\0c\r\0\0d", null=True) == ["a\nb", "c\r", "d"]
    assert texts(b"") == texts(b"\n\n") == []
    Path("odd\r").touch()
    assert texts(b"odd\r\neven\r\n") == ["odd\r", "even"]
    long = ["x" * 70_000 + str(number) for number in range(5)]
    assert texts("\n".join(long).encode()) == long


def test_lists_that_are_none() -> None:
    with pytest.raises(ConfigError, match="--null"):
        texts(b"a\0b\0")
    with pytest.raises(DataError, match="a line of more than"):
        texts(b"x" * (StreamConfig.line_bytes + 2**17))
    with pytest.raises(InputError, match="'rb'"):
        PathList(io.StringIO("a"))  # type: ignore[arg-type]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as file, pytest.raises(DataError, match="standard input: cannot be read"):
        list(PathList(file).paths(StreamConfig()))


def test_paths_come_before_the_list_ends_and_a_pause_is_told_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as list_:
        coming = PathList(stream).paths(StreamConfig(pause=0.01))
        list_.write(b"a\nb\nc")
        assert [next(coming) for _ in range(3)] == ["a", "b", None]
        list_.write(b"d\n")
        assert [next(coming), next(coming)] == ["cd", None]
        list_.write(b"e")
        list_.close()
        assert list(coming) == ["e"]


def test_predictions_of_a_list(story: Story) -> None:
    twice = [*story.files, story.files[0], story.checkpoint.parent]
    found = tl_kit.predict(story.checkpoint, PathList(listed(twice)), runtime=SMALL)
    assert found[:36] == story.expected
    assert found[36] == story.expected[0], "a file that is named twice"
    assert found[37].error == "is a folder"
    found = tl_kit.predict(
        story.checkpoint, [story.files[1], PathList(io.BytesIO(b"*.png\nhttp://x.org/a\n")), story.files[2]]
    )
    assert [p.source for p in found] == [str(story.files[1]), "*.png", "http://x.org/a", str(story.files[2])]
    assert [p.error for p in found[1:3]] == [
        "cannot be read: No such file or directory",
        "an address: --urls fetches it",
    ]
    with pytest.raises(DataError, match="standard input names none"):
        tl_kit.predict(story.checkpoint, PathList(io.BytesIO(b"\n")))
    with pytest.raises(InputError, match="--urls fetches it"):
        tl_kit.predict(story.checkpoint, "https://x.org/?a=*.jpg")
