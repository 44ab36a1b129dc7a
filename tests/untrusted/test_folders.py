"""Hostile JSON in the folders that tl-kit opens: refused in a line, before anything is built, opened or fetched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import tlkit
from tests.untrusted.conftest import Watch
from tests.untrusted.refusals import every_way_in, refused
from tl_kit.config import TrustConfig
from tl_kit.errors import ConfigError
from tl_kit.machine.memory import peak_memory
from tl_kit.zoo.build_model import build_model

Change = Callable[[dict[str, Any]], Any]


def change(path: Path, edit: Change) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def card(**entries: Any) -> Change:
    return lambda content: content["pretrained_cfg"].update(entries)


def arguments(**entries: Any) -> Change:
    return lambda content: content.setdefault("model_args", {}).update(entries)


def top(**entries: Any) -> Change:
    return lambda content: content.update(entries)


CARDS: dict[str, tuple[Change, str]] = {
    "no architecture": (lambda c: c.pop("architecture"), "no architecture"),
    "unknown architecture": (top(architecture="no_such_net"), "no architecture"),
    "architecture is a path": (top(architecture="../../evil"), "no architecture"),
    "architecture is a list": (top(architecture=["resnet18"]), "no architecture"),
    "a million million classes": (top(num_classes=10**12), "num_classes is 1000000000000"),
    "negative classes": (top(num_classes=-3), "num_classes is -3"),
    "classes are text": (top(num_classes="3"), "num_classes is '3'"),
    "other classes in model_args": (arguments(num_classes=10**9), "num_classes is 1000000000"),
    "some more classes": (arguments(num_classes=900_000), "900000 outputs but 3 class names"),
    "checkpoint_path": (arguments(checkpoint_path="/etc/passwd"), "'checkpoint_path', which is not an argument"),
    "pretrained": (arguments(pretrained=True), "'pretrained', which is not an argument"),
    "overlay": (arguments(pretrained_cfg_overlay={"url": "http://x.invalid/w.pth"}), "'pretrained_cfg_overlay'"),
    "cache_dir": (arguments(cache_dir="/tmp/evil"), "'cache_dir'"),
    "features_only": (arguments(features_only=True), "'features_only'"),
    "device": (arguments(device="cuda"), "'device'"),
    "no identifier": (arguments(**{"a b\x1b[31m": 1}), r"'a b\x1b[31m'"),
    "unknown argument": (arguments(evil=1), "cannot build"),
    "wrong type of argument": (arguments(layers="many"), "cannot build"),
    "huge depth": (arguments(layers=[10**6] * 4), "cannot build"),
    "huger depth": (arguments(layers=[10**15] * 4), "a value that no model takes"),
    "huge width": (arguments(channels=[10**6] * 4), "do not fit together"),
    "a long list": (arguments(layers=[1] * 20_000), "a value that no model takes"),
    "a deep list": (arguments(layers=[[[[[[[1]]]]]]]), "a value that no model takes"),
    "long text": (arguments(act_layer="x" * 5000), "a value that no model takes"),
    "one channel": (arguments(in_chans=1), "3 channels"),
    "huge images": (card(input_size=[3, 10**6, 10**6]), "input_size is [3, 1000000, 1000000]"),
    "huge images built in": (arguments(img_size=10**6), "img_size is 1000000"),
    "no images": (card(input_size=[3, 0, 32]), "input_size is [3, 0, 32]"),
    "flat images": (card(input_size=[32, 32]), "input_size is [32, 32]"),
    "sizes are text": (card(input_size=["3", "32", "32"]), "input_size is"),
    "tiny crop": (card(crop_pct=1e-12), "crop_pct is 1e-12"),
    "crop is text": (card(crop_pct="all"), "crop_pct is 'all'"),
    "std of zero": (card(std=[0, 0, 0]), "std is [0, 0, 0]"),
    "std is huge": (card(std=[10**400, 1, 1]), "std is"),
    "mean of two": (card(mean=[0.5, 0.5]), "mean is [0.5, 0.5]"),
    "interpolation": (card(interpolation="__class__"), "interpolation is '__class__'"),
    "crop mode": (card(crop_mode=["center"]), "crop_mode is"),
    "classifier": (card(classifier=5), "classifier is 5"),
    "card is a list": (top(pretrained_cfg=[1]), "not a JSON object"),
    "unknown entry": (card(evil=1), "cannot build"),
    "hub file outside": (card(hf_hub_filename="../../../etc/passwd"), "not a file name"),
    "hub file, absolute": (card(hf_hub_filename="C:\\evil"), "not a file name"),
}


@pytest.mark.parametrize("fault", CARDS)
def test_a_hostile_card_is_refused(
    fault: str, checkpoint: Path, images: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, says = CARDS[fault]
    monkeypatch.setattr(TrustConfig, "modules", 10_000)  # timm makes as many layers until it is stopped
    change(checkpoint / "config.json", edit)
    before = peak_memory()
    line = refused(tmp_path, "predict", checkpoint, images / "red")
    assert says in line
    assert str(checkpoint) in line
    assert peak_memory() - before < 2**29, "refused before memory is taken"


@pytest.mark.parametrize(
    "edit",
    [
        card(url="http://evil.invalid/w.pth"),
        card(file="/etc/passwd"),
        card(hf_hub_id="evil/model", source="hf-hub"),
        card(hf_hub_id="evil/model", hf_hub_filename="pytorch_model.bin", custom_load="hf"),
        card(url="http://evil.invalid/w.npz", custom_load=True, source="timm"),
        card(state_dict={"fc.weight": [1]}),
        top(hf_hub_id="evil/model", url="http://evil.invalid/w.pth"),
    ],
)
def test_addresses_and_files_in_a_card_are_not_followed(
    edit: Change, checkpoint: Path, images: Path, watch: Watch
) -> None:
    """They are where the weights came from once: timm's own cards have them."""
    change(checkpoint / "config.json", edit)
    done = tlkit("predict", checkpoint, images / "red")
    assert done.code == 0, done.err
    _, report = build_model(f"local-dir:{checkpoint}", 3, seed=0)
    assert report.source == f"local file {checkpoint / 'model.safetensors'}"
    build_model(f"local-dir:{checkpoint}", 3, weights="none", seed=0)
    assert not any("passwd" in path for path in watch.opened)


def test_a_model_folder_for_a_run_is_checked_as_well(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    change(checkpoint / "config.json", arguments(channels=[200_000] * 4))
    out = ("--img-size", 32, "--weights", "none", "--out", tmp_path / "run")
    line = refused(tmp_path, "finetune", f"local-dir:{checkpoint}", "--data", images, *out)
    assert "GB of memory" in line
    change(checkpoint / "config.json", arguments(cache_dir="/tmp"))
    with pytest.raises(ConfigError, match="cache_dir"):
        build_model(f"local-dir:{checkpoint}", 3, seed=0)


METAS: dict[str, tuple[Change, str]] = {
    "a later format": (top(format=99), "later tl-kit, in format 99"),
    "an earlier format": (top(format=0), "not in a format"),
    "format is text": (top(format="1"), "not in a format"),
    "format is true": (top(format=True), "not in a format"),
    "no classes": (top(classes=[]), "no class names"),
    "classes are text": (top(classes="abc"), "no class names"),
    "classes are numbers": (top(classes=[1, 2, 3]), "no class names"),
    "duplicates": (top(classes=["red", "red", "blue"]), "'red' stands 2 times"),
    "an empty name": (top(classes=["red", "", "blue"]), "a class without a name"),
    "a long name": (top(classes=["red", "x" * 10**6, "blue"]), "longer class names"),
    "one class too many": (top(classes=["a", "b", "c", "d"]), "3 outputs but 4 class names"),
    "config is a list": (top(config=[]), "config or data"),
    "model is no name": (top(config={"model": {"a": 1}}), "config.model"),
    "split is text": (top(config={"split": "x"}), "config.split"),
    "a share of text": (top(config={"split": {"val_fraction": "x"}}), "config.split.val_fraction"),
    "a share above all": (top(config={"split": {"val_fraction": 7}}), "config.split.val_fraction"),
    "a group pattern that is a list": (top(config={"split": {"group_pattern": ["a"]}}), "config.split.group_pattern"),
    "a group pattern without end": (top(config={"split": {"group_pattern": "(a+)+$"}}), "config.split.group_pattern"),
    "a negative seed": (top(config={"split": {"split_seed": -1}}), "config.split.split_seed"),
    "root with a NUL": (top(data={"root": "/data\0x", "content": "a"}), "data.root"),
    "root is a number": (top(data={"root": 5}), "data.root"),
    "digests are a number": (top(data={"train": 5}), "data.train"),
    "digests of lists": (top(data={"val": [["a"]]}), "data.val"),
    "precision is a list": (top(precision=["bf16"]), "precision"),
}


@pytest.mark.parametrize("fault", METAS)
def test_a_hostile_tlkit_json_is_refused(fault: str, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    edit, says = METAS[fault]
    change(checkpoint / "tlkit.json", edit)
    for command in every_way_in(checkpoint, images):
        line = refused(tmp_path, *command)
        assert says in line
        assert str(checkpoint) in line


ENSEMBLES: dict[str, tuple[Change, str]] = {
    "a later format": (top(format=3), "later tl-kit, in format 3"),
    "no members": (top(members=[]), "members"),
    "members are text": (top(members="members/01-a"), "members"),
    "a member twice": (lambda c: c.update(members=[c["members"][0]] * 2), "named twice"),
    "parent folder": (lambda c: c.update(members=["../checkpoint", c["members"][0]]), "outside"),
    "parent folder within": (lambda c: c.update(members=["members/../../checkpoint"]), "outside"),
    "absolute": (top(members=["/etc"]), "outside"),
    "another system's absolute": (top(members=["C:\\Windows"]), "outside"),
    "another system's share": (top(members=["\\\\host\\share"]), "outside"),
    "another system's parent": (top(members=["members\\..\\..\\x"]), "outside"),
    "a NUL": (top(members=["members/01-a\0"]), "outside"),
    "an empty name": (top(members=[""]), "outside"),
    "no such member": (top(members=["members/03-c"]), "03-c"),
    "duplicate classes": (top(classes=["red", "red", "blue"]), "stands 2 times"),
    "other classes": (top(classes=["red", "green", "\x1b[31mblue"]), r"\x1b[31mblue"),
    "unknown rule": (top(rule="__import__"), "rule"),
    "rule with parameters": (top(parameters={"weights": [1, 2]}), "rule"),
    "huge temperature": (top(temperature=10**4000), "temperature"),
    "temperature is text": (top(temperature="1"), "temperature"),
    "huge crops": (top(crops=10**9), "--crops"),
    "huge scales": (top(scales=[10**400]), "--scales"),
    "scales of lists": (top(scales=[[1.0]]), "--scales"),
}


@pytest.mark.parametrize("fault", ENSEMBLES)
def test_a_hostile_ensemble_json_is_refused(fault: str, ensemble: Path, images: Path, tmp_path: Path) -> None:
    edit, says = ENSEMBLES[fault]
    change(ensemble / "ensemble.json", edit)
    for command in every_way_in(ensemble, images)[:2]:
        line = refused(tmp_path, *command)
        assert says in line
        assert str(ensemble) in line


JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "JSON"),
    "cut": (b'{"format": 1', "JSON"),
    "a list": (b"[1]", "no JSON object"),
    "absurd depth": (b'{"format": 1, "a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    "absurd depth of objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "a number of 10,000 digits": (b'{"format": 1' + b"0" * 10_000 + b"}", "JSON"),
    "NaN": (b'{"format": NaN}', "NaN is no number"),
    "a key twice": (b'{"format": 1, "format": 1}', "stands twice"),
    "UTF-16": ('{"format": 1}'.encode("utf-16"), "JSON"),
    "a NUL": (b'{"format": 1}\0', "JSON"),
}


@pytest.mark.parametrize("fault", JSON)
@pytest.mark.parametrize("file", ["tlkit.json", "config.json", "ensemble.json", "members/01-a/tlkit.json"])
def test_json_that_is_none_is_refused(fault: str, file: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue("ensemble" if "/" in file or file == "ensemble.json" else "checkpoint")
    images: Path = request.getfixturevalue("images")
    content, says = JSON[fault]
    (folder / file).write_bytes(content)
    line = refused(tmp_path, "predict", folder, images / "red")
    assert says in line
    assert str(folder / file) in line


def test_json_of_absurd_size_is_not_read(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is sparse: half a gigabyte of zeros that takes no disk."""
    with (checkpoint / "tlkit.json").open("wb") as file:
        file.truncate(2**29)
    monkeypatch.setattr("tests.untrusted.refusals.tree", lambda root: {})
    assert "larger than" in refused(tmp_path, "predict", checkpoint, images / "red")


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
@pytest.mark.parametrize("file", ["tlkit.json", "config.json", "model.safetensors"])
def test_links_that_leave_a_checkpoint_are_refused(
    file: str, checkpoint: Path, images: Path, tmp_path: Path, watch: Watch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (checkpoint / file).rename(elsewhere / file)
    (checkpoint / file).symlink_to(elsewhere / file)
    for command in every_way_in(checkpoint, images):
        assert "leads out of its folder" in refused(tmp_path, *command)
    (checkpoint / file).unlink()
    (checkpoint / file).symlink_to(checkpoint / file)  # a loop
    assert file in refused(tmp_path, "predict", checkpoint, images / "red")


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_links_that_stay_inside_and_those_of_the_hub_cache_are_followed(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    (checkpoint / "tlkit.json").rename(checkpoint / "real.json")
    (checkpoint / "tlkit.json").symlink_to("real.json")
    assert tlkit("predict", checkpoint, images / "red").code == 0
    repository = tmp_path / "models--me--flowers"
    (repository / "blobs").mkdir(parents=True)
    (repository / "snapshots" / "abc").mkdir(parents=True)
    for file in ("tlkit.json", "config.json", "model.safetensors"):
        (repository / "blobs" / file).write_bytes((checkpoint / file).read_bytes())
        (repository / "snapshots" / "abc" / file).symlink_to(f"../../blobs/{file}")
    assert tlkit("predict", repository / "snapshots" / "abc", images / "red").code == 0
    member = repository / "snapshots" / "def" / "members" / "01-a"
    member.mkdir(parents=True)
    for file in ("tlkit.json", "config.json", "model.safetensors"):
        (member / file).symlink_to(f"../../../../blobs/{file}")
    assert tlkit("predict", member, images / "red").code == 0
    (member / "tlkit.json").unlink()
    (member / "tlkit.json").symlink_to(checkpoint / "tlkit.json")
    assert "leads out of its folder" in refused(tmp_path, "predict", member, images / "red")
    (tmp_path / "link").symlink_to(checkpoint)
    assert tlkit("predict", tmp_path / "link", images / "red").code == 0


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_member_that_is_a_link_out_of_the_ensemble_is_refused(
    ensemble: Path, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    (ensemble / "members" / "03-c").symlink_to(checkpoint)
    change(ensemble / "ensemble.json", lambda c: c.update(members=["members/01-a", "members/03-c"]))
    assert "leads out of its folder" in refused(tmp_path, "predict", ensemble, images / "red")
