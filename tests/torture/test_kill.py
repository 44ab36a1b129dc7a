"""``kill -9`` at random moments of real processes: the final weights are those of a run that was let alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.helpers import write_images
from tests.torture.chains import Chain
from tests.torture.processes import NO_FORKS
from tests.torture.table import record

COMMON = ("--img-size", 32, "--batch-size", 4, "--save-every", 0.01)
DROPPED = (
    "--dropout",
    0.3,
    "--drop-connect",
    0.2,
    "--ema",
    0.9,
    "--mixup",
    0.4,
    "--cutmix",
    1.0,
    "--optimizer",
    "adamw",
)
RUNS = {
    "full, dropped, mixed, averaged": ("--policy", "full", "--epochs", 20, *DROPPED),
    "full, range test, sampler": ("--policy", "full", "--epochs", 20, "--lr", "auto", "--balance", "sampler"),
    "full, plateau": ("--policy", "full", "--epochs", 30, "--schedule", "plateau", "--schedule-opt", "patience=1"),
    "last:2": ("--policy", "last:2", "--epochs", 40),
    "lp-ft": ("--policy", "lp-ft", "--epochs", 20),
    "gradual": ("--policy", "gradual:4", "--epochs", 20, "--ema", 0.9),
    "head": ("--policy", "head"),
    "folds": ("--policy", "full", "--epochs", 6, "--folds", 3),
}

pytestmark = [pytest.mark.torture, pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")]


@pytest.mark.parametrize("name", RUNS)
def test_kill_9_at_random_moments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_images(tmp_path / "images", images=30)
    command = ("finetune", "test_resnet", "--data", data, "--weights", "none", *COMMON, *RUNS[name])
    chain = Chain(command, tmp_path / "run")
    expected = chain.whole()
    found = chain.killed(5, seed=len(name))
    equal = found == expected
    record(
        "kill -9, then --resume", tries=len(chain.kills), survived=len(chain.kills) if equal else 0, lost=chain.kills
    )
