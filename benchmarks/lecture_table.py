"""What every optimizer, schedule and regularizer did: one row each, several seeds, the same budget for all.

    python benchmarks/lecture_table.py --data PATH/TO/clothing

Each row is a command that a user can run: `tlkit finetune tf_efficientnet_lite0 --data PATH --policy last:2
--img-size 128 --seed S`, with the row's flag added. Finished cells are kept in the JSON file, and a second call goes on
from there.
`--docs docs/lecture.md` writes the table into that file, between its markers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from lecture_rows import ROWS, Row
from machine import describe

from tl_kit.cli import main as tlkit

BASE = ("finetune", "tf_efficientnet_lite0", "--img-size", "128")
RESULTS = Path(__file__).parent / "results" / "lecture_table.json"
# What says the default in so many words; the rest must change the run.
SAME = (("--optimizer", "momentum"), ("--schedule", "cosine"), ("--augment", "standard"))
MARKERS = ("<!-- table -->\n", "<!-- end of table -->")


def call(*arguments: str) -> dict[str, Any]:
    """One command, in this process: the JSON that it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            tlkit([*arguments, "--json"])
        except SystemExit as stop:
            if stop.code:
                raise SystemExit(f"{' '.join(arguments)}\n{err.getvalue()}") from None
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def cell(row: Row, data: Path, seed: int) -> dict[str, float]:
    """Test accuracy, NLL, and seconds of one row under one seed."""
    policy = () if "--policy" in row.flags else ("--policy", "last:2")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        run = call(*BASE, "--data", str(data), *policy, "--seed", str(seed), "--out", out, *row.flags)
    return {"accuracy": run["test"]["accuracy"], "nll": run["test"]["nll"], "seconds": run["seconds"]["total"]}


def crop_cells(rows: list[Row], data: Path, seed: int) -> list[dict[str, float]]:
    """The same for rows that only evaluate in another way: one run, scored by each of them."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        call(*BASE, "--data", str(data), "--policy", "last:2", "--seed", str(seed), "--out", out)
        for row in rows:
            started = time.perf_counter()
            scores = call("evaluate", out, "--data", str(data), "--split", "test", *row.crops)["metrics"]
            seconds = time.perf_counter() - started
            found.append({"accuracy": scores["accuracy"], "nll": scores["nll"], "seconds": seconds})
    return found


def line(row: Row, cells: list[dict[str, float]]) -> str:
    """The row as a line of the table, in Markdown."""
    accuracy, nll = ([cell[name] for cell in cells] for name in ("accuracy", "nll"))
    figures = [
        f"{100 * statistics.mean(accuracy):.1f} ± {100 * statistics.stdev(accuracy):.1f}",
        f"{statistics.mean(nll):.3f} ± {statistics.stdev(nll):.3f}",
    ]
    flag = f"`{' '.join([*row.flags, *row.crops]) or '(the default)'}`"
    if len(cells) != 3:
        figures[-1] += f" ({len(cells)} seeds)"
    return f"| {row.name} | {flag} | {row.equation} | {row.test} | {' | '.join(figures)} |"


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines, section = [], ""
    for row in ROWS:
        cells = list(results.get(row.key, {}).values())
        if len(cells) < 2:
            continue
        if row.section != section:
            section = row.section
            head = "| | flag | equation | test | test accuracy, % | test NLL |\n| --- | --- | --- | --- | --- | --- |"
            lines.append(f"\n### {section}\n\n{head}")
        lines.append(line(row, cells))
    return "\n".join(lines) + "\n"


def write_docs(path: Path, results: dict[str, Any]) -> None:
    start, end = MARKERS
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}{table(results)}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="rows whose name holds this text")
    parser.add_argument("--skip", nargs="+", default=[], help="rows by name, for another time")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    content = json.loads(given.json.read_text()) if given.json.exists() else {"rows": {}}
    content["machine"] = describe()
    for seed in range(given.seeds):
        missing = [
            row
            for row in ROWS
            if str(seed) not in content["rows"].setdefault(row.key, {})
            and (given.only or "") in row.name
            and row.name not in given.skip
        ]
        for row in missing:
            cells = content["rows"][row.key]
            if row.flags in SAME and row.key:  # says the default in so many words
                cells[str(seed)] = content["rows"][""].get(str(seed)) or cell(row, given.data, seed)
            elif not row.crops:
                cells[str(seed)] = cell(row, given.data, seed)
                if row.key and cells[str(seed)]["nll"] == content["rows"][""].get(str(seed), {}).get("nll"):
                    raise SystemExit(f"{row.flags}: gives the very run that all others change")
            print(row.name, row.flags, seed, cells.get(str(seed)), flush=True)
            given.json.write_text(json.dumps(content, indent=1) + "\n")
        cropped = [row for row in missing if row.crops]
        for row, found in zip(cropped, crop_cells(cropped, given.data, seed) if cropped else [], strict=True):
            content["rows"][row.key][str(seed)] = found
        given.json.write_text(json.dumps(content, indent=1) + "\n")
    if given.docs:
        write_docs(given.docs, content["rows"])
    print(table(content["rows"]))


if __name__ == "__main__":
    main()
