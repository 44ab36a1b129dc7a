"""Files from elsewhere, in the thousands: every one is refused in a line or read rightly, and none is obeyed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.torture.table import record
from tests.untrusted.conftest import Watch, checkpoint, images, original_folders, watch, write_checkpoint
from tests.untrusted.payloads import CONTAINERS, NAMES, PAYLOADS
from tl_kit.errors import TlKitError
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.zoo.build_model import build_model
from tl_kit.zoo.state_dict_files import read_state_dict

pytestmark = pytest.mark.torture
__all__ = ["checkpoint", "images", "original_folders", "watch"]  # fixtures

JSON_MUTATIONS, TENSOR_MUTATIONS, ARCHIVE_MUTATIONS = 3000, 1500, 3000


def is_refusal(error: Exception) -> bool:
    return isinstance(error, TlKitError) and "\n" not in str(error)


def test_pickles_with_code(tmp_path: Path, watch: Watch) -> None:
    tries, lost = 0, []
    canary = tmp_path / "canary"
    for shape, make in PAYLOADS.items():
        raw = make(canary)
        for container, wrap in CONTAINERS.items():
            for name in NAMES:
                tries += 1
                path = tmp_path / name
                path.write_bytes(wrap(raw))
                if not _is_refused(lambda path=path: build_model("test_resnet", 3, weights=str(path), seed=0)):
                    lost.append((shape, container, name))
                elif canary.exists() or watch.seen:
                    lost.append((shape, container, name, "was run"))
                    canary.unlink(missing_ok=True)
    record("a pickle with code in it", tries=tries, survived=tries - len(lost), lost=lost)


def _is_refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except TlKitError as error:
        return is_refusal(error)
    return False


def mutate(content: bytes, rng: random.Random, within: int | None = None) -> bytes:
    """A few bytes changed, a piece cut out, doubled, or replaced by noise."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(min(len(data), within or len(data)) or 1)
        length = rng.choice((1, 1, 1, 2, 8, 64))
        kind = rng.randrange(4)
        if kind == 0:
            data[place : place + length] = rng.randbytes(min(length, len(data) - place))
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        else:
            data[place : place + 1] = rng.choice(
                (b"9" * 12, b"-1", b'"', b"[", b"{", b"null", b"true", b"1e9", b"\\u202e")
            )
    return bytes(data)


@pytest.mark.parametrize("file", ["config.json", "tlkit.json"])
def test_mutated_json(file: str, tmp_path: Path, watch: Watch) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    whole, rng, lost = (folder / file).read_bytes(), random.Random(file), []
    for number in range(JSON_MUTATIONS):
        (folder / file).write_bytes(mutate(whole, rng))
        try:
            opened = load_checkpoint(folder)
            with torch.inference_mode():
                opened.model(torch.zeros(1, *opened.preprocessing.input_size))
        except Exception as error:  # noqa: BLE001 - it is judged
            if not is_refusal(error):
                shutil.copyfile(folder / file, tmp_path / f"lost-{number}-{file}")
                lost.append((number, type(error).__name__, str(error)[:200]))
    record(f"a mutated {file}", tries=JSON_MUTATIONS, survived=JSON_MUTATIONS - len(lost), lost=lost)


def test_mutated_weights(tmp_path: Path, watch: Watch) -> None:
    """Half of the mutations fall into the header. Numbers that are changed remain numbers, or are refused."""
    folder = write_checkpoint(tmp_path / "checkpoint")
    file = folder / "model.safetensors"
    whole, rng, lost = file.read_bytes(), random.Random(1), []
    header = 8 + int.from_bytes(whole[:8], "little")
    for number in range(TENSOR_MUTATIONS):
        file.write_bytes(mutate(whole, rng, within=header if number % 2 else None))
        try:
            opened = load_checkpoint(folder)
            if not all(bool(t.isfinite().all()) for t in opened.model.state_dict().values()):
                lost.append((number, "not finite"))
        except Exception as error:  # noqa: BLE001 - it is judged
            if not is_refusal(error):
                lost.append((number, type(error).__name__, str(error)[:200]))
    record("a mutated model.safetensors", tries=TENSOR_MUTATIONS, survived=TENSOR_MUTATIONS - len(lost), lost=lost)


@pytest.mark.parametrize("legacy", [False, True])
def test_mutated_archives(legacy: bool, tmp_path: Path, watch: Watch) -> None:
    """Of tensors alone: what torch reads of it is tensors by name, and anything else a refusal."""
    tensors = {f"layer{n}.weight": torch.randn(3, 4) for n in range(4)}
    torch.save(tensors, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    whole, rng, lost = (tmp_path / "whole.pth").read_bytes(), random.Random(2), []
    path = tmp_path / "w.pth"
    for number in range(ARCHIVE_MUTATIONS):
        path.write_bytes(mutate(whole, rng))
        try:
            read_state_dict(path)
        except Exception as error:  # noqa: BLE001 - it is judged
            if not is_refusal(error):
                lost.append((number, type(error).__name__, str(error)[:200]))
    name = "a mutated legacy .pth" if legacy else "a mutated .pth"
    record(name, tries=ARCHIVE_MUTATIONS, survived=ARCHIVE_MUTATIONS - len(lost), lost=lost)
