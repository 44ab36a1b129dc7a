"""Three effects of transfer learning, with intervals: does it matter how much is retrained, and from where?

    python benchmarks/effects.py --data PATH      # holds clothing/ and sign_digits/

1. Fine-tuning beats the probe where the domain differs: sign_digits, 20 images a class.
2. Under blur and noise, added at test time only, full fine-tuning loses to the probe, and lp-ft recovers.
3. Pretrained beats ``--weights none``: clothing, 50 images a class.

Every arm runs at tl-kit's defaults, 128 px, on the same images by seed. Differences are over the same test images;
their 95 % intervals come from drawing seeds and images with replacement, 10,000 times. Finished runs are kept in the
JSON file, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from image_sets import Pools, pools_of, write_cell
from machine import describe
from PIL import Image, ImageFilter
from policies import MODEL, SIDE

import tl_kit

RESULTS = Path(__file__).parent / "results" / "effects.json"
BLUR, NOISE = 2.0, 25.0  # standard deviations: pixels of 128 on the short side; levels of 255
ARMS = (
    ("sign_digits", 20, "head", "auto"),
    ("sign_digits", 20, "full", "auto"),
    ("sign_digits", 20, "lp-ft", "auto"),
    ("clothing", 50, "full", "auto"),
    ("clothing", 50, "full", "none"),
)


def shifted(path: Path, kind: str, number: int) -> Image.Image:
    """The image at the network's scale, as it is, blurred, or with noise (drawn by the image's number)."""
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(BLUR))
    if kind == "noise":
        noise = np.random.default_rng(number).normal(0, NOISE, (image.height, image.width, 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image


def run_arm(pools: Pools, count: int, policy: str, weights: str, seed: int, scratch: Path) -> dict[str, str]:
    """Which test images were right, one character each, under each shift."""
    table = scratch / f"{count}-{seed}.csv"
    write_cell(pools, count, seed, table)
    test = [(path, label) for label, (paths, _) in pools.items() for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        run = tl_kit.finetune(
            tl_kit.FinetuneConfig(
                model=MODEL,
                data=table,
                policy=policy,
                weights=weights,
                img_size=SIDE,
                seed=seed,
                out=Path(folder) / "run",
                cache=tl_kit.CacheConfig(directory=scratch / "cache"),
            )
        )
        model = tl_kit.load(run.checkpoint)
        found = {}
        for kind in ("clean", "blur", "noise"):
            answers = model.predict([shifted(path, kind, number) for number, (path, _) in enumerate(test)])
            pairs = zip(answers, test, strict=True)
            found[kind] = "".join("1" if answer.label == label else "0" for answer, (_, label) in pairs)
    return found


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """Mean difference in points of (seeds, images) arrays of 0 and 1, and its 95 % interval."""
    rng = np.random.default_rng(0)
    paired = one.astype(float) - other
    draws = []
    for _ in range(10_000):
        rows = rng.integers(len(paired), size=len(paired))
        columns = rng.integers(paired.shape[1], size=paired.shape[1])
        draws.append(paired[rows].mean(0)[columns].mean())
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{100 * paired.mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def show(runs: dict[str, dict[str, str]], seeds: int) -> None:
    def scores(arm: tuple[str, int, str, str], kind: str) -> np.ndarray:
        return np.array([[int(c) for c in runs["/".join(map(str, (*arm, seed)))][kind]] for seed in range(seeds)])

    head, full, lp_ft, pretrained, none = ARMS
    for arm in ARMS:
        kinds = (f"{kind} {100 * scores(arm, kind).mean():.1f} %" for kind in ("clean", "blur", "noise"))
        print(f"{arm[0]}, {arm[1]} a class, {arm[2]}, weights {arm[3]}: {', '.join(kinds)}")
    print("1. sign_digits, full over head:", difference(scores(full, "clean"), scores(head, "clean")))
    print("   lp-ft over head:", difference(scores(lp_ft, "clean"), scores(head, "clean")))
    for kind in ("blur", "noise"):
        print(f"2. {kind}, full over head:", difference(scores(full, kind), scores(head, kind)))
        print(f"   {kind}, lp-ft over full:", difference(scores(lp_ft, kind), scores(full, kind)))
        print(f"   {kind}, lp-ft over head:", difference(scores(lp_ft, kind), scores(head, kind)))
    print("3. pretrained over random weights:", difference(scores(pretrained, "clean"), scores(none, "clean")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    content = json.loads(given.json.read_text()) if given.json.exists() else {"runs": {}}
    content["machine"] = describe()
    runs = content["runs"]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        pools = {name: pools_of(name, given.data, scratch) for name in dict.fromkeys(arm[0] for arm in ARMS)}
        for seed in range(given.seeds):
            for name, count, policy, weights in ARMS:
                key = f"{name}/{count}/{policy}/{weights}/{seed}"
                if key in runs:
                    continue
                runs[key] = run_arm(pools[name], count, policy, weights, seed, scratch)
                print(key, {kind: f"{row.count('1') / len(row):.3f}" for kind, row in runs[key].items()}, flush=True)
                given.json.write_text(json.dumps(content, indent=1) + "\n")
    show(runs, given.seeds)


if __name__ == "__main__":
    main()
