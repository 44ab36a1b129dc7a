"""``kill -9`` at random moments of real processes: the final weights are those of a run that was let alone."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers import quick, write_images
from tests.killing import EVERY_STEP, digest, killing_before_operation
from tests.torture.chains import Chain
from tests.torture.processes import NO_FORKS
from tests.torture.table import record
from tl_kit import resume

COMMON = ("--img-size", 32, "--batch-size", 4, "--save-every", 0.01)
DROPPED = ("--dropout=0.3", "--drop-connect=0.2", "--ema=0.9", "--mixup=0.4", "--cutmix=1", "--optimizer=adamw")
RUNS = {
    "full, dropped, mixed, averaged": ("--policy", "full", "--epochs", 20, *DROPPED),
    "full, range test, sampler": ("--policy", "full", "--epochs", 20, "--lr", "auto", "--balance", "sampler"),
    "full, plateau": ("--policy", "full", "--epochs", 30, "--schedule", "plateau", "--schedule-opt", "patience=1"),
    "last:2": ("--policy", "last:2", "--epochs", 40),
    "lp-ft": ("--policy", "lp-ft", "--epochs", 20),
    "gradual": ("--policy", "gradual:4", "--epochs", 20, "--ema", 0.9),
    "head": ("--policy", "head"),
    "full, snapshots": ("--policy", "full", "--epochs", 12, "--snapshots", 3, "--schedule", "cyclic"),
    "full, SWA, late epochs": ("--policy", "full", "--epochs", 12, "--swa", "--late", 3),
    "folds": ("--policy", "full", "--epochs", 6, "--folds", 3),
    "members": ("--policy", "full", "--epochs", 6, "--members", 3),
}

pytestmark = [pytest.mark.torture, pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")]


def chain(name: str, folder: Path) -> Chain:
    data = write_images(folder / "images", images=30)
    command = ("finetune", "test_resnet", "--data", data, "--weights", "none", *COMMON, *RUNS[name])
    return Chain(command, folder / "run")


@pytest.mark.parametrize("name", RUNS)
def test_kill_9_at_random_moments(name: str, tmp_path: Path) -> None:
    run = chain(name, tmp_path)
    survived = run.whole() == run.killed(4, seed=len(name))
    record("kill -9, then --resume", tries=len(run.kills), survived=survived * len(run.kills), lost=run.kills)


@pytest.mark.parametrize("name", ["full, dropped, mixed, averaged", "folds"])
def test_sigterm_at_random_moments(name: str, tmp_path: Path) -> None:
    run = chain(name, tmp_path)
    survived = run.whole() == run.killed(4, seed=3, number=signal.SIGTERM)
    record("SIGTERM, then --resume", tries=len(run.kills), survived=survived * len(run.kills), lost=run.kills)


def test_the_newest_state_is_damaged_after_every_kill(tmp_path: Path) -> None:
    run, rng, damaged = chain("full, dropped, mixed, averaged", tmp_path), random.Random(1), []

    def damage() -> None:
        files = sorted((run.out / "state").glob("*.pt"))
        if len(files) == 2:  # with one alone there is nothing before it
            content = bytearray(files[1].read_bytes())
            place = rng.randrange(len(content))
            content[place] ^= 1 << rng.randrange(8)
            files[1].write_bytes(content[:place] if rng.random() < 0.5 else content)
            damaged.append(f"{files[1].name} at byte {place}")

    survived = run.whole() == run.killed(8, seed=2, then=damage)
    record("newest state torn or damaged", tries=len(damaged), survived=survived * len(damaged), lost=damaged)


def test_killed_before_every_operation_on_a_file(tmp_path: Path) -> None:
    """From the folder that is made to the states that are removed; within this process, so that none is missed."""
    data = write_images(tmp_path / "images", images=9)
    quick(data, tmp_path / "whole", save=EVERY_STEP)
    tries, lost = 0, []
    while True:
        out, left = tmp_path / f"run-{tries}", tmp_path / f"left-{tries}"
        with killing_before_operation(tries + 1, out, left) as begun:
            quick(data, out, save=EVERY_STEP)
        if len(begun) <= tries:
            break
        tries += 1
        shutil.rmtree(out, ignore_errors=True)
        if (left / "tlkit.json").exists():
            left.rename(out)
            resume(out)
        else:
            quick(data, out, save=EVERY_STEP)
        if digest(out) != digest(tmp_path / "whole") or (out / "state").exists():
            lost.append(f"{tries}: {begun[-1]}")
        shutil.rmtree(out)
    record("killed before a file operation", tries=tries, survived=tries - len(lost), lost=lost)
