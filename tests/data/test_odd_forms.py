"""Archives, shards, tables and exports that are odd, damaged or hostile: one clear line, or a reason a file."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests import children
from tests.data.images import noise, tiff, write_classes
from tests.data.packing import FORMS, class_folders, flag_all, images_of, pairs, tar, zipped
from tests.data.scans import error, reasons, row_by_row
from tl_kit.config import DataConfig, DecodeConfig
from tl_kit.data.forms import local_copies
from tl_kit.data.forms.local_copies import clear_copies, copies, copies_root
from tl_kit.data.forms.unpacking import unpack
from tl_kit.data.scan import scan
from tl_kit.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("odd") / "imgs", {"a": 6, "b": 6})


@pytest.fixture
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_copies, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "data"


def test_names_that_lead_out_links_and_devices_are_left_out(folder: Path, tmp_path: Path) -> None:
    image = (folder / "a" / "0.png").read_bytes()
    names = ["../out.png", "/etc/out.png", "a/../../out.png", "C:/out.png", f"a/{'x' * 300}.png"]
    with zipfile.ZipFile(zipped(tmp_path / "x.zip", [*class_folders(folder), *((n, image) for n in names)]), "a") as z:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        z.writestr(link, "/etc/passwd")
    with tarfile.open(tar(tmp_path / "x.tar", [*class_folders(folder), *((n, image) for n in names)]), "a") as archive:
        for name, kind in (
            ("a/link.png", tarfile.SYMTYPE),
            ("a/hard.png", tarfile.LNKTYPE),
            ("a/dev", tarfile.CHRTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    for file, links in ((tmp_path / "x.zip", 1), (tmp_path / "x.tar", 3)):
        manifest = scan(file)
        assert row_by_row(manifest) == row_by_row(scan(folder))
        found = [each.reason for each in manifest.exclusions]
        assert found.count("its name leads out of the archive, or is too long") == len(names)
        assert found.count("a link, or no regular file") == links
        assert all(each.path.is_relative_to(file) for each in manifest.exclusions)
    assert not list(tmp_path.rglob("out.png"))
    assert not list(copies_root().rglob("out.png"))


def test_archives_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    members = class_folders(folder)
    zipped(tmp_path / "empty.zip", [])
    tar(tmp_path / "empty.tar", [])
    flag_all(zipped(tmp_path / "secret.zip", members), 0, lambda flags: flags | 1)
    whole = zipped(tmp_path / "whole.zip", members).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    packed = tar(tmp_path / "whole.tar.gz", members, "w:gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "alone.gz").write_bytes(b"\x1f\x8b" + b"no tar")
    zipped(tmp_path / "outer.zip", [("inner.zip", whole)])
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(tmp_path / "twice.zip", [*members, members[0]])
    zipped(tmp_path / "both.zip", [("a", b"x"), *members])
    broken = bytearray(whole)
    broken[len(members[0][0]) + 40] ^= 255
    (tmp_path / "broken.zip").write_bytes(broken)
    for name, message in {
        "empty.zip": "is an archive without files",
        "empty.tar": "is an archive without files",
        "secret.zip": "is encrypted; unpack it with its password, and name the folder",
        "cut.zip": "is damaged, or packed in a way that is not known",
        "cut.tar.gz": "is damaged, or packed in a way",
        "alone.gz": "is compressed, but no tar archive, or damaged",
        "outer.zip": "holds 1 files but no folders: inner.zip is an archive: name it by --data itself",
        "twice.zip": "holds two files named a/0.png; remove or rename one",
        "both.zip": "holds a file and a folder of one name",
        "broken.zip": "a/0.png: is damaged",
    }.items():
        assert message in error(tmp_path / name), name


def test_names_that_say_not_that_they_are_utf8_and_windows_separators(folder: Path, tmp_path: Path) -> None:
    """As macOS and old Windows programs write them."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number, (name, data) in enumerate(class_folders(folder)):
            archive.writestr(f"gr\u00fcn\\{number}.png" if name.startswith("a") else f"b\\{number}.png", data)
        archive.writestr("__MACOSX/b/._1.png", b"x")
    (tmp_path / "plain.zip").write_bytes((tmp_path / "x.zip").read_bytes())
    flag_all(tmp_path / "plain.zip", 1, lambda flags: flags & ~0x8)  # no member says that its name is UTF-8
    for file in ("x.zip", "plain.zip"):
        assert scan(tmp_path / file).classes == ("b", "gr\u00fcn")


def test_bombs_are_stopped(folder: Path, tmp_path: Path, own_copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(30_000_000))
    monkeypatch.setattr("tl_kit.data.forms.unpacking._FROM", 1_000_000)
    assert "unpacks to more than 200 times its size" in error(tmp_path / "bomb.zip")
    file = zipped(tmp_path / "x.zip", class_folders(folder))
    with pytest.raises(DataError, match=r"x.zip: its local copy would be larger than --copy-size 1e-06 GB; raise it"):
        scan(file, decode=DecodeConfig(copy_gb=1e-6))
    with pytest.raises(DataError, match="holds more files than are copied of one data set"):
        scan(file, decode=DecodeConfig(copy_files=11))
    assert len(scan(file, decode=DecodeConfig(copy_files=12)).samples) == 12
    assert [each.name for each in own_copies.iterdir() if each.name.startswith(".")] == []


def test_a_copy_is_made_once_and_again_when_damaged(folder: Path, tmp_path: Path, own_copies: Path) -> None:
    file = zipped(tmp_path / "x.zip", class_folders(folder))
    expected = row_by_row(scan(file))
    (copy,) = copies()
    assert (copy.of, copy.files) == (str(file), 13)
    lost = next(copy.folder.rglob("0.png"))
    before = lost.stat().st_mtime_ns
    assert row_by_row(scan(file)) == expected
    assert lost.stat().st_mtime_ns == before
    for damage in (lambda: lost.write_bytes(b""), lost.unlink, lambda: (copy.folder / "copy.json").write_text("{")):
        damage()
        assert row_by_row(scan(file)) == expected
        assert lost.stat().st_size > 0
    assert clear_copies() > copy.size
    assert copies() == []
    assert row_by_row(scan(file)) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_the_least_recently_used_copies_make_room_unless_a_process_reads_them(
    folder: Path, tmp_path: Path, own_copies: Path
) -> None:
    files = [zipped(tmp_path / f"{n}.zip", [*class_folders(folder), (f"a/{n}.txt", bytes(9000))]) for n in range(3)]
    bound = DecodeConfig(copy_gb=25_000 / 1e9)
    for number, file in enumerate(files[:2]):
        scan(file, decode=bound)
        index = max(copies(), key=lambda each: each.of == str(file)).folder / "copy.json"
        os.utime(index, (number, number))
    assert len(copies()) == 2, "both are in use by this process"
    local_copies._release(copies()[0].folder)
    scan(files[2], decode=bound)
    assert [Path(each.of).name for each in copies()] == ["1.zip", "2.zip"]


def test_pairs_that_are_no_pairs(folder: Path, tmp_path: Path) -> None:
    members = pairs(folder, lambda name: ("cls", name))
    image = members[0][1]
    tar(tmp_path / "twins.tar", [*members, ("000000.jpg", image)])
    assert "two images of one key in twins.tar: 000000.jpg and 000000.png" in error(tmp_path / "twins.tar")
    tar(tmp_path / "lone.tar", [*members, ("x.cls", b"a"), ("y.png", image), ("z.png", image), ("z.cls", b" ")])
    assert reasons(scan(tmp_path / "lone.tar")) == {
        "x": "label without an image",
        "y.png": "no label in .cls files",
        "z.png": "no label in .cls files",
    }
    tar(tmp_path / "bare.tar", pairs(folder, lambda name: ("cls", "01"["ab".index(name)])))
    manifest = scan(tmp_path / "bare.tar")
    assert manifest.classes == ("0", "1")
    assert any("put their names, one a line, into classes.txt" in note for note in manifest.notes)
    (tmp_path / "classes.txt").write_text("only")
    assert "bare.tar: 000006: the label 1 has no name; there are 1 class names" in error(tmp_path / "bare.tar")
    tar(tmp_path / "many.tar", pairs(folder, lambda name: ("json", {"label": [name, "x"]})))
    assert "has several labels an image; one class an image is needed" in error(tmp_path / "many.tar")
    tar(
        tmp_path / "json.tar",
        [*pairs(folder, lambda name: ("json", {"label": name})), ("q.png", image), ("q.json", b"{")],
    )
    assert "q.json: is no JSON" in error(tmp_path / "json.tar")


def test_captions_beside_images_in_class_folders_are_no_labels(folder: Path, tmp_path: Path) -> None:
    captions = [(f"{name}/{file.stem}.txt", b"a thing") for name, file in images_of(folder)]
    manifest = scan(tar(tmp_path / "x.tar", [*class_folders(folder), *captions]))
    assert manifest.classes == ("a", "b")
    assert len(manifest.exclusions) == len(captions)


def test_rows_of_parquet_without_image_or_label(folder: Path, tmp_path: Path) -> None:
    images = images_of(folder)
    columns = {
        "image": [*(file.read_bytes() for _, file in images), None, b"", images[0][1].read_bytes(), b"no image"],
        "label": [*(0 if name == "a" else 1 for name, _ in images), 0, 1, None, 1],
        "x": pa.array([[1]] * (len(images) + 4)),
    }
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    manifest = scan(tmp_path / "x.parquet")
    assert manifest.classes == ("0", "1")
    found = reasons(manifest)
    assert [found.pop(f"row {row}") for row in (13, 14, 15)] == ["no image", "no image", "no label"]
    assert list(found.values()) == ["not an image"]
    with pytest.raises(DataError, match="has several labels an image"):
        scan(tmp_path / "x.parquet", DataConfig(label_column="x"))
    with pytest.raises(DataError, match="names no column 'y', as --label-column has it; there are 'image', 'label'"):
        scan(tmp_path / "x.parquet", DataConfig(label_column="y"))
    parquet.write_table(pa.table({"image": [b"x"], "picture": [b"y"], "kind": ["z"]}), tmp_path / "x.parquet")
    assert "names no column label; there are 'image', 'picture', 'kind'" in error(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and more")
    assert "cannot be read as Parquet" in error(tmp_path / "x.parquet")


def test_deep_images_in_parquet(tmp_path: Path) -> None:
    deep = [tiff(noise(seed)[..., 0].astype(np.uint16) * 16) for seed in range(8)]
    parquet.write_table(pa.table({"image": deep, "label": list("abababab")}), tmp_path / "x.parquet")
    manifest = scan(tmp_path / "x.parquet")
    assert {sample.deep for sample in manifest.samples} == {"uint16"}
    assert {sample.path.suffix for sample in manifest.samples} == {".tif"}


def test_exports_that_label_no_whole_images(folder: Path, tmp_path: Path) -> None:
    content = json.loads(FORMS["coco.json"](folder.parent / "c.json", folder).read_text())
    other = {"id": 99, "image_id": 0, "category_id": content["categories"][1]["id"]}
    file = folder.parent / "d.json"
    file.write_text(json.dumps({**content, "annotations": [*content["annotations"], other]}))
    assert "a/0.png has several classes, 'a' and 'b'" in error(file)
    file.write_text(json.dumps({**content, "annotations": content["annotations"][1:]}))
    assert [each.reason for each in scan(file).exclusions] == ["no label"]
    file.write_text(json.dumps({"images": [], "shapes": []}))
    assert "neither COCO (images, annotations, categories) nor an export of Label Studio" in error(file)
    xml = folder.parent / "e.xml"
    xml.write_text('<annotations><image name="a/0.png"><box label="a"/></image></annotations>')
    assert "has no tags of whole images, only shapes" in error(xml)
    xml.write_text('<!DOCTYPE x [<!ENTITY y "z">]><annotations><image name="&y;"/></annotations>')
    assert "has a document type" in error(xml)


@pytest.mark.parametrize(("package", "name"), [("pyarrow", "binaries.parquet"), ("datasets", "saved")])
def test_a_missing_package_is_named_with_its_command(
    package: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FORMS[name](folder.parent / name, folder)
    monkeypatch.setattr("tl_kit.optional_packages.find_spec", lambda asked: None if asked == package else object())
    with pytest.raises(DataError, match=rf'{name}: needs {package}; run pip install "tl-kit\[data\]"$'):
        scan(file)


def test_a_stream_that_claims_less_than_it_holds_is_counted_as_it_is(tmp_path: Path) -> None:
    """Of what headers say, nothing is believed: the bytes that come are counted."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(5_000_000))
    room = local_copies.Room("x.zip", DecodeConfig(copy_gb=0.001), tmp_path)
    with pytest.raises(DataError, match=r"would be larger than --copy-size 0\.001 GB"):
        unpack(tmp_path / "x.zip", tmp_path / "out", room=room, shown="x.zip")
    written = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert written <= 1_048_576


@pytest.mark.parametrize(
    ("total", "free", "left"),
    [(4e12, 100e9, 99e9), (4e12, 1.1e9, 0.1e9), (0.5e9, 0.2e9, 0.175e9), (4e12, 0.9e9, 0)],
    ids=["large disk", "nearly full", "small disk", "full"],
)
def test_a_copy_leaves_a_gigabyte_of_a_disk_or_a_twentieth(
    total: float, free: float, left: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(int(total), int(total - free), int(free))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    room = local_copies.Room("x.zip", DecodeConfig(copy_gb=1000), tmp_path)
    if left:
        room.take(int(left))
    with pytest.raises(DataError, match=r"too full for its local copy, beside which (1|0\.025) GB stay free"):
        room.take(1000)


def test_a_tar_from_a_pipe_of_bytes(folder: Path, tmp_path: Path) -> None:
    """Old archives have no mark at the beginning; their ending tells."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(folder, arcname="imgs")
    raw = stream.getvalue()
    (tmp_path / "x.bin").write_bytes(raw)
    assert row_by_row(scan(tmp_path / "x.bin")) == row_by_row(scan(folder)), "by its first bytes"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_copies_that_another_process_reads_stay_and_leftovers_go(
    folder: Path, tmp_path: Path, own_copies: Path
) -> None:
    scan(zipped(tmp_path / "x.zip", class_folders(folder)))
    (copy,) = copies()
    code = (
        "import fcntl, os, sys; file = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(file, fcntl.LOCK_SH); "
        "print('held', flush=True); sys.stdin.read()"
    )
    reader = children.start(code, copy.folder / ".lock", stdin=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "held\n"
    assert clear_copies() == 0
    assert copies() == [copy]
    reader.communicate()
    left = own_copies / ".1-left"
    left.mkdir()
    os.utime(left, (0, 0))
    (own_copies / ".2-young").mkdir()
    scan(zipped(tmp_path / "y.zip", [*class_folders(folder), ("a/x.txt", b"x")]))
    assert not left.exists()
    assert (own_copies / ".2-young").exists()
    assert clear_copies() > 0
    assert list(own_copies.iterdir()) == []
