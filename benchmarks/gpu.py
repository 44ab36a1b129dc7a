"""What a GPU allows and what tl-kit takes of it: training, evaluation, a head, decoding, memory. Nothing is downloaded.

    python benchmarks/gpu.py --json gpu.json       # a few minutes on a machine with a GPU
    python benchmarks/gpu.py --small               # a minute on two CPU cores: it shows that the script works

The weights are random and the photos are made here, so that accuracies mean nothing. For each network: the bare
training step on one batch that stays in memory, a plain torch loop (``ImageFolder``, a worker for each core), the
second epoch of ``--policy full``, and the forward pass alone. Then ``evaluate`` on many photos, a whole process of
``--policy head`` with its stages, and rates of decoding. A part that fails is shown with its error; the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from machine import describe
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision import datasets, transforms
from utilisation import SecondEpoch, utilisation

import tl_kit
from tl_kit.config import DataConfig
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.run_models import FileReader
from tl_kit.machine.runtime import available_cores

CLASSES = 10
WARM, STEPS = 5, 20


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured: networks, sides of photos and of inputs in pixels, numbers of photos, images a step.

    ``processes``: the runs of a head that begin with Python; the second of two finds warm kernels.
    """

    networks: tuple[str, ...]
    head: str
    photo: tuple[int, int]
    side: int | None
    train: int
    evaluate: int
    batch: int
    hungry: int
    processes: tuple[str, ...] = ("first", "second")


LARGE = Sizes(
    networks=("resnet50", "vit_small_patch16_224", "convnext_tiny"),
    head="tf_efficientnet_lite0",
    photo=(500, 375),
    side=None,
    train=4000,
    evaluate=8000,
    batch=128,
    hungry=4000,
)
SMALL = Sizes(
    networks=("test_resnet",),
    head="test_resnet",
    photo=(60, 45),
    side=32,
    train=160,
    evaluate=60,
    batch=16,
    hungry=0,
    processes=("first",),
)

Row = dict[str, Any]


def write_photos(folder: Path, count: int, size: tuple[int, int], *, seed: int) -> Path:
    """JPEGs in class folders: soft colours with grain, so that they take as long to decode as photos do."""
    width, height = size

    def one(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-12, 13, pixels.shape, dtype=np.int16)
        target = folder / f"class-{number % CLASSES}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(target / f"{number}.jpg", quality=90)

    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(one, range(count)))
    return folder


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def low_precision() -> torch.autocast:
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=torch.cuda.is_available())


def network(name: str, sizes: Sizes) -> tuple[nn.Module, int]:
    """A network with random weights on the device, and the side of its input."""
    sized = {"img_size": sizes.side} if sizes.side is not None and "vit" in name else {}
    model = timm.create_model(name, num_classes=CLASSES, **sized).to(device(), memory_format=torch.channels_last)
    return model, sizes.side or int(model.pretrained_cfg["input_size"][-1])


def rate(step: Callable[[], None], images: int) -> float:
    """Images a second of a step, after a few that warm up."""
    for number in range(WARM + STEPS):
        if number == WARM:
            synchronize()
            started = time.perf_counter()
        step()
    synchronize()
    return STEPS * images / (time.perf_counter() - started)


def bare_step(name: str, sizes: Sizes) -> Row:
    """Forward, backward and update on one batch that stays on the device."""
    model, side = network(name, sizes)
    images = torch.randn(sizes.batch, 3, side, side, device=device()).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(sizes.batch, device=device()) % CLASSES
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with low_precision():
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return {"images_per_second": rate(step, sizes.batch)}


def forward_alone(name: str, sizes: Sizes) -> Row:
    """The forward pass in eval mode on one batch that stays on the device."""
    model, side = network(name, sizes)
    images = torch.randn(2 * sizes.batch, 3, side, side, device=device()).contiguous(memory_format=torch.channels_last)
    model.eval()

    def step() -> None:
        with torch.inference_mode(), low_precision():
            model(images)

    return {"images_per_second": rate(step, 2 * sizes.batch)}


def plain_loop(name: str, sizes: Sizes, photos: Path) -> Row:
    """A loop as torch's examples have it, with torchvision's transforms; the second epoch."""
    model, side = network(name, sizes)
    steps = [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(photos), transforms.Compose(steps)),
        batch_size=sizes.batch,
        shuffle=True,
        num_workers=available_cores(),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=True,
    )
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9)
    for _ in range(2):
        started, seen = time.perf_counter(), 0
        for images, labels in loader:
            images = images.to(device(), non_blocking=True, memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with low_precision():
                loss = functional.cross_entropy(model(images), labels.to(device(), non_blocking=True))
            loss.backward()
            optimizer.step()
            seen += len(images)
        synchronize()
    return {"images_per_second": seen / (time.perf_counter() - started)}


def our_full(name: str, sizes: Sizes, photos: Path, out: Path) -> Row:
    """The second epoch of ``--policy full``, as the run's own log has it."""
    second = SecondEpoch()
    with utilisation(second) as used:
        run = tl_kit.finetune(
            tl_kit.FinetuneConfig(
                model=name,
                data=photos,
                policy="full",
                weights="none",
                epochs=2,
                batch_size=sizes.batch,
                img_size=sizes.side,
                out=out,
                split=DataConfig(val_fraction=0.1, test_fraction=0.1),
            ),
            reporter=second,
        )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "images_per_second" in row][-1]
    found = {"images_per_second": last["images_per_second"], "data_wait": last["data_wait"], "seconds": run.seconds}
    return {**found, "utilisation": float(np.mean(used)) if used else None}


def our_evaluate(checkpoint: Path, photos: Path) -> Row:
    """Seconds of ``evaluate`` on all photos, beside imports; and of the first one, which loads kernels."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        found = tl_kit.evaluate(checkpoint, photos, split="all")
        seconds.append(time.perf_counter() - started)
    cold, warm = seconds
    return {"images": found.images, "first": cold, "seconds": warm, "images_per_second": found.images / warm}


def our_head(sizes: Sizes, photos: Path, out: Path) -> Row:
    """A whole process of ``--policy head`` without a cache, and its stages."""
    side = () if sizes.side is None else ("--img-size", str(sizes.side))
    found: Row = {}
    for name in sizes.processes:
        command = [sys.executable, "-c", "from tl_kit.cli import main; main()", "finetune", sizes.head]
        command += ["--data", str(photos), "--policy", "head", "--weights", "none", "--cache-size", "0", "--json"]
        started = time.perf_counter()
        done = subprocess.run([*command, *side, "--out", str(out / name)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        found[name] = {"process": time.perf_counter() - started, "stages": json.loads(done.stdout)["seconds"]}
    return found


def decoding(photos: Path, sizes: Sizes) -> Row:
    """Photos decoded a second: by tl-kit on all cores, and by nvJPEG in batches of 64 where torchvision has it."""
    files = sorted(photos.rglob("*.jpg"))[:2000]
    model, _ = network(sizes.networks[0], sizes)
    reader = FileReader(files, [Preprocessing.from_model(model)])
    started = time.perf_counter()
    for start in range(0, len(files), 64):
        reader.read(start, min(start + 64, len(files)))
    found: Row = {"pillow": len(files) / (time.perf_counter() - started), "nvjpeg": None}
    if torch.cuda.is_available():
        from torchvision.io import decode_jpeg, read_file

        raw = [read_file(str(path)) for path in files]
        decode_jpeg(raw[:64], device="cuda")
        synchronize()
        started = time.perf_counter()
        for start in range(0, len(raw), 64):
            decode_jpeg(raw[start : start + 64], device="cuda")
        synchronize()
        found["nvjpeg"] = len(raw) / (time.perf_counter() - started)
    return found


def out_of_memory(sizes: Sizes, photos: Path, out: Path) -> Row:
    """One epoch with more images a step than fit: the run must end, whatever it takes at once."""
    if not torch.cuda.is_available():
        return {"skipped": "there is no GPU to fill"}
    torch.cuda.reset_peak_memory_stats()
    config = tl_kit.FinetuneConfig(
        model=sizes.networks[0],
        data=photos,
        policy="full",
        weights="none",
        epochs=1,
        batch_size=sizes.hungry,
        img_size=288,
        out=out,
    )
    return {"status": tl_kit.finetune(config).status, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def measured(part: Callable[[], Row]) -> Row:
    """A part's figures, or its error."""
    started = time.perf_counter()
    try:
        found = part()
    except Exception as error:  # noqa: BLE001 - a part that fails must not cost the figures of the others
        found = {"error": f"{type(error).__name__}: {error}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**found, "took": time.perf_counter() - started}


def all_parts(sizes: Sizes, folder: Path) -> Row:
    """Everything, in the order in which it is shown."""
    train = write_photos(folder / "train", sizes.train, sizes.photo, seed=0)
    many = write_photos(folder / "many", sizes.evaluate, sizes.photo, seed=1)
    found: Row = {"networks": {}}
    for name in sizes.networks:
        out = folder / f"run-{name}"
        row: Row = {
            "bare step": measured(lambda name=name: bare_step(name, sizes)),
            "plain loop": measured(lambda name=name: plain_loop(name, sizes, train)),
            "full": measured(lambda name=name, out=out: our_full(name, sizes, train, out)),
            "forward": measured(lambda name=name: forward_alone(name, sizes)),
            "evaluate": measured(lambda out=out: our_evaluate(out, many)),
        }
        found["networks"][name] = row
        print(network_line(name, row), flush=True)
    found["head"] = measured(lambda: our_head(sizes, train, folder / "heads"))
    found["decoding"] = measured(lambda: decoding(many, sizes))
    found["out of memory"] = measured(lambda: out_of_memory(sizes, train, folder / "hungry"))
    found["peak_memory_gib"] = {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "gpu": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
    }
    return found


def network_line(name: str, row: Row) -> str:
    """A network's rates in images a second, and the ratio of ``full`` to the bare step."""
    cells = []
    for part, found in row.items():
        cells.append(f"{part} {found['images_per_second']:,.0f}" if "error" not in found else f"{part} failed")
    if "seconds" in row["evaluate"]:
        cells.append(f"evaluate in {row['evaluate']['seconds']:.1f} s (first {row['evaluate']['first']:.1f})")
    full, bare = row["full"].get("images_per_second"), row["bare step"].get("images_per_second")
    ratio = f"; full / bare step {full / bare:.2f}, data wait {row['full']['data_wait']:.2f}" if full and bare else ""
    return f"{name}: {', '.join(cells)} images/s{ratio}"


def other_lines(found: Row) -> Iterator[str]:
    """Head, decoding and memory, a line each; then the errors."""
    if "error" not in found["head"]:
        for name, row in ((name, row) for name, row in found["head"].items() if name != "took"):
            stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in row["stages"].items() if spent >= 0.05)
            yield f"head, {name} process: {row['process']:.1f} s ({stages})"
    rates = {name: found["decoding"].get(name) for name in ("pillow", "nvjpeg")}
    yield "decoded a second: " + ", ".join(f"{n} {r:,.0f}" if r else f"{n} not measured" for n, r in rates.items())
    yield f"out of memory: {found['out of memory']}"
    yield f"peak memory, GiB: {found['peak_memory_gib']}"
    parts = {**found["networks"], "others": {name: found[name] for name in ("head", "decoding", "out of memory")}}
    for owner, rows in parts.items():
        yield from (f"{owner}, {name}: {row['error']}" for name, row in rows.items() if "error" in row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes: it shows that the script works")
    parser.add_argument("--networks", help="names with commas between, in place of the usual three")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    started = time.perf_counter()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        sizes = SMALL if given.small else LARGE
        if given.networks:
            sizes = replace(sizes, networks=tuple(given.networks.split(",")))
        found = all_parts(sizes, Path(folder))
    for line in other_lines(found):
        print(line)
    whole = time.perf_counter() - started
    print(f"{whole:.0f} s in all")
    if given.json:
        given.json.write_text(json.dumps({"machine": describe(), "seconds": whole, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
