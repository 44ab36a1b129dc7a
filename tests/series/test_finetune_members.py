"""Members by one command: what they share, in what they differ, and what an early end leaves."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tl_kit
from tests.helpers import (
    MODEL,
    NEARLY_SQUARE,
    UNGUARDED,
    Listener,
    interrupt,
    quick,
    quick_config,
    same,
    weights,
    write_images,
)
from tl_kit import EnsembleConfig, FinetuneConfig, MemberRuns, finetune_members
from tl_kit.config import LoopConfig
from tl_kit.data.scan import scan
from tl_kit.errors import CheckpointError, ConfigError, TlKitError, TrainingError
from tl_kit.series import series
from tl_kit.series.finetune_members import MemberRun
from tl_kit.storage.checkpoint import digest_prefix, load_checkpoint, read_meta
from tl_kit.storage.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("own_cache", "plain_pictures")

STEPS = 2 * 3  # of a member: two epochs of three batches


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_images(tmp_path_factory.mktemp("members") / "images", images=13, size=NEARLY_SQUARE)
    quick(data, data.parent / "pretrained", epochs=1)
    return data


def settings(data: Path, out: Path, **options: Any) -> FinetuneConfig:
    """A short run of the last two groups of a tiny network with weights to start from."""
    own = {"weights": str(data.parent / "pretrained"), "policy": "last:2", "guard": UNGUARDED}
    return quick_config(data, out, **(own | options))


HEAD: dict[str, Any] = {"policy": "head", "epochs": None, "batch_size": None, "loop": LoopConfig()}


@pytest.fixture(scope="module")
def seeds(data: Path) -> MemberRuns:
    return finetune_members(settings(data, data.parent / "seeds"), members=3)


def data_of(runs: MemberRuns) -> list[dict[str, Any]]:
    return [read_meta(path)["data"] for path in runs.checkpoints]


def test_each_member_is_the_single_run_of_its_seed(data: Path, seeds: MemberRuns, tmp_path: Path) -> None:
    for member in seeds.members:
        assert member.varied == f"seed {member.member - 1}"
        alone = tl_kit.finetune(settings(data, tmp_path / str(member.member), seed=member.member - 1))
        assert same(weights(member.checkpoint), weights(alone.checkpoint))
        assert (member.val, member.test) == (alone.val, alone.test)
    first, second, third = (weights(path) for path in seeds.checkpoints)
    assert not same(first, second)
    assert not same(second, third)


def test_members_share_their_images_and_combine(data: Path, seeds: MemberRuns, tmp_path: Path) -> None:
    parts = data_of(seeds)
    assert all(part == parts[0] for part in parts)
    receipt = tl_kit.ensemble(EnsembleConfig(checkpoints=seeds.checkpoints, out=tmp_path / "ensemble")).receipt
    assert [member["test"]["accuracy"] for member in receipt["members"]] == [
        member.test["accuracy"] for member in seeds.members if member.test is not None
    ]


def test_the_summary_says_what_the_result_says(data: Path, seeds: MemberRuns) -> None:
    summary = json.loads((Path(seeds.folder) / "members.json").read_text())
    assert {name: value for name, value in summary.items() if name != "config"} == seeds.to_dict()
    assert summary["config"]["model"] == MODEL
    assert seeds.command == f"tlkit ensemble {seeds.folder}/member-*"
    assert sorted(str(path) for path in Path(seeds.folder).glob("member-*")) == [str(p) for p in seeds.checkpoints]


def test_neither_the_folder_nor_the_summary_is_taken_for_a_checkpoint(data: Path, seeds: MemberRuns) -> None:
    folder = Path(seeds.folder)
    with pytest.raises(CheckpointError, match=r"is a file, not a checkpoint; give .*/member-\*"):
        tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(sorted(folder.glob("*")))))
    with pytest.raises(CheckpointError, match=r"holds the members of an ensemble; give them as .*/member-\*"):
        tl_kit.ensemble(EnsembleConfig(checkpoints=(folder, *seeds.checkpoints)))


@pytest.mark.parametrize("options", [{}, HEAD], ids=["last:2", "head"])
def test_folds_leave_each_training_image_out_once_and_share_all_others(
    data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    runs = finetune_members(settings(data, tmp_path / "run", **options), members=3, vary="folds")
    whole = {split: sorted(digest_prefix(s) for s in scan(data).split(split)) for split in ("train", "val")}
    parts = data_of(runs)
    assert {part["content"] for part in parts} == {scan(data).content_hash()}
    assert all(part["val"] == whole["val"] for part in parts)
    left_out = [set(whole["train"]) - set(part["train"]) for part in parts]
    assert sorted(digest for fold in left_out for digest in fold) == whole["train"]
    assert [m.images["train"] for m in runs.members] == [len(whole["train"]) - len(fold) for fold in left_out]
    assert len({json.dumps(member.val) for member in runs.members}) > 1
    assert (
        len(tl_kit.ensemble(EnsembleConfig(checkpoints=runs.checkpoints, out=tmp_path / "e")).receipt["members"]) == 3
    )


@pytest.mark.parametrize("options", [{}, HEAD, {"policy": "full"}], ids=["last:2", "head", "full"])
def test_bootstrap_members_train_on_samples_with_copies(data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    config = settings(data, tmp_path / "run", **options)
    runs = finetune_members(config, members=2, vary="bootstrap")
    whole = sorted(digest_prefix(sample) for sample in scan(data).split("train"))
    first, second = (Counter(part["train"]) for part in data_of(runs))
    assert first != second
    for count in (first, second):
        assert count.total() == len(whole) == 21
        assert max(count.values()) > 1
        assert set(count) < set(whole)
    assert {part["content"] for part in data_of(runs)} == {scan(data).content_hash()}
    again = finetune_members(replace(config, out=tmp_path / "again"), members=2, vary="bootstrap")
    for one, other in zip(runs.checkpoints, again.checkpoints, strict=True):
        assert same(weights(one), weights(other))
    assert (
        len(tl_kit.ensemble(EnsembleConfig(checkpoints=runs.checkpoints, out=tmp_path / "e")).receipt["members"]) == 2
    )


def test_models_and_policies_by_name(data: Path, tmp_path: Path) -> None:
    policies = finetune_members(settings(data, tmp_path / "p", policy="last:1, last:2,full"), vary="policy")
    assert [Path(p).name for p in policies.checkpoints] == ["member-1-last-1", "member-2-last-2", "member-3-full"]
    assert [member.policy for member in policies.members] == ["last:1", "last:2", "full"]
    single = tl_kit.finetune(settings(data, tmp_path / "single", policy="full"))
    assert same(weights(policies.checkpoints[2]), weights(single.checkpoint))
    models = settings(data, tmp_path / "m", model="test_resnet,test_efficientnet", weights="none", policy="full")
    runs = finetune_members(models, members=2, vary="model")
    assert [member.model for member in runs.members] == ["test_resnet", "test_efficientnet"]
    together = tl_kit.ensemble(EnsembleConfig(checkpoints=runs.checkpoints, out=tmp_path / "e"))
    assert len(together.receipt["members"]) == 2


@pytest.mark.parametrize(
    ("given", "modes"), [("auto", ["center", "squash"]), ("squash, border,center", ["squash", "border", "center"])]
)
def test_crop_modes_by_name(data: Path, tmp_path: Path, given: str, modes: list[str]) -> None:
    runs = finetune_members(settings(data, tmp_path / "c", crop_mode=given, policy="last:1"), vary="crop-mode")
    assert [member.varied for member in runs.members] == modes
    assert [load_checkpoint(path).preprocessing.crop_mode for path in runs.checkpoints] == modes
    together = tl_kit.ensemble(EnsembleConfig(checkpoints=runs.checkpoints, out=tmp_path / "e"))
    assert len(together.receipt["members"]) == len(modes)
    files = sorted(data.rglob("*.png"))[::3]
    stack, _ = tl_kit.load(tmp_path / "e").member_probabilities(files)
    alone = [tl_kit.load(path).member_probabilities(files)[0][0] for path in runs.checkpoints]
    np.testing.assert_allclose(stack, np.stack(alone), atol=1e-6)
    assert not np.allclose(stack[0], stack[1], atol=1e-5), "each member sees the images in its own way"


def test_members_of_equal_weights_are_told(tmp_path: Path) -> None:
    """Both crop modes see the same of square images."""
    square = write_images(tmp_path / "images", images=12, size=(32, 32))
    plain: dict[str, Any] = {"weights": "none", "policy": "full", "epochs": 1}
    config = settings(square, tmp_path / "c", crop_mode="center,squash", **plain)
    runs = finetune_members(config, vary="crop-mode")
    assert same(*(weights(path) for path in runs.checkpoints))
    told = [note for note in runs.notes if "have the same weights" in note]
    assert told == [
        "member-1, member-2: have the same weights, since --vary crop-mode changes nothing on these training images; "
        "keep one of them"
    ]
    assert runs.to_dict()["copies"] == [[1, 2]]
    others = finetune_members(settings(square, tmp_path / "s", **plain), members=2, vary="seed")
    assert (others.copies, [note for note in others.notes if "same weights" in note]) == ((), [])


def test_copies_that_the_head_guard_made_are_told_so() -> None:
    """A member under ``--policy head`` has no guard; those beside it trained, and their guard kept the head."""
    common: dict[str, Any] = {"checkpoint": "c", "epochs": 0, "images": {}, "val": None, "test": None, "kinds": {}}
    common |= {"chosen_by_val": (), "seconds": 1.0, "varied": "", "model": "m"}
    head, kept = (
        MemberRun(member=number, policy=policy, kept=kept, **common)
        for number, policy, kept in ((1, "head", None), (2, "full", "head"))
    )
    runs = MemberRuns(folder="m", vary="policy", classes=("a",), members=(head, kept), seconds={}, copies=((1, 2),))
    assert any("member-1, member-2: are one network, the fitted head" in note for note in runs.notes)
    same_head = replace(runs, members=(head, replace(head, member=2)))
    assert any("--vary policy changes nothing" in note for note in same_head.notes)


def test_what_is_frozen_is_computed_once_for_all_members(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, rows = FeatureStore.add, []

    def noting(store: FeatureStore, names: list[str], batches: Any) -> None:
        rows.extend((store.key, name) for name in names)
        original(store, names, batches)

    monkeypatch.setattr(FeatureStore, "add", noting)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for vary in ("seed", "bootstrap", "folds"):
        finetune_members(settings(data, tmp_path / vary, crop_mode="center"), members=3, vary=vary)
    manifest = scan(data)
    views = 2 + 2  # an epoch each; as evaluation sees them, and mirrored, to ask about mirror images
    views += 2  # all stages of both, for the same question
    expected = views * len(manifest.split("train")) + len(manifest.split("val")) + len(manifest.split("test"))
    assert len(rows) == len(set(rows)) == expected


def test_snapshots_of_every_member(data: Path, tmp_path: Path) -> None:
    runs = finetune_members(settings(data, tmp_path / "run", schedule="cyclic", snapshots=2), members=2)
    found = tuple(sorted(Path(runs.folder).glob("member-*/snapshot-*")))
    assert [str(p.relative_to(runs.folder)) for p in found] == [
        f"member-{m}/snapshot-{s}" for m in (1, 2) for s in (1, 2)
    ]
    together = tl_kit.ensemble(EnsembleConfig(checkpoints=found, out=tmp_path / "e"))
    assert len(together.receipt["members"]) == 4


def test_an_undecodable_image_is_said_once_and_members_still_combine(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    for split, count in (("train", 10), ("val", 4)):
        for name in ("red", "green"):
            folder = copy / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted((copy / name).glob("*.png"))[:count]:
                file.rename(folder / file.name)
    for name in ("red", "green", "blue"):
        shutil.rmtree(copy / name)
    (copy / "train" / "red" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    for vary in ("folds", "bootstrap"):
        listener = Listener()
        config = settings(copy, tmp_path / vary, weights=str(data.parent / "pretrained"))
        runs = finetune_members(config, members=2, vary=vary, reporter=listener)
        said = sum("torn.png" in text for text in listener.messages)
        assert said == 1 or (vary == "bootstrap" and said == 0), "a sample may not hold it; one of two folds does"
        assert len({part["content"] for part in data_of(runs)}) == 1
        tl_kit.ensemble(EnsembleConfig(checkpoints=runs.checkpoints, out=tmp_path / f"{vary}-e"))


def test_ctrl_c_keeps_the_finished_members_and_says_so(
    data: Path, seeds: MemberRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=STEPS)
    with pytest.raises(KeyboardInterrupt) as stop:
        finetune_members(settings(data, tmp_path / "run"), members=3)
    assert str(stop.value) == f"1 of 3 members are finished, in {tmp_path / 'run'}"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "member-1", "state"]
    assert same(weights(tmp_path / "run" / "member-1"), weights(seeds.checkpoints[0]))


def test_ctrl_c_before_anything_is_there_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=0)
    with pytest.raises(KeyboardInterrupt) as stop:
        finetune_members(settings(data, tmp_path / "run"), members=3)
    assert stop.value.args == ()
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_later_member_keeps_the_finished_ones_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = series.finetune_on, iter(range(10))

    def failing(*args: Any, **options: Any) -> object:
        if next(calls) == 1:
            raise TrainingError("the loss is not finite")
        return original(*args, **options)

    monkeypatch.setattr(series, "finetune_on", failing)
    listener = Listener()
    with pytest.raises(TrainingError, match="not finite"):
        finetune_members(settings(data, tmp_path / "run"), members=3, reporter=listener)
    assert f"1 of 3 members are finished, in {tmp_path / 'run'}" in listener.messages
    assert listener.messages[-1] == f"tlkit finetune --resume {tmp_path / 'run'} goes on from here"


@pytest.mark.parametrize(
    ("members", "vary", "options", "words"),
    [
        (1, "seed", {}, "--members 1: must be at least 2"),
        (2, "rate", {}, "--vary rate: known are seed, folds, bootstrap, model, policy, crop-mode"),
        (3, "seed", {"seed": 2**63 - 2}, "--seed"),
        (2, "seed", HEAD, "--vary seed: a head that is fitted in closed form is the same for every seed"),
        (13, "folds", {}, "--members 13: no class has training images for more than"),
        (None, "model", {}, f"--vary model: give two names or more with commas between, not '{MODEL}'"),
        (None, "policy", {"policy": "last:1,"}, "--vary policy: give two names"),
        (None, "policy", {"policy": "last:1,last:1"}, "--vary policy: 'last:1' is named twice"),
        (3, "policy", {"policy": "last:1,full"}, "--members 3: --vary policy has 2 names"),
        (None, "policy", {"policy": "last:1,first:2"}, "--policy first:2"),
        (None, "policy", {"policy": "last:2,head", "augment": "strong"}, "--augment: the head"),
        (None, "model", {"model": f"{MODEL},resnet81"}, "resnet81"),
        (2, "seed", {"model": f"{MODEL},test_efficientnet"}, "names more than one model, which takes --vary model"),
        (None, "model", {"policy": "head,full"}, "names more than one policy, which takes --vary policy"),
        (None, "crop-mode", {"crop_mode": "center"}, "--vary crop-mode: give two names"),
        (None, "crop-mode", {"crop_mode": "center,stretch"}, "--crop-mode stretch: known are auto"),
        (2, "seed", {"crop_mode": "center,squash"}, "names more than one crop-mode, which takes --vary crop-mode"),
    ],
)
def test_mistakes_are_told_before_the_first_run_starts(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: int | None,
    vary: Any,
    options: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setattr(series, "finetune_on", lambda *_, **__: pytest.fail("a run has started"))
    with pytest.raises(TlKitError) as caught:
        finetune_members(settings(data, tmp_path / "run", **options), members=members, vary=vary)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_in_it_is_refused_and_kept(data: Path, seeds: MemberRuns) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(seeds.folder).rglob("*")}
    with pytest.raises(CheckpointError, match="not empty"):
        finetune_members(settings(data, Path(seeds.folder)), members=2)
    assert {path: path.stat().st_mtime_ns for path in Path(seeds.folder).rglob("*")} == before


def test_a_head_by_gradient_differs_between_seeds(data: Path, tmp_path: Path) -> None:
    runs = finetune_members(settings(data, tmp_path / "run", policy="head"), members=2)
    one, other = (weights(path) for path in runs.checkpoints)
    assert not same(one, other)
    with pytest.raises(ConfigError, match="closed form"):
        finetune_members(settings(data, tmp_path / "other", **HEAD), members=2)
