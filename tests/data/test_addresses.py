"""Addresses and copies beyond the scan: records, options, runs that are taken up, and names for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import tlkit
from tests.data.packing import FORMS, class_folders, images_of, zipped
from tests.helpers import Listener, quick, quick_config, write_images
from tl_kit import evaluate
from tl_kit.config import DataConfig
from tl_kit.data.forms.local_copies import copies, inner_name
from tl_kit.data.forms.reading import place_of
from tl_kit.data.forms.remote import hidden_login
from tl_kit.data.scan import scan
from tl_kit.errors import DataError
from tl_kit.file_kinds import address_of, may_be_there
from tl_kit.options_file import options_text
from tl_kit.storage.relocation import birthplace, relocated


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://bucket/imgs", "s3://bucket/imgs"),
        ("S3:/bucket/imgs", "s3://bucket/imgs"),
        ("https://host/x.zip?a=b", "https://host/x.zip?a=b"),
        ("hf://datasets/someone/fruit", "hf://datasets/someone/fruit"),
        ("hf:someone/fruit", "hf:someone/fruit"),
        ("memory://x", "memory://x"),
        ("imgs", None),
        ("/data/imgs", None),
        ("C:/data/imgs", None),
        ("a:b", None),
        ("imgs/s3://x", None),
    ],
)
def test_addresses_are_told_from_paths(path: str, address: str | None) -> None:
    assert address_of(path) == address
    assert address_of(Path(path)) == address, "a path has one slash in the place of two"


def test_an_existing_folder_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:someone" / "fruit").mkdir(parents=True)
    assert address_of("hf:someone/fruit") is None
    assert may_be_there("hf:someone/fruit")
    assert may_be_there("hf:someone/none")
    assert not may_be_there("none")


def test_logins_are_in_no_record() -> None:
    secret = "https://me:word@host/x.zip?X-Signature=abc"
    assert hidden_login(secret) == "https://host/x.zip"
    assert str(place_of(Path(secret))) == "https:/host/x.zip"


def test_options_and_runs_keep_addresses(tmp_path: Path) -> None:
    config = quick_config(Path("s3://bucket/imgs"), tmp_path / "out")
    assert "data: s3://bucket/imgs\n" in options_text([config], command="finetune")
    listener = Listener()
    found = relocated(config, birthplace(tmp_path / "out"), tmp_path / "out", listener)
    assert (found.data, listener.messages) == (config.data, [])


def test_copies_are_shown_removed_and_named_by_what_they_are_of(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "imgs", ("red", "green"), images=5)
    file = zipped(tmp_path / "x.zip", class_folders(folder))
    names = {str(inner_name(sample.path)) for sample in scan(file).samples}
    assert names == {f"{name}/{each.name}" for name, each in images_of(folder)}
    table = scan(FORMS["structs.parquet"](tmp_path / "x.parquet", folder))
    inner = [inner_name(sample.path) for sample in table.samples]
    assert sorted(path.name for path in inner if path) == sorted(each.name for _, each in images_of(folder))
    assert len(set(inner)) == 10, "files of one name are in folders of their own"
    assert inner_name(folder) is None
    shown = tlkit("cache")
    assert "local copy of" in shown.out
    assert str(file) in shown.out.replace("\n", "")
    assert tlkit("cache", "--clear").code == 0
    assert copies() == []


def test_the_columns_of_a_run_are_those_of_its_table_later(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "imgs", ("red", "green"), images=6)
    for name, label in (("own.csv", "Colour"), ("other.csv", "Kind")):
        rows = "".join(f"imgs/{cls}/{file.name},{cls}\n" for cls, file in images_of(folder))
        (tmp_path / name).write_text(f"path,{label}\n{rows}")
    out = tmp_path / "out"
    quick(tmp_path / "own.csv", out, epochs=1, policy="head", split=DataConfig(label_column="colour"))
    expected = evaluate(out, tmp_path / "own.csv").metrics
    with pytest.raises(DataError, match=r"other\.csv: line 1 names no column label; there are 'path', 'Kind'"):
        evaluate(out, tmp_path / "other.csv")
    assert evaluate(out, tmp_path / "other.csv", label_column="Kind").metrics == expected
    done = tlkit("evaluate", out, "--data", tmp_path / "other.csv", "--label-column", "kind")
    assert done.code == 0, done.err
