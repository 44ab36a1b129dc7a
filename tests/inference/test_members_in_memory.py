"""Members of an ensemble together: results as one by one, whatever they share, and only so much in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

import tl_kit
import tl_kit.inference.run_models
from tests.helpers import quick, write_images
from tl_kit import CropConfig, EnsembleConfig
from tl_kit.config import MembersConfig, RuntimeConfig
from tl_kit.errors import CheckpointError
from tl_kit.inference.members_in_memory import MemberPass
from tl_kit.inference.predictor import Predictor, load_members
from tl_kit.storage.checkpoint import WEIGHTS, load_checkpoint, map_weights

pytestmark = pytest.mark.usefixtures("plain_pictures")

EIGHT = 8  # images a batch: the images fill several
TIGHT = MembersConfig(keep_bytes=0)
ONE = CropConfig()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=15)


@pytest.fixture(scope="module")
def files(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))[::2]


@pytest.fixture(scope="module")
def bases(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("ckpts")
    quick(data, root / "resnet", epochs=1)
    quick(data, root / "reseeded", epochs=1, seed=1)
    quick(data, root / "efficientnet", model="test_efficientnet", epochs=1)
    quick(data, root / "vit", model="test_vit", img_size=32, epochs=1)
    return {folder.name: folder for folder in root.iterdir()}


def variants(base: Path, out: Path, count: int, *prefixes: str) -> list[Path]:
    """Copies of a checkpoint whose tensors below ``prefixes`` are scaled, each otherwise."""
    made = []
    for number in range(count):
        folder = Path(shutil.copytree(base, out / f"{base.name}-{len(list(out.iterdir()))}"))
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and name.startswith(prefixes):
                tensors[name] = tensor * (1 + 0.1 * number) + 0.01 * number
        safetensors.torch.save_file(tensors, folder / WEIGHTS)
        made.append(folder)
    return made


def cases(bases: dict[str, Path], out: Path) -> dict[str, list[Path]]:
    resnet, vit = bases["resnet"], bases["vit"]
    reseeded = variants(bases["reseeded"], out, 2, "fc")
    return {
        "five heads": variants(resnet, out, 5, "fc"),
        "five last:1": variants(vit, out, 5, "head", "norm", "fc_norm", "blocks.5"),
        "three last:2": variants(resnet, out, 3, "fc", "layer4", "layer3"),
        "two trunks": [*variants(resnet, out, 2, "fc"), *reseeded],
        "architectures": [bases["efficientnet"], resnet, vit, *variants(vit, out, 1, "head")],
        "a tree": [*variants(resnet, out, 2, "layer4", "fc"), *variants(resnet, out, 2, "fc")],
        "statistics": [resnet, *variants(resnet, out, 2, "bn1.running")],
        "copies": [resnet] * 3,
    }


def together(paths: Sequence[Path], *, mode: Any = "auto", crops: CropConfig = ONE) -> Predictor:
    members = [load_checkpoint(path, mapped=True) for path in paths]
    runtime = RuntimeConfig(mode=mode, precision="fp32", batch_size=EIGHT)
    return load_members(paths[0], members, classes=members[0].classes, rule="mean", crops=crops, runtime=runtime)


def stack_of(predictor: Predictor, files: Sequence[Path]) -> NDArray[np.float64]:
    stack, failures = predictor.member_probabilities(files)
    assert failures == {}
    return stack


def one_by_one(paths: Sequence[Path], files: Sequence[Path], crops: CropConfig = ONE) -> NDArray[np.float64]:
    """Each checkpoint loaded and run on its own."""
    config = RuntimeConfig(precision="fp32", batch_size=EIGHT)
    return np.concatenate([stack_of(tl_kit.load(path, crops=crops, runtime=config), files) for path in paths])


def assert_equal(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.array_equal(found.argmax(-1), expected.argmax(-1))
    assert np.array_equal(found.mean(0).argmax(-1), expected.mean(0).argmax(-1))


CASES = ["five heads", "five last:1", "three last:2", "two trunks", "architectures", "a tree", "statistics", "copies"]


@pytest.mark.parametrize("case", CASES)
def test_members_together_give_what_each_gives_alone(
    case: str, bases: dict[str, Path], files: list[Path], tmp_path: Path
) -> None:
    paths = cases(bases, tmp_path)[case]
    predictor = together(paths)
    assert_equal(stack_of(predictor, files), one_by_one(paths, files))
    owners = {"two trunks": ((0, 1), (2, 3)), "architectures": ((0,), (1,), (2, 3))}
    assert predictor.arranged.owners == owners.get(case, (tuple(range(len(paths))),))
    shared = [each.network is not None for each in predictor.arranged.passes]
    assert shared == [len(group) > 1 for group in predictor.arranged.owners]


@pytest.mark.parametrize("case", ["five heads", "three last:2", "a tree"])
def test_test_time_crops_and_the_order_of_members(
    case: str, bases: dict[str, Path], files: list[Path], tmp_path: Path
) -> None:
    paths = cases(bases, tmp_path)[case]
    crops = CropConfig(crops=10, scales=(1.25,))
    expected = one_by_one(paths, files[:5], crops)
    assert_equal(stack_of(together(paths, crops=crops), files[:5]), expected)
    order = np.random.default_rng(0).permutation(len(paths))
    found = stack_of(together([paths[i] for i in order], crops=crops), files[:5])
    assert_equal(found, expected[order])


def test_plain_shares_nothing_and_gives_the_same(bases: dict[str, Path], files: list[Path], tmp_path: Path) -> None:
    paths = variants(bases["resnet"], tmp_path, 3, "fc")
    plain = together(paths, mode="plain")
    assert_equal(stack_of(together(paths), files), stack_of(plain, files))
    assert plain.arranged.owners == ((0,), (1,), (2,))
    assert all(each.network is None for each in plain.arranged.passes)


def test_other_precision_or_preprocessing_keeps_members_apart(bases: dict[str, Path], tmp_path: Path) -> None:
    paths = variants(bases["resnet"], tmp_path, 3, "fc")
    config = json.loads((paths[1] / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (paths[1] / "config.json").write_text(json.dumps(config))
    predictor = together(paths)
    assert predictor.arranged.owners == ((0, 2), (1,))
    low = replace(predictor.scorers[2], runtime=replace(predictor.scorers[2].runtime, precision="bf16"))
    assert replace(predictor, scorers=(*predictor.scorers[:2], low)).arranged.owners == ((0,), (1,), (2,))


def test_one_image_more_or_less_and_none(bases: dict[str, Path], files: list[Path], tmp_path: Path) -> None:
    paths = variants(bases["resnet"], tmp_path, 3, "fc", "layer4")
    predictor = together(paths)
    whole = stack_of(predictor, files)
    for count in (0, 1, EIGHT, EIGHT + 1):
        found = stack_of(predictor, files[:count])
        np.testing.assert_allclose(found, whole[:, :count], rtol=0, atol=1e-6)


def test_equal_tensors_are_in_memory_once(bases: dict[str, Path], files: list[Path], tmp_path: Path) -> None:
    predictor = together(variants(bases["resnet"], tmp_path, 3, "fc"))
    stack_of(predictor, files[:2])
    first, *others = (member.model for member in predictor.members)
    for model in others:
        for name, tensor in model.named_parameters():
            alike = tensor.data_ptr() == first.get_parameter(name).data_ptr()
            assert alike is (not name.startswith("fc.")), name


class Log:
    """Who is in memory, step by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.present: set[MemberPass] = set()  # themselves, not their id(): a later object may get a dead one's
        self.most = self.loads = 0
        prepare, release = MemberPass.prepare, MemberPass.release

        def prepared(each: MemberPass) -> None:
            prepare(each)
            self.loads += each not in self.present
            self.present.add(each)
            self.most = max(self.most, len(self.present))

        def released(each: MemberPass) -> None:
            release(each)
            if not each.stays:
                self.present.discard(each)

        monkeypatch.setattr(MemberPass, "prepare", prepared)
        monkeypatch.setattr(MemberPass, "release", released)


@pytest.fixture
def unlike(bases: dict[str, Path], tmp_path: Path) -> list[Path]:
    """Five members of which two share a trunk."""
    return [bases["resnet"], *variants(bases["vit"], tmp_path, 2, "head"), bases["efficientnet"], bases["reseeded"]]


def test_large_members_take_turns_and_images_are_decoded_once(
    unlike: list[Path], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = one_by_one(unlike, files)
    predictor = replace(together(unlike), memory=TIGHT)
    decoded: list[object] = []
    decode = tl_kit.inference.run_models.decode_as
    monkeypatch.setattr(tl_kit.inference.run_models, "decode_as", lambda s, **k: (decoded.append(s), decode(s, **k))[1])
    log = Log(monkeypatch)
    for _ in range(2):  # the second time, weights are read again
        log.loads = 0
        decoded.clear()
        assert_equal(stack_of(predictor, files), expected)
        assert (log.most, log.loads, log.present) == (1, 4, set())
        assert set(decoded) == set(files)
        assert len(decoded) <= 2 * len(files), "once for each size that the decoder may draft to"


def test_without_memory_for_pixels_each_batch_has_its_turns(
    unlike: list[Path], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MembersConfig(keep_bytes=0, pixel_bytes=0)
    predictor = replace(together(unlike), memory=memory)
    log = Log(monkeypatch)
    assert_equal(stack_of(predictor, files), one_by_one(unlike, files))
    batches = -(-len(files) // EIGHT)
    assert log.loads == 4 * batches + len(unlike), "and one for each that ran alone"
    kept = together(unlike)
    log.loads = 0
    stack_of(kept, files)
    assert log.loads == 4, "small members stay"


def test_the_heap_is_given_back_before_every_turn_of_several_batches(
    unlike: list[Path], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before those of a last single batch: what is kept for one network has holes that the next cannot use."""
    order: list[str] = []
    prepare = MemberPass.prepare
    monkeypatch.setattr(tl_kit.inference.run_models, "trim_memory", lambda: order.append("trim"))
    monkeypatch.setattr(MemberPass, "prepare", lambda each: (order.append("prepare"), prepare(each))[1])
    stack_of(together(unlike), files[:EIGHT])
    assert "trim" not in order, "a single batch: it would take longer than it is worth"
    order.clear()
    by_batch = replace(together(unlike), memory=MembersConfig(pixel_bytes=0))
    stack_of(by_batch, files[: EIGHT + 1])
    assert order == ["trim", "prepare"] * 4 * 2, "four passes, on eight images and on one"
    order.clear()
    stack_of(together(unlike[:1]), files)
    assert "trim" not in order, "one network has no other after it"


def test_images_that_cannot_be_decoded_are_named_once_in_turns(
    unlike: list[Path], files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    mixed = [*files[:9], broken, *files[9:]]
    stack, failures = replace(together(unlike), memory=TIGHT).member_probabilities(mixed)
    assert list(failures) == [9]
    assert_equal(np.delete(stack, 9, axis=1), one_by_one(unlike, files))


class Counted:
    """A reporter that adds up the progress."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def message(self, text: str) -> None: ...

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.steps.append(steps)

    def epoch(self, row: object) -> None: ...


@pytest.mark.parametrize("memory", [MembersConfig(), TIGHT])
def test_progress_ends_at_the_number_of_images(unlike: list[Path], files: list[Path], memory: MembersConfig) -> None:
    reporter = Counted()
    replace(together(unlike), memory=memory).member_probabilities(files, reporter=reporter)
    assert sum(reporter.steps) == len(files)
    assert min(reporter.steps) >= 0


def test_weights_that_are_gone_or_replaced_are_named(unlike: list[Path], files: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(unlike[0], tmp_path / "copy"))
    predictor = replace(together([copy, *unlike[1:]]), memory=TIGHT)
    stack_of(predictor, files[:2])
    shutil.copyfile(unlike[3] / WEIGHTS, tmp_path / "other")
    (tmp_path / "other").replace(copy / WEIGHTS)
    for step in ("replaced", "gone"):
        if step == "gone":
            (copy / WEIGHTS).unlink()
        with pytest.raises(CheckpointError, match="copy") as caught:
            stack_of(predictor, files[:2])
        assert "\n" not in str(caught.value)


def test_mapped_weights_are_those_of_the_file(bases: dict[str, Path], tmp_path: Path) -> None:
    for name, base in bases.items():
        plain, mapped = load_checkpoint(base), load_checkpoint(base, mapped=True)
        with torch.no_grad():
            next(mapped.model.parameters()).add_(1)
        map_weights(mapped)
        for (key, a), b in zip(plain.model.state_dict().items(), mapped.model.state_dict().values(), strict=True):
            assert a.dtype == b.dtype, (name, key)
            assert torch.equal(a, b), (name, key)
    narrow = Path(shutil.copytree(bases["resnet"], tmp_path / "narrow"))
    tensors = {
        n: t.half() if t.is_floating_point() else t for n, t in load_checkpoint(narrow).model.state_dict().items()
    }
    safetensors.torch.save_file(tensors, narrow / WEIGHTS)
    assert {p.dtype for p in load_checkpoint(narrow, mapped=True).model.parameters()} == {torch.float32}


def test_the_whole_way_evaluate_ensemble_and_predict(data: Path, tmp_path: Path) -> None:
    """Heads of one frozen trunk, as runs make them: they share it, and all three commands agree with plain."""
    paths = []
    for number, strength in enumerate((1e-3, 1e-1)):
        out, options = tmp_path / f"head-{number}", {"C": strength}
        paths.append(Path(quick(data, out, policy="head", epochs=None, optimizer_options=options).checkpoint))
    assert together(paths).arranged.owners == ((0, 1),)
    folders, receipts = {}, {}
    for mode in ("auto", "plain"):
        runtime = RuntimeConfig(mode=mode, precision="fp32")
        config = EnsembleConfig(checkpoints=tuple(paths), out=tmp_path / mode, bootstrap=50, runtime=runtime)
        result = tl_kit.ensemble(config)
        folders[mode], receipts[mode] = result.checkpoint, result.receipt
    assert receipts["auto"]["ensemble"]["test"] == pytest.approx(receipts["plain"]["ensemble"]["test"], abs=1e-5)
    files = sorted(data.rglob("*.png"))[:9]
    found = {}
    for mode in ("auto", "plain"):
        runtime = RuntimeConfig(mode=mode, precision="fp32")
        scores = tl_kit.evaluate(folders["auto"], data, split="test", runtime=runtime).metrics
        found[mode] = (scores, tl_kit.predict(folders["auto"], files, runtime=runtime))
    assert found["auto"][0] == pytest.approx(found["plain"][0], abs=1e-5)
    for here, there in zip(found["auto"][1], found["plain"][1], strict=True):
        assert here.label == there.label
        assert here.probabilities == pytest.approx(there.probabilities, abs=1e-5)
