"""Two processes train as one: each takes its share of every batch, and the gradients are averaged."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer

import tl_kit
from tests.helpers import quick, write_images
from tests.ranks import by_torchrun, in_two_processes, two_processes
from tl_kit.errors import CheckpointError

SCRIPT = """
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tests.helpers import quick
from tests.finetuning.test_processes import little_memory
from tl_kit.cli import main
run = quick(Path(sys.argv[1]), Path(sys.argv[2]), model="test_vit", optimizer="sgd", lr=0.05)
Path(f"scores-{os.environ['RANK']}").write_text(repr(run.val))
passes = little_memory("1")
quick(Path(sys.argv[1]), Path(sys.argv[3]), model="test_vit", optimizer="sgd", lr=0.05)
Path(f"passes-{os.environ['RANK']}").write_text(" ".join(map(str, passes)))
for name, data in (("told", sys.argv[1]), ("wrong", "nowhere")):
    with open(f"{name}-{os.environ['RANK']}", "w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            main(["finetune", "test_vit", "--data", data, "--weights", "none", "--policy", "head", "--out", name])
        except SystemExit as end:
            print("exit code", end.code)
"""


def little_memory(rank: str) -> list[int]:
    """From now on the process of this rank cannot train on three images at once. Gives the sizes of its passes."""
    original, passes = VisionTransformer.forward, list[int]()

    def forward(self: VisionTransformer, images: torch.Tensor, *args: Any, **options: Any) -> Any:
        if self.training:
            passes.append(len(images))
            if len(images) > 2 and os.environ["RANK"] == rank:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, images, *args, **options)

    VisionTransformer.forward = forward
    return passes


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of torch has no gloo")
def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=10)  # 18 training images in batches of 6: equal shares
    alone = quick(data, tmp_path / "one", model="test_vit", optimizer="sgd", lr=0.05, batch_size=8)
    by_torchrun(SCRIPT, tmp_path, data, tmp_path / "two", tmp_path / "parts")
    scores = [(tmp_path / f"scores-{rank}").read_text() for rank in range(2)]
    assert scores[0] == scores[1], "all processes report what the first one saved"
    told, silent = ((tmp_path / f"told-{rank}").read_text().splitlines() for rank in range(2))
    assert "checkpoint: told" in told
    assert silent == ["exit code 0"]
    for rank in range(2):
        error, code = (tmp_path / f"wrong-{rank}").read_text().splitlines()
        assert error.startswith(f"error: {tmp_path / 'nowhere'}: no such file or folder")
        assert code == "exit code 2"
    one, two = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = quick(data, tmp_path / "start", model="test_vit", optimizer="sgd", lr=1e-12, batch_size=8)
    zero = safetensors.torch.load_file(Path(start.checkpoint) / "model.safetensors")
    moved = max(float((one[name] - zero[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert alone.epochs == 2
    assert apart < 0.01 * moved
    parts = safetensors.torch.load_file(tmp_path / "parts" / "model.safetensors")
    apart = max(float((parts[name] - two[name]).abs().max()) for name in two)
    assert apart < 0.01 * moved, "in parts, because one of two processes has little memory"
    roomy, small = ([int(n) for n in (tmp_path / f"passes-{rank}").read_text().split()] for rank in range(2))
    assert roomy[0] == small[0] == 3, "each tries its share of a batch once, before it trains"
    assert set(roomy[1:]) == {1}, "the other divides its batches as well"
    assert set(small[2:]) == {1}


RESUMED = """
import os
import sys
from pathlib import Path
import tl_kit
from tests.helpers import Listener, quick
from tl_kit.config import RegularizationConfig, SaveConfig
from tl_kit.training import loop
data, out, what = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).name
run_epoch = loop.run_epoch
def dying(task, accelerator, result, *args, **options):
    if what == "killed" and result.epochs == 2:
        os._exit(9)
    return run_epoch(task, accelerator, result, *args, **options)
loop.run_epoch = dying
if what == "resumed":
    listener = Listener()
    tl_kit.resume(out, reporter=listener)
    Path(f"told-{os.environ['RANK']}").write_text("\\n".join(listener.messages))
else:
    regular = RegularizationConfig(dropout=0.3)
    quick(data, out, batch_size=6, epochs=4, optimizer="sgd", regularization=regular, save=SaveConfig(every=1e-9))
"""


@two_processes
def test_a_run_of_two_processes_is_resumed_by_two_to_the_same_weights(tmp_path: Path) -> None:
    """Dropout and BatchNorm: each process has random numbers, and statistics, of its own."""
    data, whole, out = write_images(tmp_path / "images", images=10), tmp_path / "whole", tmp_path / "run"
    in_two_processes(RESUMED, tmp_path, data, whole, Path("undisturbed"))
    in_two_processes(RESUMED, tmp_path, data, out, Path("killed"), ends=9)
    with pytest.raises(CheckpointError, match="trained by 2 processes, and would go on with 1; start it with as many"):
        tl_kit.resume(out)
    in_two_processes(RESUMED, tmp_path, data, out, Path("resumed"))
    told, silent = ((tmp_path / f"told-{rank}").read_text() for rank in range(2))
    assert re.search("taken up in epoch [23], after 0 of its steps", told), "saving is not worth it after every epoch"
    assert silent == ""
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (out / "metrics.jsonl").read_text().count("\n") == 4
