"""Foreign file formats that users mistake for weights: recognised by their first bytes, each with a remedy."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tl_kit.file_kinds import kind_of

__all__ = ["foreign_format"]

_CONVERT = "tl-kit reads PyTorch's and safetensors' tensors; convert it with the program that made it"
_UNPACK = "unpack it, and give the file of weights in it"
_BEGINNINGS: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite file", _CONVERT),
    (0, b"GGUF", "a GGUF file", _CONVERT),
    (0, b"<", "a web page or XML instead of weights", "download the file itself"),
    (0, b"{", "a text in JSON instead of weights", "give the file of tensors that belongs to it"),
)
_HOLDERS = {
    "git-lfs": "a pointer of Git LFS instead of the file itself; fetch that with git lfs pull",
    "hdf5": f"an HDF5 file of Keras or TensorFlow; {_CONVERT}",
    "numpy": "a NumPy array; save tensors by name, with torch.save or safetensors",
    "gzip": f"packed with gzip; {_UNPACK}",
    "bzip2": f"packed with bzip2; {_UNPACK}",
    "xz": f"packed with xz; {_UNPACK}",
    "7z": f"packed with 7-Zip; {_UNPACK}",
    "rar": f"packed with RAR; {_UNPACK}",
}
_ONNX = (".onnx",)
_TENSORFLOW = (".pb", ".index", ".tflite", ".h5", ".keras")
_HEAD = 512


def foreign_format(path: Path) -> str | None:
    """The foreign format of a file and the remedy; None if it may contain tensors, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        members = _members(path) if head.startswith(b"PK") else []
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None
    if head[4:9] == b"\0\0\0\0{":
        return None  # safetensors: the length of the header, which may be any bytes, then the header
    if (holder := _HOLDERS.get(kind_of(head) or "")) is not None:
        return holder
    for at, magic, what, remedy in _BEGINNINGS:
        if head.startswith(magic, at):
            return f"{what}; {remedy}"
    if path.suffix.lower() in _ONNX or (head.startswith(b"\x08") and b"onnx" in head.lower()):
        return f"an ONNX file; {_CONVERT}"
    if "model.weights.h5" in members:
        return f"a Keras file; {_CONVERT}"
    if members and all(name.endswith(".npy") for name in members):
        return "NumPy arrays; save tensors by name, with torch.save or safetensors"
    if members and not any(name.endswith((".pkl", ".pickle")) for name in members):
        return f"a zip archive of other files; {_UNPACK}"
    return f"a file of TensorFlow's; {_CONVERT}" if path.suffix.lower() in _TENSORFLOW else None


def _members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
