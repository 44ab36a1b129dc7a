"""Flags that fields of several configurations share."""

from __future__ import annotations

from tl_kit.flags import Flag, OnlyFlags

__all__ = [
    "CHECKPOINT",
    "CHECKPOINT_OR_FILE",
    "DATA",
    "DEVICE_ONLY",
    "IMAGE_COLUMN",
    "LABEL_COLUMN",
    "MC_DROPOUT",
    "OUT",
    "STRICT",
]

CHECKPOINT = Flag(
    panel="Prediction", name="CKPT", complete="checkpoints", help="A folder that finetune, ensemble or fit wrote."
)
CHECKPOINT_OR_FILE = Flag(
    panel="Prediction",
    common=True,
    name="CKPT",
    complete="checkpoints",
    help="A folder that finetune, ensemble or fit wrote, or a file of export (.onnx).",
)
DATA = Flag(
    panel="Data",
    common=True,
    help="Class folders, train/val/test folders of them, a table, an archive, shards, or an address (docs/data.md).",
)
DEVICE_ONLY = OnlyFlags(("device",))
"""Of a RuntimeConfig: ``--device``."""

IMAGE_COLUMN = Flag(
    panel="Data", metavar="NAME", help="Column of a table with the images (default: path, file_name, image, id ...)."
)
LABEL_COLUMN = Flag(
    panel="Data", metavar="NAME", help="Column of a table with the classes (default: label, class, target ...)."
)
MC_DROPOUT = Flag(
    panel="Prediction",
    metavar="T",
    help="Average T forward passes with dropout; 0: one without (default: 0, or as the ensemble was made).",
    show_default=False,
)
OUT = Flag(panel="Output", common=True, help="Folder to write (default: a new numbered one).")
STRICT = Flag(panel="Data", help="A file that cannot be used is an error, and not left out.")
