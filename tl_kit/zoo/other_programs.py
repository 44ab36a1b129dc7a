"""Files of other programs that are taken for weights, told by how they begin, and what to do about each."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["foreign_format"]

_CONVERT = "tl-kit reads PyTorch's and safetensors' tensors; convert it with the program that made it"
_UNPACK = "unpack it, and give the file of weights in it"
_BEGINNINGS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a pointer of Git LFS instead of the file itself", "fetch that with git lfs pull"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file of Keras or TensorFlow", _CONVERT),
    (4, b"TFL3", "a TensorFlow Lite file", _CONVERT),
    (0, b"GGUF", "a GGUF file", _CONVERT),
    (0, b"\x93NUMPY", "a NumPy array", "save tensors by name, with torch.save or safetensors"),
    (0, b"\x1f\x8b", "packed with gzip", _UNPACK),
    (0, b"BZh", "packed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ\0", "packed with xz", _UNPACK),
    (0, b"7z\xbc\xaf'\x1c", "packed with 7-Zip", _UNPACK),
    (0, b"Rar!", "packed with RAR", _UNPACK),
    (0, b"<", "a web page or XML instead of weights", "download the file itself"),
    (0, b"{", "a text in JSON instead of weights", "give the file of tensors that belongs to it"),
)
_ONNX = (".onnx",)
_TENSORFLOW = (".pb", ".index", ".tflite", ".h5", ".keras")
_HEAD = 512


def foreign_format(path: Path) -> str | None:
    """What a file is instead of tensors, and what to do; None where it may hold some, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        members = _members(path) if head.startswith(b"PK") else []
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None
    if head[4:9] == b"\0\0\0\0{":
        return None  # safetensors: the length of the header, whose first bytes may be any, and the header
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
