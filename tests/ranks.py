"""Two processes that train as one, on the CPU: as torchrun starts them, or forked, with the variables that it sets."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import torch

from tests import children
from tests.torture.processes import NO_FORKS, Forked, script

__all__ = ["by_torchrun", "in_two_processes", "two_processes"]

ROOT = Path(__file__).parents[1]
ON_CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

two_processes = pytest.mark.skipif(
    NO_FORKS or not torch.distributed.is_gloo_available(), reason="no fork server on this system, or torch has no gloo"
)


def by_torchrun(code: str, folder: Path, *arguments: Path) -> None:
    """Run a script in ``folder``, in processes that each import all that they need."""
    (folder / "run.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(_free_port()), "run.py", *map(str, arguments)]
    done = children.run(command, cwd=folder, env={**os.environ, **ON_CPU})
    assert done.returncode == 0, done.stderr[-3000:]


def in_two_processes(code: str, folder: Path, *arguments: Path, ends: int = 0) -> None:
    """Run a script in ``folder``; both processes end with the exit code ``ends``."""
    shared = {**ON_CPU, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = str(_free_port())
    both = [
        Forked(_run_in, str(folder), code, *map(str, arguments), log=folder / f"log-{rank}", more=more)
        for rank, more in ((rank, {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01")
    ]
    for process in both:
        assert process.wait() == ends, process.text()[-3000:]


def _run_in(folder: str, code: str, *arguments: str) -> None:
    os.chdir(folder)
    script(code, *arguments)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
