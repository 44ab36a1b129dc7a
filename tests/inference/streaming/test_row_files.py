"""Files of rows: what predict gives, complete or not there, and the same bytes after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

import tl_kit
from tests.children import register
from tests.inference.streaming.conftest import FP32, SMALL, Story, listed
from tl_kit import PathList, Predictor, StreamConfig
from tl_kit.config import CropConfig, ExportConfig
from tl_kit.errors import ConfigError, DataError, TlKitError
from tl_kit.inference.streaming.addresses import Address
from tl_kit.inference.streaming.marks import InputDigests, mark_of
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.row_journal import partial_of

EAGER = StreamConfig(pause=0.01, secure_seconds=0.0, group_rows=10)


def write(story: Story, out: Path, given: Any, **options: Any) -> tl_kit.PredictedFile:
    return tl_kit.predict_to_file(story.checkpoint, given, out, runtime=SMALL, stream=EAGER, **options)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_files_hold_what_predict_gives(form: str, story: Story, tmp_path: Path) -> None:
    out = tmp_path / f"rows.{form}"
    done = write(story, out, story.files, top=2)
    assert done == tl_kit.PredictedFile(out, 36, 2)
    assert list(tmp_path.iterdir()) == [out], "nothing else is left"
    if form == "parquet":
        rows = parquet.read_table(out).to_pylist()
        assert parquet.ParquetFile(out).metadata.num_row_groups == 4
    elif form == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        text = out.read_text()
        assert text == tl_kit.Rows("csv", 2).header + tl_kit.Rows("csv", 2).text(story.expected)  # type: ignore[attr-defined]
        return
    for row, prediction in zip(rows, story.expected, strict=True):
        best = list(prediction.probabilities.items())[:2]
        assert row["path"] == prediction.source
        assert [(entry["label"], entry["probability"]) for entry in row["top"]] == best
        assert (row["label"], row["probability"]) == (best[0] if best else (None, None))
        assert row["error"] == prediction.error


@pytest.mark.parametrize("given", ["table.csv", "images.zip", "image.png", "folder", "*.csv"])
def test_an_input_is_not_replaced_by_its_predictions(given: str, story: Story, tmp_path: Path) -> None:
    files = [story.files[0], story.files[1]]
    (tmp_path / "folder").mkdir()
    for name in ("image.png", "folder/image.png"):
        shutil.copy(files[0], tmp_path / name)
    (tmp_path / "table.csv").write_text("path\n" + "".join(f"{file}\n" for file in files))
    shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "folder")
    out = tmp_path / {"folder": "folder/image.png", "*.csv": "table.csv"}.get(given, given)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match=rf"--out .*{out.name}: is an input, which the predictions would replace"):
        write(story, out.parent / ".." / out.parent.name / out.name, [str(tmp_path / given)], format="csv")
    assert out.read_bytes() == before
    write(story, tmp_path / "folder" / "rows.csv", [tmp_path / "folder"])
    assert write(story, tmp_path / "folder" / "rows.csv", [tmp_path / "folder" / "image.png"]).rows == 1, "rows are"


def test_links_lead_to_inputs_and_loops_to_no_traceback(story: Story, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"path\n{story.files[0]}\n")
    before = table.read_bytes()
    (tmp_path / "hard.csv").hardlink_to(table)
    (tmp_path / "soft.csv").symlink_to(table)
    for name in ("hard.csv", "soft.csv"):
        with pytest.raises(ConfigError, match="is an input"):
            write(story, tmp_path / name, [table])
    assert table.read_bytes() == before
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert write(story, tmp_path / "rows.csv", [table, tmp_path / "loop.csv"]).failed == 1
    assert write(story, tmp_path / "rows.csv", [table]).rows == 1
    assert write(story, tmp_path / "loop.csv", [table]).rows == 1


def test_an_exported_file_is_not_replaced(tmp_path: Path, story: Story) -> None:
    model = Path(tl_kit.export(ExportConfig(checkpoint=story.checkpoint, out=tmp_path / "model.onnx")).file)
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="is an input"):
        tl_kit.predict_to_file(model, story.files[:1], model, format="csv")
    assert model.read_bytes() == before


@pytest.mark.parametrize("name", ["labels.csv", "config.json", "photo.jpg", "table.parquet", "rows.jsonl"])
def test_what_holds_no_predictions_is_not_replaced(name: str, story: Story, tmp_path: Path) -> None:
    file = tmp_path / name
    content = pa.table({"path": ["a"], "label": ["b"]})
    parquet.write_table(content, file) if name.endswith("parquet") else file.write_text('{"path": "a"}\n')
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=f"--out .*{name}: is there already, and holds no predictions"):
        write(story, file, story.files[:1], format="csv")
    assert file.read_bytes() == before


def test_a_folder_that_does_not_exist_is_named(story: Story, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out .*new.rows\.csv: its folder does not exist"):
        write(story, tmp_path / "new" / "rows.csv", story.files[:1])


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_predictions_are_replaced_by_new_ones(form: str, story: Story, tmp_path: Path) -> None:
    out = tmp_path / "rows"
    out.touch()
    for count in (1, 2):
        assert write(story, out, story.files[:count], format=form).rows == count


def state_of(out: Path) -> dict[str, Any]:
    """What is secured of a file; no rows, where nothing is."""
    file = Path(f"{partial_of(out)}.json")
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rows": 0}
    return found


def killed(story: Story, out: Path, files: list[Path], *, rows: int, piped: bool) -> int:
    """Kill a process (kill -9) that predicts, resuming, once ``rows`` rows are secured; the number that then are.

    ``piped``: it reads the names from a pipe that does not end.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(writing)
            work = Predictor.member_probabilities
            pytest.MonkeyPatch().setattr(
                Predictor, "member_probabilities", lambda *a, **o: (time.sleep(0.02), work(*a, **o))[1]
            )
            with os.fdopen(reading, "rb") as stream:
                write(story, out, PathList(stream) if piped else files, resume=True)
        finally:
            os._exit(1)
    register(child, lambda: None)
    os.close(reading)
    with os.fdopen(writing, "wb") as list_:
        list_.write(listed(files).getvalue())
        list_.flush()
        until = time.monotonic() + 60
        while state_of(out)["rows"] < rows and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was killed at work"
    return int(state_of(out)["rows"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("piped", [True, False])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_killed_run_goes_on_to_the_same_bytes(form: str, piped: bool, story: Story, tmp_path: Path) -> None:
    def given() -> Any:
        return PathList(listed(story.files)) if piped else story.files

    whole, out = tmp_path / f"whole.{form}", tmp_path / f"rows.{form}"
    write(story, whole, given())
    seen = [0]
    for count, rows in (
        ((5, 0), (7, 7), (18, 10), (25, 25), (36, 30)) if piped else ((36, 0), (36, 4), (36, 9), (36, 25))
    ):
        seen.append(killed(story, out, story.files[:count], rows=rows, piped=piped))
        assert not out.exists(), "a complete file alone has its name"
        with partial_of(out).open("ab") as torn:
            torn.write(b'{"path": "half a li')
    assert seen == sorted(seen)
    assert 25 <= seen[-1] < 36 or piped
    done = write(story, out, given(), resume=True)
    assert done == tl_kit.PredictedFile(out, 36, 2)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([whole, out])


def interrupted(story: Story, out: Path, files: list[Path] | None = None) -> None:
    """Leave a part of a file."""

    def pieces_of() -> Iterator[bytes]:
        yield listed((files or story.files)[:8]).getvalue()
        raise OSError("gone")

    pieces = pieces_of()
    stream = type("Stream", (), {"read": lambda self, size: next(pieces)})()
    with pytest.raises(DataError, match="standard input: cannot be read: gone"):
        write(story, out, PathList(stream))
    assert state_of(out)["rows"] == 8


def test_resuming_refuses_other_models_options_and_inputs(story: Story, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    interrupted(story, out)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(file.name for file in before) == ["rows.csv.partial", "rows.csv.partial.json"]
    cases: list[tuple[str, type[TlKitError], Any]] = [
        (r"holds 8 rows .* go on with --resume, or remove it", ConfigError, lambda: write(story, out, story.files)),
        (
            "begun with another model",
            ConfigError,
            lambda: tl_kit.predict_to_file(story.other, story.files, out, resume=True, runtime=SMALL),
        ),
        (r"another --top \(3, and now 2\)", ConfigError, lambda: write(story, out, story.files, top=2, resume=True)),
        ("another format", ConfigError, lambda: write(story, out, story.files, format="jsonl", resume=True)),
        (
            "another choice of crops",
            ConfigError,
            lambda: write(story, out, story.files, crops=CropConfig(crops=5), resume=True),
        ),
        (
            "8 inputs, and names among them changed",
            DataError,
            lambda: write(story, out, story.files[1:], resume=True),
        ),
        ("8 inputs, and there are 3 now", DataError, lambda: write(story, out, story.files[:3], resume=True)),
        (
            r"another batch size \(4, and now 8\)",
            ConfigError,
            lambda: tl_kit.predict_to_file(
                story.checkpoint, story.files, out, resume=True, runtime=replace(FP32, batch_size=8), stream=EAGER
            ),
        ),
    ]
    for message, kind, call in cases:
        with pytest.raises(kind, match=message):
            call()
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before, message
    write(story, out, PathList(listed(story.files)), resume=True)
    with pytest.raises(DataError, match=r"--resume: .* is complete"):
        write(story, out, story.files, resume=True)
    assert write(story, out, story.files[:3]).rows == 3, "without --resume a complete file is replaced"


def test_resuming_refuses_files_that_changed_since(story: Story, tmp_path: Path) -> None:
    """Also those of the same name and size; what is still to come may change."""
    files = [Path(shutil.copy(file, tmp_path / f"{number}.png")) for number, file in enumerate(story.files[:12])]
    out = tmp_path / "rows.csv"
    interrupted(story, out, files)
    files[11].write_bytes(files[0].read_bytes())
    before = files[3].stat()
    os.utime(files[3], ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    with pytest.raises(DataError, match="holds rows of 8 inputs, and files of them changed since; give the same"):
        write(story, out, PathList(listed(files)), resume=True)
    os.utime(files[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    missing = files[5].rename(tmp_path / "away.png")
    with pytest.raises(DataError, match="files of them changed since"):
        write(story, out, PathList(listed(files)), resume=True)
    missing.rename(files[5])
    assert write(story, out, PathList(listed(files)), resume=True).rows == 12


def test_marks_tell_images_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    items = [Named("a", tmp_path / "a"), Named("b", b"x"), Named("c", b"y"), Named("d", tmp_path / "none")]
    marks = [mark_of(item) for item in items]
    assert len(set(marks)) == 4
    assert marks == [mark_of(item) for item in items]
    assert mark_of(Named("e", Address("http://x"))) == mark_of(Named("f", None, "no image")) == ""
    first, second = InputDigests(), InputDigests()
    first.add("a", marks[0])
    second.add("a", marks[1])
    assert first.names == second.names
    assert first.marks != second.marks


def test_files_that_cannot_be_written_are_refused_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    images = tmp_path / "image.png"
    images.touch()
    for name, message in {
        "rows.txt": "a file is csv, jsonl or parquet",
        "folder.csv": "is a folder",
        "image.png/rows.csv": "is a file, not a folder|cannot be written|Not a directory",
    }.items():
        with pytest.raises(TlKitError, match=message):
            tl_kit.predict_to_file(tmp_path / "no model", images, tmp_path / name)


def test_a_file_is_written_by_one_process_at_a_time(story: Story, tmp_path: Path) -> None:
    from tl_kit.storage.lock import FolderLock

    lock = FolderLock(tmp_path, ".rows.csv.lock")
    with pytest.raises(TlKitError, match="another process is at work"):
        write(story, tmp_path / "rows.csv", story.files[:1])
    lock.release()
    assert write(story, tmp_path / "rows.csv", story.files[:1]).rows == 1


def test_names_that_are_not_unicode(story: Story, tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9\n.png")
    name.write_bytes(story.files[0].read_bytes())
    for form in ("csv", "jsonl", "parquet"):
        write(story, tmp_path / f"rows.{form}", PathList(listed([name], end=b"\0"), null=True))
    assert os.fsencode(name) in (tmp_path / "rows.csv").read_bytes()
    assert json.loads((tmp_path / "rows.jsonl").read_text())["path"] == str(name)
    assert parquet.read_table(tmp_path / "rows.parquet")["path"][0].as_py() == f"{tmp_path}/caf\\udce9\n.png"
