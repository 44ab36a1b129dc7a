"""Streams of images: the bits of one call for all, whatever pauses, in the order given, from every kind of input."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import tl_kit
from tests.children import register
from tests.data.packing import flag_all
from tests.helpers import Listener, quick, write_images
from tl_kit import PathList, Prediction, Predictor, StreamConfig
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig, DecodeConfig, MembersConfig, RuntimeConfig
from tl_kit.errors import ConfigError, DataError, InputError, TlKitError
from tl_kit.file_kinds import TAR_ENDINGS
from tl_kit.inference.predictor import load_members
from tl_kit.inference.streaming.addresses import Address
from tl_kit.inference.streaming.archive_images import images_of
from tl_kit.inference.streaming.groups import groups, predict_groups
from tl_kit.inference.streaming.marks import InputDigests, mark_of
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.row_journal import partial_of
from tl_kit.storage.checkpoint import load_checkpoint

FP32 = RuntimeConfig(precision="fp32")
SMALL = replace(FP32, batch_size=4)


@dataclass(frozen=True)
class Story:
    """Checkpoints of two networks, and 36 images, two of which cannot be read."""

    checkpoint: Path
    other: Path
    files: list[Path]
    expected: list[Prediction]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("streams")
    data = write_images(root / "images")
    runs = [quick(data, root / f"run-{seed}", epochs=1, seed=seed).checkpoint for seed in (0, 1)]
    files = sorted(data.rglob("*.png"))
    files[5].write_bytes(files[5].read_bytes()[:200])
    files[22] = root / "missing.png"
    return Story(Path(runs[0]), Path(runs[1]), files, tl_kit.load(runs[0], runtime=SMALL).predict(files))


@pytest.fixture
def predictor(story: Story) -> Predictor:
    return tl_kit.load(story.checkpoint, runtime=SMALL)


def listed(files: list[Path], *, end: bytes = b"\n") -> io.BytesIO:
    return io.BytesIO(b"".join(os.fsencode(file) + end for file in files))


def flat(lists: list[list[Prediction]]) -> list[Prediction]:
    return list(chain.from_iterable(lists))


# Bits.


def test_a_stream_has_the_bits_of_one_call(story: Story, predictor: Predictor) -> None:
    for count in (1, 3, 4, 5, 9, 33, 36):
        assert list(predictor.stream(iter(story.files[:count]))) == predictor.predict(story.files[:count]), count
    assert list(tl_kit.predict_stream(story.checkpoint, story.files, runtime=SMALL)) == story.expected
    assert tl_kit.predict(story.checkpoint, story.files, runtime=SMALL) == story.expected


def test_members_and_crops_have_the_bits_of_one_call(story: Story) -> None:
    members = [load_checkpoint(folder) for folder in (story.checkpoint, story.other)]
    rule = FittedRule("logit-mean", {}, 0.7)
    for crops in (CropConfig(), CropConfig(crops=5)):
        both = load_members(
            story.checkpoint,
            members,
            classes=members[0].classes,
            rule=rule,
            crops=crops,
            runtime=replace(SMALL, batch_size=7),
        )
        both = replace(both, sharing=False, memory=MembersConfig(pixel_bytes=3 * 32 * 32 * 15))
        for count in (1, 8, 15, 36):
            assert list(both.stream(story.files[:count])) == both.predict(story.files[:count])


@pytest.mark.parametrize("pauses", [(1,), (2, 3, 4, 5), (4, 8), (7, 30, 33), range(1, 34)])
def test_pauses_change_no_bit(pauses: tuple[int, ...], story: Story, predictor: Predictor) -> None:
    def items(at: tuple[int, ...]) -> Iterator[Named | None]:
        for number, file in enumerate(story.files):
            if number in at:
                yield None
            yield Named(str(file), file)

    def found(at: tuple[int, ...]) -> list[list[Prediction]]:
        return [g.predictions for g in predict_groups(predictor, items(at), timed=True, reporter=Listener())]

    together, apart = found(()), found(pauses)
    assert flat(apart) == flat(together)
    assert flat(together) == story.expected, "36 images fill nine batches of 4"
    ends = {sum(map(len, apart[: n + 1])) for n in range(len(apart))}
    assert ends >= set(pauses), "all that came before a pause is predicted"


def test_a_stream_takes_up_again_within_a_batch(story: Story, predictor: Predictor) -> None:
    items = [Named(str(file), file) for file in story.files]
    for cut in (1, 4, 6, 35):
        first = list(predict_groups(predictor, items[:cut], timed=True, reporter=Listener()))
        rest = predict_groups(
            predictor, items[cut:], begun=True, place=first[-1].place, timed=True, reporter=Listener()
        )
        assert [p for g in (*first, *rest) for p in g.predictions] == story.expected


def test_groups_are_whole_batches_unless_memory_is_full() -> None:
    def sizes(count: int, *, size: int = 0, **options: Any) -> list[tuple[int, int, bool]]:
        items = [Named(str(n), bytes(size)) for n in range(count)]
        config = StreamConfig(held_bytes=1000)
        return [(len(g.inputs), g.before, g.filled) for g in groups(items, per_batch=4, config=config, **options)]

    assert sizes(10, at_once=4) == [(4, 0, False), (4, 0, False), (2, 0, False)]
    assert sizes(10, at_once=8) == [(8, 0, False), (2, 0, False)]
    assert sizes(10, at_once=4, timed=True) == [(4, 0, True), (4, 0, True), (2, 0, True)]
    assert sizes(7, at_once=8, size=350) == [(3, 0, True), (3, 3, True), (1, 2, True)]
    assert sizes(6, at_once=4, place=3) == [(5, 3, False), (1, 0, False)]


def test_nothing_is_taken_before_it_is_needed(story: Story, predictor: Predictor) -> None:
    taken = 0

    def files() -> Iterator[Path]:
        nonlocal taken
        for file in story.files:
            taken += 1
            yield file

    stream = predictor.stream(files())
    next(stream)
    assert taken == 4
    stream = predictor.stream(iter([story.files[0]] * 4 + [None]))  # type: ignore[list-item]
    assert [next(stream).error for _ in range(4)] == [None] * 4
    with pytest.raises(InputError, match="image 4 is None"):
        next(stream)


def test_deep_images_are_told_of_once(story: Story, predictor: Predictor, tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 60).save(deep)
    one, all_of_them = Listener(), Listener()
    assert list(predictor.stream([deep] * 9, reporter=one)) == predictor.predict([deep] * 9, reporter=all_of_them)
    assert one.messages == all_of_them.messages
    assert "9 images have more than 8 bits" in one.messages[0]


# Lists of paths.


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


# Archives and tables.


@pytest.fixture
def archives(story: Story, tmp_path: Path) -> Path:
    members = [(f"a/{number}.{end}", f) for number, f in enumerate(story.files[:9]) for end in ("cls", "png", "json")]
    for name, mode in (("s.tar", "w"), ("s.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:
            for member, file in members:
                tar.add(file, member)
            tar.add(story.files[0], "a/.hidden.png")
            link = tarfile.TarInfo("a/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
            tar.add(story.files[1], "noending")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for member, file in members:
            archive.write(file, member)
        archive.write(story.files[0], "__MACOSX/a/0.png")
        archive.write(story.files[1], "noending")
    return tmp_path


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.zip"])
def test_archives_are_read_and_not_unpacked(name: str, story: Story, predictor: Predictor, archives: Path) -> None:
    before = sorted(archives.rglob("*"))
    found = tl_kit.predict(story.checkpoint, archives / name, runtime=SMALL)
    assert [p.source for p in found] == [
        f"{archives / name}/{m}" for m in (*(f"a/{n}.png" for n in range(9)), "noending")
    ]
    expected = predictor.predict([*story.files[:9], story.files[1]])
    assert [p.probabilities for p in found] == [p.probabilities for p in expected]
    assert [p.error for p in found] == [p.error for p in expected]
    assert sorted(archives.rglob("*")) == before


def test_archives_that_are_damaged_say_so(archives: Path) -> None:
    def errors(name: str, content: bytes) -> list[str | None]:
        (archives / name).write_bytes(content)
        found = list(images_of(archives / name, DecodeConfig()))
        assert found[-1].name == str(archives / name)
        assert all(item.error is None and item.source is not None for item in found[:-1])
        return [item.error for item in found]

    whole = (archives / "s.tar").read_bytes()
    assert len(errors("cut.tar", whole[:20_000])) > 1
    for cut in range(1, len(whole.rstrip(b"\0")), 1777):
        assert "cannot be read " in (errors("cut.tar", whole[:cut])[-1] or ""), cut
    assert "cannot be read " in (errors("cut.tar.gz", (archives / "s.tar.gz").read_bytes()[:9000])[-1] or "")
    for name, content in {"none.tar": b"no archive" * 100, "none.zip": b"PK\3\4" + bytes(100), "void.tar": b""}.items():
        assert "cannot be read as an archive: " in (errors(name, content)[-1] or ""), name
    with tarfile.open(archives / "empty.tar", "w"):
        pass
    assert errors("empty.tar", (archives / "empty.tar").read_bytes()) == ["archive without images"]


def test_archives_have_the_names_and_endings_that_data_sets_have(story: Story, tmp_path: Path) -> None:
    """Names in UTF-8 that do not say so, with the separators of Windows; and every ending of a tar archive."""
    name = "gr\u00fcn\\1.png"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, story.files[0].read_bytes())
    flag_all(tmp_path / "x.zip", 1, lambda flags: flags & ~0x8)
    (item,) = images_of(tmp_path / "x.zip", DecodeConfig())
    assert item.name == f"{tmp_path / 'x.zip'}/gr\u00fcn/1.png"
    for ending in TAR_ENDINGS:
        kind = next((kind for letters, kind in (("g", "gz"), ("b", "bz2"), ("x", "xz")) if letters in ending[2:]), "")
        with tarfile.open(tmp_path / f"x{ending}", f"w:{kind}") as tar:
            tar.add(story.files[0], "1.png")
        assert [p.error for p in tl_kit.predict(story.checkpoint, tmp_path / f"x{ending}", runtime=SMALL)] == [None]


def test_tables_name_images(story: Story, predictor: Predictor, tmp_path: Path) -> None:
    relative = [Path(os.path.relpath(file, tmp_path)) for file in story.files[:6]]
    table = tmp_path / "list.csv"
    rows = [f'"{path}";x' for path in relative]
    table.write_text("\n".join(["Image Path;class", *rows, ";x", "a;b;c", "http://x.org/a.jpg;x"]))
    found = tl_kit.predict(story.checkpoint, table, runtime=SMALL)
    expected = predictor.predict([tmp_path / path for path in relative])
    assert found[:6] == expected
    assert [(p.source, p.error) for p in found[6:]] == [
        (f"{table}: line 8", "no path"),
        (str(table), "line 9: 3 cells, but the header has 2"),
        ("http://x.org/a.jpg", "an address: --urls fetches it"),
    ]
    table.write_text("\n".join(["scan;class", *rows]))
    with pytest.raises(DataError, match="names no column path"):
        tl_kit.predict(story.checkpoint, table)
    assert tl_kit.predict(story.checkpoint, table, image_column="scan", runtime=SMALL) == expected


def test_parquet_names_images_or_holds_them(story: Story, predictor: Predictor, tmp_path: Path) -> None:
    some = [file for number, file in enumerate(story.files[:8]) if number != 5]
    content = [file.read_bytes() for file in some]
    columns: dict[str, pa.Array] = {
        "paths": pa.array(map(str, some)),
        "bytes": pa.array(content),
        "both": pa.array([{"bytes": data, "path": f.name} for data, f in zip(content, some, strict=True)]),
    }
    expected = predictor.predict(some)
    for kind, column in columns.items():
        name = "file_name" if kind == "paths" else "picture"
        parquet.write_table(pa.table({"label": pa.array([1] * 7), name: column}), tmp_path / f"{kind}.parquet")
        found = tl_kit.predict(story.checkpoint, tmp_path / f"{kind}.parquet", runtime=SMALL)
        assert [p.probabilities for p in found] == [p.probabilities for p in expected], kind
    assert found[0].source == f"{tmp_path / 'both.parquet'}/{some[0].name}"
    parquet.write_table(pa.table({"image": pa.array([None, b"x"])}), tmp_path / "odd.parquet")
    found = tl_kit.predict(story.checkpoint, tmp_path / "odd.parquet")
    assert [p.error for p in found] == ["no image in this row", "not an image"]
    image = pa.array([{"bytes": None, "path": f"/else/where/{some[0].name}"}])
    parquet.write_table(pa.table({"image": image}), some[0].parent / "away.parquet")
    (found_there,) = tl_kit.predict(story.checkpoint, some[0].parent / "away.parquet", runtime=SMALL)
    (some[0].parent / "away.parquet").unlink()
    assert found_there.source == str(some[0])
    parquet.write_table(pa.table({"image": pa.array([[1], [2]])}), tmp_path / "lists.parquet")
    with pytest.raises(DataError, match="the column 'image' holds lists; an image is"):
        tl_kit.predict(story.checkpoint, tmp_path / "lists.parquet")
    (tmp_path / "none.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        tl_kit.predict(story.checkpoint, tmp_path / "none.parquet")


# Files of rows.


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
