"""What becomes of the processes that tests start: none outlives its test, and each can be interrupted."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests import children, conftest
from tests.torture.processes import NO_FORKS, Command

TESTS = Path(__file__).parent
ASLEEP = "import time; print('asleep', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {ASLEEP!r}], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""
STARTERS = {f"subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output")} | {"os.system"}
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


def gone(pid: int) -> bool:
    """Within ten seconds; a zombie is gone."""
    with suppress(psutil.NoSuchProcess):
        process, until = psutil.Process(pid), time.monotonic() + 10
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
    return True


@pytest.fixture
def ignored() -> Iterator[None]:
    """SIGINT as it is under nohup, in a script's background job, and on some build servers."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    yield
    signal.signal(signal.SIGINT, before)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@posix
@pytest.mark.usefixtures("ignored")
def test_ctrl_c_reaches_a_child_where_the_tests_ignore_it() -> None:
    process = children.start(ASLEEP)
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert err.splitlines()[-1] == "KeyboardInterrupt"


def asleep() -> None:
    print("asleep", flush=True)
    time.sleep(600)


@posix
@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
@pytest.mark.usefixtures("ignored")
def test_ctrl_c_reaches_a_forked_command_where_the_tests_ignore_it(tmp_path: Path) -> None:
    process = Command(["--version"], tmp_path / "log", limits=asleep)
    assert process.wait_for("asleep")
    process.send(signal.SIGINT)
    assert process.wait(20) == 1
    assert process.text().splitlines()[-1] == "KeyboardInterrupt"


@posix
def test_what_a_child_started_ends_with_it() -> None:
    process = children.start(PARENT)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    assert psutil.pid_exists(grandchild)
    children.end_all()
    assert process.returncode == -signal.SIGKILL
    assert gone(grandchild)


@posix
def test_a_command_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    code = PARENT.replace("print(child.pid", "print(child.pid, file=open('pid', 'w')")
    with pytest.raises(subprocess.TimeoutExpired):
        children.run([sys.executable, "-c", code], seconds=3, cwd=tmp_path)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_child_has_a_time_limit_of_its_own() -> None:
    process = children.start(ASLEEP, seconds=0.5)
    out, err = process.communicate(timeout=30)
    assert out == "asleep\n"
    assert process.returncode != 0
    assert "most recent call first" in err, "where it was at that moment"


@posix
def test_a_child_ends_when_the_tests_were_killed() -> None:
    code = f"from tests import children; print(children.start({ASLEEP!r}).pid, flush=True); {ASLEEP}"
    process = children.start(code)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert gone(child)


def test_a_failing_test_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import no_process_outlives_its_test\n")
    (tmp_path / "test_it.py").write_text(
        f"""
from pathlib import Path
from types import SimpleNamespace
from tests import children, conftest
def test_it():
    Path({str(tmp_path / "pid")!r}).write_text(str(children.start({ASLEEP!r}).pid))
    assert False
def test_that_it_is_gone():
    import psutil
    assert not psutil.pid_exists(int(Path({str(tmp_path / "pid")!r}).read_text()))
"""
    )
    done = children.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout


def test_every_process_has_an_end() -> None:
    """What is not started by :mod:`tests.children` is waited for, with a time limit that kills it."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            limited = isinstance(node, ast.Call) and any(keyword.arg == "timeout" for keyword in node.keywords)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in STARTERS and not limited:
                found.append(f"{path.relative_to(TESTS).as_posix()}: {ast.unparse(node.func)}")
    assert set(found) == {"children.py: subprocess.Popen"}


@pytest.mark.parametrize(("cores", "gigabytes", "workers"), [(2, 24, 2), (16, 7, 2), (4, 1, 1), (64, 500, 8)])
def test_there_is_a_worker_for_each_core_as_far_as_memory_goes(
    cores: int, gigabytes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=gigabytes * 2**30))
    assert conftest.pytest_xdist_auto_num_workers() == workers
