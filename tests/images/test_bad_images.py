"""Files that have gone wrong: each is an image or is left out with its reason, and none stops the scan."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, write_classes, write_image
from tests.data.scans import error, reasons
from tests.images.bad_images import BROKEN, ENTRIES, GOOD, KINDS, ODD_NAMES, many_scans, photo, plant, reason_of
from tests.images.decoding import pixels, reason
from tests.torture.processes import NO_FORKS, Forked
from tests.torture.rights import bound_by_rights
from tl_kit.config import DecodeConfig
from tl_kit.data.folders import list_files
from tl_kit.data.listing import natural_key
from tl_kit.data.scan import scan
from tl_kit.errors import ImageError
from tl_kit.images.decode import check_header, decode, read_file
from tl_kit.images.limits import most_bytes
from tl_kit.storage.atomic import write_json

UPRIGHT = {name for name in GOOD if name.startswith(("orientation", "exif", "animated", "several", "film", "bytes"))}


@pytest.mark.parametrize("kind", GOOD)
def test_odd_images_are_decoded(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = plant(tmp_path, kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = decode(path)
        assert decode(path, min_side=4).mode == "RGB"
    assert (image.mode, caught, capfd.readouterr()) == ("RGB", [], ("", ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = Image.open(path).size
    assert image.size == size


@pytest.mark.parametrize("kind", sorted(UPRIGHT - {"animated.gif", "animated.webp"}))
def test_what_is_odd_about_them_does_not_alter_the_picture(kind: str, tmp_path: Path) -> None:
    """Of an animation, that is the first picture; those of GIF and WebP are not the photo to the bit."""
    plain = photo() if kind.endswith(("png", "tiff")) else encoded(photo(), "JPEG", progressive=kind.startswith("film"))
    np.testing.assert_array_equal(pixels(plant(tmp_path, kind)), pixels(plain))


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_in_one_quiet_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = plant(tmp_path, kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = reason(path)
        assert text == reason(path.read_bytes(), min_side=4)
    assert BROKEN[kind][1] in text
    assert text.isprintable()
    assert (caught, capfd.readouterr()) == ([], ("", ""))


def test_a_scan_has_every_kind_among_its_images_or_its_exclusions(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 6, "b": 6})
    for kind in KINDS:
        plant(tmp_path / "b", kind)
    manifest = scan(tmp_path)
    found = {name.removeprefix("b/"): text for name, text in reasons(manifest).items()}
    assert set(found) == {kind for kind in KINDS if reason_of(kind) is not None and _seen_in_header(kind)}
    assert all((reason_of(kind) or "") in text for kind, text in found.items())
    kept = {sample.path.name for sample in manifest.samples if sample.path.parent.name == "b"}
    assert kept == {f"{n}.png" for n in range(6)} | (set(KINDS) - set(found))
    assert manifest.content_hash() == scan(tmp_path).content_hash()


def _seen_in_header(kind: str) -> bool:
    if kind in ENTRIES:
        return True
    try:
        check_header(BROKEN[kind][0]())
    except ImageError:
        return True
    return False


def test_files_of_a_folder_and_what_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for kind in (*ENTRIES, *ODD_NAMES):
        plant(folder, kind)
    files, exclusions = list_files(folder)
    assert {path.name for path in files} == {*ODD_NAMES, "pipe.jpg", "endless.jpg"}
    assert {item.path.name: item.reason for item in exclusions} == {
        kind: ENTRIES[kind][1] for kind in set(ENTRIES) - {"pipe.jpg", "endless.jpg"}
    }


@pytest.mark.parametrize("name", ODD_NAMES)
def test_class_names_may_be_anything_that_a_folder_may(name: str, tmp_path: Path) -> None:
    write_classes(tmp_path, {name: 3, "b": 3})
    manifest = scan(tmp_path)
    assert set(manifest.classes) == {name, "b"}
    assert len(manifest.content_hash()) == 64
    write_json(tmp_path / "a.json", {"classes": list(manifest.classes)})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["classes"] == list(manifest.classes)


def test_what_was_left_out_is_why_classes_are_missing(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_classes(tmp_path / split, {"a": 3, "b": 3}, seed=len(split))
    (tmp_path / "train" / "a" / ".DS_Store").write_bytes(b"\0")
    for n in range(3):
        (tmp_path / "train" / "b" / f"{n}.png").write_bytes(b"")
    text = error(tmp_path)
    assert "train lacks 'b'" in text
    assert f"(4 files or folders were left out, the first: {tmp_path}/train/b/0.png: empty file)" in text


# Limits.


def test_scans_of_a_jpeg_are_counted_up_to_its_end() -> None:
    usual = many_scans(0).count(b"\xff\xda")
    limit = DecodeConfig(max_scans=usual + 3)
    assert decode(many_scans(3, behind=50), config=limit).size == photo().size
    assert reason(many_scans(4), config=limit).startswith(f"too large: {usual + 4} scans")
    thumbnail = encoded(photo(height=8, width=8), "JPEG", progressive=True)
    exif = b"Exif\0\0" + thumbnail * 20  # a picture in the metadata, its end included
    inner = encoded(photo(), "JPEG", progressive=True, exif=exif)
    assert inner.count(b"\xff\xda") > limit.max_scans
    assert decode(inner, config=limit).size == photo().size
    assert reason(encoded(photo(), "JPEG", progressive=True), config=DecodeConfig(max_scans=usual - 1))


def test_files_longer_than_any_image_are_not_read(tmp_path: Path) -> None:
    path = write_image(tmp_path / "endless.png", 1)
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)  # a sparse tebibyte
    assert reason(path).startswith("too large: 1099511627776 bytes")
    small = DecodeConfig(max_pixels=64)
    with path.open("r+b") as stream:
        stream.truncate(most_bytes(small))
    assert len(read_file(path, small)) == most_bytes(small)


def test_what_does_not_begin_like_an_image_is_not_read_at_all(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)
    assert len(read_file(path)) == 16
    assert reason(path) == "not an image that can be read (a video): save its frames as images"


def test_an_icon_that_holds_more_than_it_says(tmp_path: Path) -> None:
    icon = bytearray(encoded(photo(height=64, width=64), "ICO", sizes=[(64, 64)]))
    icon[6:8] = (16, 16)  # its directory says 16x16
    assert reason(bytes(icon), config=DecodeConfig(max_pixels=1000)).startswith("too large: 64x64")


def test_an_image_without_pixels() -> None:
    assert reason(Image.new("RGB", (0, 5))) == "has no pixels: 0x5"


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    assert reason(tmp_path / ("x" * 5000)).startswith("cannot be read: ")
    assert reason(tmp_path / "a\0b.jpg").startswith("cannot be read: ")


# Folders.


def test_links_among_folders_are_followed_once(tmp_path: Path) -> None:
    """Each of 9 folders links to all: 9! paths, of which the kernel follows up to 40 links each."""
    write_classes(tmp_path / "x", {f"part {n}": 1 for n in range(9)})
    for n in range(9):
        for other in range(9):
            (tmp_path / "x" / f"part {n}" / f"to {other}").symlink_to(tmp_path / "x" / f"part {other}")
    write_classes(tmp_path / "y", {"": 3})
    manifest = scan(tmp_path)
    assert sum(sample.label == 0 for sample in manifest.samples) == 9
    assert set(reasons(manifest).values()) == {"symbolic link to a folder that is read already"}


def test_a_folder_wins_over_a_link_to_it(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "a link").symlink_to(tmp_path / "a" / "the folder")
    write_image(tmp_path / "a" / "the folder" / "x.png", 50)
    manifest = scan(tmp_path)
    assert tmp_path / "a" / "the folder" / "x.png" in {sample.path for sample in manifest.samples}
    assert list(reasons(manifest)) == ["a/a link"]


def test_a_link_to_another_class_is_followed(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    assert sum(sample.label == 0 for sample in scan(tmp_path).samples) == 6


def test_folders_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3})
    top = folder = tmp_path / "a" / "d"
    folders = []
    try:
        for _ in range(1100):
            folder.mkdir()
            folders.append(folder)
            folder = folder / "d"
        write_image(folders[-1] / "deep.png", 77)
        assert sum(sample.label == 0 for sample in scan(tmp_path).samples) == 4
    finally:  # pytest removes its folders by recursion
        (folders[-1] / "deep.png").unlink(missing_ok=True)
        for folder in reversed(folders):
            folder.rmdir()
    assert not top.exists()


def print_reasons(folder: str) -> None:
    bound_by_rights()
    print(json.dumps(reasons(scan(folder))))


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
def test_without_permission(tmp_path: Path) -> None:
    """In a process of its own, since the superuser may read everything."""
    images = tmp_path / "images"
    write_classes(images, {"a": 4, "b": 3})
    secret = write_image(images / "a" / "secret" / "x.png", 60).parent
    (images / "a" / "link.png").symlink_to(secret / "x.png")
    (images / "a" / "0.png").chmod(0)
    secret.chmod(0)
    try:
        process = Forked(print_reasons, str(images), log=tmp_path / "log", out=tmp_path / "out")
        assert process.wait() == 0, process.text()
    finally:
        secret.chmod(0o700)
    found = json.loads((tmp_path / "out").read_text())
    assert found == dict.fromkeys(("a/0.png", "a/secret", "a/link.png"), "cannot be read: Permission denied")


def test_numbers_of_any_length_are_ordered() -> None:
    names = ["9" * 5000, "1" + "0" * 5000, "007", "10", "7", "x" + "1" * 4999]
    assert sorted(names, key=natural_key) == ["007", "7", "10", "9" * 5000, "1" + "0" * 5000, "x" + "1" * 4999]
