"""Seconds against test accuracy, one point a tool and policy, from ``results/peers.json``: the README's picture."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "pictures" / "peers.png"
TOOLS = {"tl-kit": ("#0072B2", "o"), "fastai": ("#D55E00", "s"), "plain": ("#009E73", "^"), "scikit": ("#CC79A7", "D")}


def draw(medians: dict[str, dict[str, float]]) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, row in medians.items():
        colour, marker = next(style for tool, style in TOOLS.items() if name.startswith(tool))
        accuracy = 100 * row["test_accuracy"]
        axes.plot(row["seconds"], accuracy, marker, color=colour, markersize=9)
        late = row["seconds"] > 150
        below = name.startswith("scikit")  # beside it stands the next tool
        axes.annotate(
            name,
            (row["seconds"], accuracy),
            xytext=(0, -14) if below else (-9 if late else 9, 0),
            textcoords="offset points",
            ha="center" if below else "right" if late else "left",
            va="center",
        )
    axes.set(
        xscale="log",
        xlabel="seconds, the whole process (2 CPU cores)",
        ylabel="test accuracy, %",
        title="1,000 photos of clothing, EfficientNet-Lite0 at 224 px",
        xlim=(8, 500),
    )
    axes.set_xticks([10, 20, 50, 100, 200, 400], labels=["10", "20", "50", "100", "200", "400"])
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    content = json.loads((HERE / "results" / "peers.json").read_text())
    draw(content["medians"]).savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
