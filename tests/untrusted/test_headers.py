"""Headers of safetensors files that lie, and numbers that are none: refused by name, before memory is taken."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.untrusted.conftest import Watch
from tests.untrusted.refusals import every_way_in, refused
from tl_kit.errors import CheckpointError, WeightsError
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.zoo.build_model import build_model
from tl_kit.zoo.safetensors_header import check_finite, read_header
from tl_kit.zoo.state_dict_files import read_state_dict


def entry(shape: object, start: object, stop: object, kind: object = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def file_of(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = {"a": entry([2], 0, 8)}
LIES: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "longer than the file": file_of(ONE, b"\0" * 8, length=2**20),
    "longer than any": file_of(ONE, b"\0" * 8, length=2**63 + 5),
    "no JSON": file_of(b"{", b""),
    "a list": file_of([1]),
    "not UTF-8": file_of(b"\xff\xfe{}"),
    "a name twice": file_of(b'{"a":%b,"a":%b}' % ((json.dumps(ONE["a"]).encode(),) * 2), b"\0" * 8),
    "overlap": file_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"\0" * 12),
    "shared bytes": file_of({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, b"\0" * 8),
    "a hole": file_of({"a": entry([2], 4, 12)}, b"\0" * 12),
    "bytes left over": file_of(ONE, b"\0" * 12),
    "out of the file": file_of({"a": entry([20], 0, 80)}, b"\0" * 8),
    "backwards": file_of({"a": entry([2], 8, 0)}, b"\0" * 8),
    "negative sides": file_of({"a": entry([-2, -1], 0, 8)}, b"\0" * 8),
    "negative place": file_of({"a": entry([2], -8, 0)}, b"\0" * 8),
    "fractions": file_of({"a": entry([2.0], 0, 8)}, b"\0" * 8),
    "true": file_of({"a": entry([True], 0, 4)}, b"\0" * 4),
    "huge": file_of({"a": entry([2**62, 8], 0, 8)}, b"\0" * 8),
    "huge numbers": file_of({"a": entry([10**4000], 0, 8)}, b"\0" * 8),
    "no type": file_of({"a": entry([2], 0, 8, "object")}, b"\0" * 8),
    "a type with a line break": file_of({"a": entry([2], 0, 8, "F32\n\x1b[31m" * 99)}, b"\0" * 8),
    "a type of four bits": file_of({"a": entry([2], 0, 1, "F4")}, b"\0"),
    "type is a list": file_of({"a": entry([2], 0, 8, ["F32"])}, b"\0" * 8),
    "an entry is text": file_of({"a": "weights"}),
    "absurd depth": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(lie: str, tmp_path: Path, watch: Watch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(LIES[lie])
    for read in (lambda: read_header(path, error=WeightsError), lambda: read_state_dict(path)):
        with pytest.raises(WeightsError, match="not a safetensors file, or damaged") as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < len(str(path)) + 300


def test_a_name_that_stands_twice_is_named(tmp_path: Path) -> None:
    """The library takes the last without a word."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(LIES["a name twice"])
    assert safetensors.torch.load_file(path).keys() == {"a"}
    with pytest.raises(WeightsError, match="a stands twice in its header"):
        read_header(path, error=WeightsError)


def test_a_tensor_of_more_sides_than_any_has_no_place_in_a_model(checkpoint: Path) -> None:
    """The library reads it."""
    spoil(checkpoint, lambda t: t.update({KERNEL: torch.zeros([1] * 100)}))
    with pytest.raises(CheckpointError, match=rf"{KERNEL} is \(1, 1, .* in the file"):
        load_checkpoint(checkpoint)
    with pytest.raises(WeightsError, match="tensors have another shape"):
        build_model("test_resnet", 3, weights=str(checkpoint), seed=0)


@pytest.mark.parametrize("lie", ["overlap", "a name twice", "huge", "absurd depth", "longer than the file"])
def test_a_checkpoint_with_such_a_header_is_refused(lie: str, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(LIES[lie])
    for command in every_way_in(checkpoint, images):
        assert "model.safetensors" in refused(tmp_path, *command)


def test_a_sound_file_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(2, 3),
        "b": torch.randn(4).half(),
        "c": torch.randn(1, 2, 2).bfloat16(),
        "d": torch.tensor(7),
        "e": torch.zeros(0, 5),
        "f": torch.tensor([True, False]),
    }
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    found = read_header(path, error=WeightsError)
    assert {name: (e.shape, e.dtype) for name, e in found.items()} == {
        name: (tuple(t.shape), t.dtype) for name, t in tensors.items()
    }
    check_finite(path, found, error=WeightsError)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_header_that_passes_is_one_that_the_library_reads(data: st.DataObject, tmp_path_factory: Any) -> None:
    """Bytes of a sound file are changed at random: what passes our reading, the library's own passes as well."""
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    content = bytearray(file_of({"a": entry([2], 0, 8), "b": entry([1, 3], 8, 20)}, b"\0" * 20))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1, 40]))]))
    try:
        entries = read_header(path, error=WeightsError)
    except WeightsError:
        return
    loaded = safetensors.torch.load_file(path)
    assert {n: tuple(t.shape) for n, t in loaded.items()} == {n: e.shape for n, e in entries.items()}


def spoil(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


KERNEL, STATISTICS = "layer1.0.conv1.weight", "layer1.0.bn1.running_var"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [KERNEL, STATISTICS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_numbers_that_are_none_are_named(
    value: float, name: str, dtype: torch.dtype, checkpoint: Path, tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].to(dtype)
        tensors[name].view(-1)[-1] = value

    spoil(checkpoint, change)
    path = checkpoint / "model.safetensors"
    with pytest.raises(CheckpointError, match=rf"the tensor {name} holds NaN or infinity"):
        check_finite(path, read_header(path, error=CheckpointError), error=CheckpointError)
    with pytest.raises(WeightsError, match=name):
        build_model("test_resnet", 3, weights=str(path), seed=0)


def test_the_largest_numbers_are_numbers(tmp_path: Path) -> None:
    largest = {
        str(t).split(".")[1]: torch.tensor([torch.finfo(t).max, torch.finfo(t).min, torch.finfo(t).tiny, -0.0], dtype=t)
        for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    }
    safetensors.torch.save_file(largest, tmp_path / "w.safetensors")
    check_finite(
        tmp_path / "w.safetensors", read_header(tmp_path / "w.safetensors", error=WeightsError), error=WeightsError
    )


def test_a_nan_behind_the_first_piece_is_found(tmp_path: Path) -> None:
    values = torch.zeros(5_000_001)
    values[-1] = float("nan")
    safetensors.torch.save_file({"a": torch.zeros(3), "b": values}, tmp_path / "w.safetensors")
    entries = read_header(tmp_path / "w.safetensors", error=WeightsError)
    with pytest.raises(WeightsError, match="the tensor b holds"):
        check_finite(tmp_path / "w.safetensors", entries, error=WeightsError)


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["\x1b[31mlayer"] = tensors.pop(KERNEL)


WRONG: dict[str, tuple[Any, str]] = {
    "nan": (lambda t: t[KERNEL].fill_(float("nan")), f"the tensor {KERNEL} holds NaN"),
    "missing": (lambda t: t.pop(KERNEL), f"1 tensors are missing, such as {KERNEL}"),
    "extra": (lambda t: t.update(more=torch.zeros(2)), "1 have no place in the model, such as more"),
    "renamed": (_rename, r"such as \x1b[31mlayer"),
    "shape": (lambda t: t.update({KERNEL: torch.zeros(1, 2)}), f"{KERNEL} is (1, 2) in the file and ("),
    "integers": (lambda t: t.update({KERNEL: t[KERNEL].to(torch.int8)}), f"{KERNEL} holds I8"),
    "fewer classes": (lambda t: t.update({"fc.weight": t["fc.weight"][:2].clone()}), "fc.weight is (2, "),
}


@pytest.mark.parametrize("fault", WRONG)
def test_tensors_that_are_not_the_models_are_named(
    fault: str, checkpoint: Path, images: Path, tmp_path: Path, watch: Watch
) -> None:
    change, says = WRONG[fault]
    spoil(checkpoint, change)
    for command in every_way_in(checkpoint, images):
        line = refused(tmp_path, *command)
        assert says in line
        assert str(checkpoint) in line


def test_types_that_weights_do_not_have_are_refused_as_weights(checkpoint: Path) -> None:
    spoil(checkpoint, lambda t: t.update({KERNEL: t[KERNEL].to(torch.int8)}))
    with pytest.raises(WeightsError, match=rf"type that weights do not have: {KERNEL} int8"):
        build_model("test_resnet", 3, weights=str(checkpoint), seed=0)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """Strides of 0: a million by a million numbers, of which one is stored."""
    torch.save({"a": torch.zeros(1).as_strided((10**6, 10**6), (0, 0))}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="larger than the file"):
        read_state_dict(tmp_path / "w.pth")
