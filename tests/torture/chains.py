"""One run, killed again and again at random moments, and taken up again until it is over."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.processes import Command

__all__ = ["Chain", "weights"]


def weights(out: Path) -> dict[str, str]:
    """SHA-256 of every checkpoint's weights under ``out``, by place."""
    files = sorted(out.rglob("model.safetensors"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@dataclass
class Chain:
    """``command`` is all but ``--out``. Fails where a process ends otherwise than it should.

    ``mark``: a process may be killed once it has written this text, within the ``share`` of the time that an
    uninterrupted run took.
    """

    command: Sequence[object]
    out: Path
    seconds: float = 0.0
    mark: str = "weights: "
    share: float = 0.5
    kills: list[str] = field(default_factory=list)

    def whole(self) -> dict[str, str]:
        """The weights of an uninterrupted run; how long it took sets when the others are killed."""
        reference = self.out.with_name(f"{self.out.name}-whole")
        process = Command([*self.command, "--out", reference], reference.with_suffix(".log"))
        process.wait_for("weights: ")
        started = time.monotonic()
        assert process.wait() == 0, process.text()
        self.seconds = time.monotonic() - started
        return weights(reference)

    def killed(
        self, kills: int, *, seed: int, number: int = signal.SIGKILL, then: Callable[[], None] = lambda: None
    ) -> dict[str, str]:
        """The weights after so many kills, at moments spread over the run's length; then it is let run to its end.

        ``number``: SIGTERM asks the process to end instead. ``then`` is done after each of them.
        """
        rng = random.Random(seed)
        for count in range(kills):
            process = self._start(count)
            process.wait_for(self.mark)
            time.sleep(rng.uniform(0, self.seconds * self.share))
            process.send(number)
            code = process.wait()
            if code == 0:  # it was faster
                break
            assert code == (-9 if number == signal.SIGKILL else 128 + number), process.text()
            self.kills.append(self._where())
            then()
        process = self._start(kills)
        assert process.wait() == 0, process.text()
        return weights(self.out)

    def _start(self, number: int) -> Command:
        log = self.out.with_name(f"{self.out.name}-{number}.log")
        noted = ("tlkit.json", "state/folds.json", "state/members.json")
        if any((self.out / name).exists() for name in noted):
            return Command(["finetune", "--resume", self.out], log)
        shutil.rmtree(self.out, ignore_errors=True)  # killed before it had noted anything: the user starts it again
        return Command([*self.command, "--out", self.out], log)

    def _where(self) -> str:
        states = sorted(path.name for path in self.out.glob("**/state-*.json"))
        return f"killed with {states[-1] if states else 'no state'}"
