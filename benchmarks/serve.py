"""The server under load, on this machine alone, beside the bare network and beside predict, in one run.

python benchmarks/serve.py --checkpoint ckpts/tf_efficientnet_lite0-1 --data PATH/TO/clothing/test

Each request carries one photo. Rates and latencies are those of 1, 8 and 64 clients, each of which asks again as soon
as it has its answer. Then ``--soak`` requests of 64 clients, every tenth of them no image or a broken one: all must
have their answer, and the server's memory must stay. Clients and server share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import describe

import tl_kit
from tl_kit.images.transforms import normalize
from tl_kit.inference.run_models import FileReader, model_context

CLIENTS = (1, 8, 64)
BOUNDARY = "images"


def bare_rates(predictor: tl_kit.Predictor, photos: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Images a second of the members' forward passes alone on decoded batches of 32, and of predict on the files."""
    batch = [photos[place % len(photos)] for place in range(32)]
    views = FileReader(batch, list({member.preprocessing for member in predictor.members})).read(0, 32)

    def forward() -> None:
        for scorer in predictor.scorers:
            with model_context([scorer.model], scorer.runtime):
                scorer.model(normalize(scorer.runtime.batch(views[scorer.preprocessing]), scorer.preprocessing))

    def rate(work: Any) -> float:
        work()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            work()
            done += 32
        return done / (time.perf_counter() - started)

    return {"forward": rate(forward), "predict": rate(lambda: predictor.predict(batch))}


def request_of(photo: bytes) -> bytes:
    """The bytes of one request."""
    disposition = 'content-disposition: form-data; name="files"; filename="photo.jpg"'
    body = f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"content-type: multipart/form-data; boundary={BOUNDARY}"
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(port: int, requests: Sequence[bytes], clients: int) -> tuple[list[float], Counter[str]]:
    """Seconds of each request, and how many had which status; "lost" without an answer."""
    waiting = iter(requests)
    seconds: list[float] = []
    statuses: Counter[str] = Counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            started = time.perf_counter()
            try:
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
                statuses[head[9:12].decode()] += 1
            except (OSError, EOFError, IndexError):
                statuses["lost"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            seconds.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, statuses


def load(port: int, requests: Sequence[bytes], clients: int) -> dict[str, Any]:
    """A row of the table: requests a second, p50 and p99 in milliseconds."""
    started = time.perf_counter()
    seconds, statuses = asyncio.run(ask(port, requests, clients))
    took = time.perf_counter() - started
    p50, p99 = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.99))
    return {"clients": clients, "rate": len(seconds) / took, "p50": p50, "p99": p99, "statuses": dict(statuses)}


def soak(port: int, server: psutil.Process, requests: Sequence[bytes], total: int) -> dict[str, Any]:
    """Memory in MB by requests done, and the statuses of all."""
    statuses: Counter[str] = Counter()
    memory = {0: server.memory_info().rss / 2**20}
    every = max(1, total // 10)
    for done in range(every, total + 1, every):
        some = [requests[place % len(requests)] for place in range(every)]
        statuses += asyncio.run(ask(port, some, 64))[1]
        memory[done] = server.memory_info().rss / 2**20
        print(f"{done:,} requests: {memory[done]:.0f} MB {dict(statuses)}", flush=True)
    return {"memory": memory, "statuses": dict(statuses)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, about")
    parser.add_argument("--soak", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(given.data.rglob("*.jpg"))[:200]]
    good = [request_of(photo) for photo in photos]
    bad = [request_of(each) for each in (b"no image", b"", photos[0][:2000], photos[1][: len(photos[1]) // 2])]
    mixed = [bad[place // 10 % len(bad)] if place % 10 == 9 else each for place, each in enumerate(good)]
    predictor = tl_kit.load(given.checkpoint)
    command = [sys.executable, "-m", "tl_kit", "serve", str(given.checkpoint), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(re.findall(r":(\d+)/", process.stdout.readline())[0])
        asyncio.run(ask(port, good[:100], 8))
        rows, bare = [], []
        for clients in CLIENTS:
            bare.append(bare_rates(predictor, photos, given.seconds / 2))
            number = max(50, int(given.seconds * bare[-1]["predict"]))
            row = load(port, [good[place % len(good)] for place in range(number)], clients)
            rows.append({**row, **bare[-1], "of_forward": row["rate"] / bare[-1]["forward"]})
            print({name: round(v, 2) if isinstance(v, float) else v for name, v in rows[-1].items()}, flush=True)
        found = {"machine": describe(), "rows": rows}
        if given.soak:
            found["soak"] = soak(port, psutil.Process(process.pid), mixed, given.soak)
        process.send_signal(signal.SIGTERM)
        print(process.communicate(timeout=60)[0].splitlines()[-1])
        assert process.returncode == 0
    finally:
        process.kill()
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
