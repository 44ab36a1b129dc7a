"""Archives and tables of images: read as they are, never unpacked."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

import tl_kit
from tests.data.packing import flag_all
from tests.inference.streaming.conftest import SMALL, Story
from tl_kit import Predictor
from tl_kit.config import DecodeConfig
from tl_kit.errors import DataError
from tl_kit.file_kinds import TAR_ENDINGS
from tl_kit.inference.streaming.archive_images import images_of


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
    assert found_there.source == "/else/where/0-0.png", "the name that the row has"
    parquet.write_table(pa.table({"image": pa.array([[1], [2]])}), tmp_path / "lists.parquet")
    with pytest.raises(DataError, match="the column 'image' holds lists; an image is"):
        tl_kit.predict(story.checkpoint, tmp_path / "lists.parquet")
    (tmp_path / "none.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        tl_kit.predict(story.checkpoint, tmp_path / "none.parquet")


# Files of rows.
