"""A predictor that has worked goes on working: in forked processes, in copies and pickles, in several threads."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import tl_kit
from tests.forking import in_child
from tests.helpers import quick, same, weights, write_images
from tests.inference.test_members_in_memory import together, variants
from tests.torture.processes import NO_FORKS, Forked, script
from tl_kit import Prediction, Predictor, RegularizationConfig
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import MembersConfig, ProcessConfig, RuntimeConfig
from tl_kit.errors import ResourceError
from tl_kit.images.augmentation import draw_all
from tl_kit.images.mixing import mix
from tl_kit.machine import forks as _forks
from tl_kit.machine import runtime
from tl_kit.zoo.names import resolve
from tl_kit.zoo.timm_factory import construct

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FP32 = RuntimeConfig(precision="fp32")
LONGEST = 240  # seconds, on a machine that is busy; what hangs, hangs for ever


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """Two, so that OpenMP has one that a child could wait for."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def files(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))[::4]


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(quick(data, tmp_path_factory.mktemp("runs") / "run").checkpoint)


def ensemble_of(checkpoint: Path, out: Path, count: int) -> Predictor:
    """Members that differ in their classifiers."""
    return replace(together(variants(checkpoint, out, count, "fc")), rule=FittedRule())


@pytest.fixture(scope="module", params=["checkpoint", "shared trunk", "members in turns", "dropout"])
def used(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    data: Path,
    files: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Predictor, list[Prediction]]:
    """A predictor that has worked, and what it said."""
    root = tmp_path_factory.mktemp("used")
    if request.param == "checkpoint":
        predictor = tl_kit.load(checkpoint, runtime=FP32)
    elif request.param == "dropout":
        run = quick(data, root / "dropping", regularization=RegularizationConfig(dropout=0.3))
        predictor = tl_kit.load(run.checkpoint, mc_dropout=3, runtime=FP32)
    else:
        predictor = ensemble_of(checkpoint, root, 3)
        if request.param == "members in turns":
            predictor = replace(predictor, memory=MembersConfig(keep_bytes=0, pixel_bytes=0), sharing=False)
    return predictor, predictor.predict(files)


Used = tuple[Predictor, list[Prediction]]

# An OpenMP before 5.0 (torch 2.6) cannot rest: a child then computes with one thread, and rounds otherwise.
EXACT = _forks._rest_openmp()


def alike(found: list[Prediction], expected: list[Prediction]) -> bool:
    """Equal to the last bit, or nearly where a child has fewer threads."""
    if EXACT:
        return found == expected
    pairs = zip(found, expected, strict=True)
    return all(one.probabilities == pytest.approx(other.probabilities, abs=1e-5) for one, other in pairs)


def test_a_forked_child_and_its_child_predict_the_same(used: Used, files: list[Path]) -> None:
    predictor, expected = used
    for _ in range(2):
        assert alike(in_child(lambda: predictor.predict(files)), expected)
        assert predictor.predict(files) == expected, "and so does the parent"
    assert alike(in_child(lambda: in_child(lambda: predictor.predict(files))), expected)


def test_a_copy_and_a_pickle_predict_the_same(used: Used, files: list[Path]) -> None:
    predictor, expected = used
    for twin in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor)), copy.deepcopy(copy.copy(predictor))):
        assert twin.predict(files) == expected
        assert twin.scorers[0].model is twin.members[0].model
        assert twin.scorers[0].model is not predictor.scorers[0].model
    assert predictor.predict(files) == expected


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
def test_a_pickle_in_a_process_of_its_own(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    predictor = ensemble_of(checkpoint, tmp_path, 2)
    (tmp_path / "used").write_bytes(pickle.dumps((predictor.predict(files), predictor, files)))
    code = (
        "import pickle, sys, torch; expected, predictor, files = pickle.load(open(sys.argv[1], 'rb')); "
        "torch.set_num_threads(int(sys.argv[2])); assert predictor.predict(files) == expected"
    )
    process = Forked(script, code, str(tmp_path / "used"), str(torch.get_num_threads()), log=tmp_path / "log")
    assert process.wait() == 0, process.text()


def test_multiprocessing_and_a_pool(checkpoint: Path, files: list[Path]) -> None:
    predictor = tl_kit.load(checkpoint, runtime=FP32)
    expected = predictor.predict(files)
    with multiprocessing.get_context("fork").Pool(2, initializer=_preload, initargs=(predictor,)) as pool:
        found = pool.map_async(_predict, [files[:3], files[:3]]).get(timeout=LONGEST)
    assert [alike(each, predictor.predict(files[:3])) for each in found] == [True] * 2
    assert predictor.predict(files) == expected


_PRELOADED: list[Predictor] = []


def _preload(predictor: Predictor) -> None:
    _PRELOADED.append(predictor)


def _predict(paths: list[Path]) -> list[Prediction]:
    return _PRELOADED[-1].predict(paths)


class Predictions:
    """A data set of probabilities."""

    def __init__(self, predictor: Predictor, files: list[Path]) -> None:
        self.predictor = predictor
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, float]:
        return self.predictor.predict(self.files[index])[0].probabilities


def test_workers_of_a_data_loader(checkpoint: Path, files: list[Path]) -> None:
    predictor = tl_kit.load(checkpoint, runtime=FP32)
    expected = predictor.predict(files[:6])
    loader: DataLoader[Any] = DataLoader(
        Predictions(predictor, files[:6]),
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=LONGEST,
    )
    for found, prediction in zip(loader, expected, strict=True):  # torch gives each worker one thread
        assert found == pytest.approx(prediction.probabilities, abs=1e-6)


def test_a_fork_while_other_threads_predict(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    predictor = ensemble_of(checkpoint, tmp_path, 2)
    expected, stop = predictor.predict(files), threading.Event()

    def serve() -> None:
        while not stop.wait(0.01):  # without a pause three threads leave the children no processor
            predictor.predict(files)

    with ThreadPoolExecutor(3) as pool:
        serving = [pool.submit(serve) for _ in range(3)]
        try:
            found = [in_child(lambda: predictor.predict(files)) for _ in range(3)]
        finally:
            stop.set()
        for done in serving:
            done.result()
    assert [alike(each, expected) for each in found] == [True] * 3


def test_a_fork_while_a_thread_loads(checkpoint: Path, files: list[Path]) -> None:
    expected, stop = tl_kit.load(checkpoint, runtime=FP32).predict(files), threading.Event()

    def loading() -> None:
        while not stop.is_set():
            tl_kit.load(checkpoint, runtime=FP32).predict(files[:2])

    thread = threading.Thread(target=loading)
    thread.start()
    try:
        found = [in_child(lambda: tl_kit.load(checkpoint, runtime=FP32).predict(files)) for _ in range(2)]
    finally:
        stop.set()
        thread.join()
    assert [alike(each, expected) for each in found] == [True] * 2


def test_eight_threads_and_an_event_loop(used: Used, files: list[Path]) -> None:
    predictor, expected = used
    fresh = copy.deepcopy(predictor)  # its members are arranged by whichever thread comes first
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: fresh.predict(files), range(8))) == [expected] * 8

    async def serve() -> list[list[Prediction]]:
        return await asyncio.gather(*(asyncio.to_thread(predictor.predict, files) for _ in range(3)))

    assert asyncio.run(serve()) == [expected] * 3


def test_training_and_examining_in_a_child_after_the_parent_did(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "parent", policy="full")
    quick(data, tmp_path / "head", policy="head", epochs=None)
    tl_kit.doctor(data)

    def work() -> tuple[str, ...]:
        quick(data, tmp_path / "child", policy="full")
        quick(data, tmp_path / "child-head", policy="head", epochs=None)
        return tuple(finding.code for finding in tl_kit.doctor(data).findings)

    assert in_child(work) == tuple(finding.code for finding in tl_kit.doctor(data).findings)
    if EXACT:
        assert same(weights(tmp_path / "child"), weights(tmp_path / "parent"))
        assert same(weights(tmp_path / "child-head"), weights(tmp_path / "head"))


def test_without_a_way_to_end_openmps_threads_a_child_has_one(
    checkpoint: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = tl_kit.load(checkpoint, runtime=FP32)
    expected = predictor.predict(files)
    monkeypatch.setattr(_forks, "_rest_openmp", lambda: False)
    threads, found = in_child(lambda: (torch.get_num_threads(), predictor.predict(files)))
    assert threads == 1
    assert [p.label for p in found] == [p.label for p in expected]
    assert torch.get_num_threads() == 2


def test_a_fork_waits_for_a_block_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave, order = threading.Event(), threading.Event(), []

    def busy() -> None:
        with _forks.unforked():
            entered.set()
            leave.wait(20)
            order.append("block")

    with _in_thread(busy, entered):
        threading.Timer(0.3, leave.set).start()
        assert in_child(lambda: len(order)) == 1

    entered.clear()
    leave.clear()
    monkeypatch.setattr(ProcessConfig, "fork_seconds", 0.2)
    with _in_thread(busy, entered):
        started = time.monotonic()
        with _forks.unforked():  # its own does not count
            assert in_child(_enter) == "entered"
        assert time.monotonic() - started < 15
        leave.set()
    assert _enter() == "entered"


@contextmanager
def _in_thread(work: Callable[[], object], entered: threading.Event) -> Iterator[None]:
    """``work`` in another thread, from where it says that it has ``entered``; joined at the end."""
    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(LONGEST)
    yield
    thread.join()


@pytest.mark.parametrize("work", ["load", "construct", "augment", "mix"])
def test_a_fork_waits_while_torchs_generator_is_in_use(
    work: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch locks its generator for each draw. A child that finds it locked waits for ever at its own first draw."""
    entered, drawn = threading.Event(), []

    def draw(*_: object, **__: object) -> Any:
        if not entered.is_set():
            entered.set()
            time.sleep(0.3)
        drawn.append(1)
        return torch.rand(3)

    jobs: dict[str, Callable[[], object]] = {
        "load": lambda: tl_kit.load(checkpoint, runtime=FP32),
        "construct": lambda: construct(resolve("test_resnet"), 2, img_size=None, seed=0),
        "augment": lambda: draw_all([(3, 3)], SimpleNamespace(draw=draw, quick=False), seed=0, epoch=0, keys=["a"]),
        "mix": lambda: mix(torch.zeros(2, 3, 4, 4), torch.arange(2), 2, mixup=1, cutmix=0, seed=(0,)),
    }
    if work in ("load", "construct"):
        monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", draw)
    elif work == "mix":
        monkeypatch.setattr(v2.MixUp, "forward", draw)
    with _in_thread(jobs[work], entered):
        before = in_child(lambda: len(drawn))
    assert before == len(drawn) > 0, "all draws of that block were made before the fork"


def _enter() -> str:
    with _forks.unforked(), _forks.unforked():
        return "entered"


def test_a_lock_is_open_in_a_child_and_in_copies() -> None:
    lock = _forks.ForkLock()

    def take(lock: _forks.ForkLock) -> bool:
        with lock:
            return True

    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert in_child(lambda: take(lock), seconds=30)
    assert take(copy.deepcopy(lock))
    assert take(pickle.loads(pickle.dumps(lock)))
    leave.set()
    thread.join()
    with lock:
        assert in_child(lambda: take(lock), seconds=30), "that which the forking thread holds, too"
    assert take(lock)


def test_a_lost_gpu_is_said(checkpoint: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = tl_kit.load(checkpoint, runtime=FP32)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert runtime.detect().device.type == "cpu", "where there is none, none is lost"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ResourceError, match=r"forked.*spawn"):
        tl_kit.load(checkpoint)
    on_gpu = replace(predictor.scorers[0].runtime, device=torch.device("cuda"))
    with pytest.raises(ResourceError, match=r"forked.*spawn"):
        replace(predictor, scorers=(replace(predictor.scorers[0], runtime=on_gpu),)).predict(files)
    assert runtime.detect(RuntimeConfig(device="cpu")).device.type == "cpu"
    assert len(predictor.predict(files)) == len(files), "on the CPU it works"


def test_training_where_torch_lost_its_threads_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to handle autograd's threading in combination with fork-based multiprocessing.")

    monkeypatch.setattr(runtime, "is_forked", lambda: True)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(ResourceError, match=r"forked.*spawn"):
        quick(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
