"""``fit`` where things go wrong: a full disk, a broken network, a time that is over, one validation image."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.helpers import NEARLY_SQUARE, Listener, quick, write_images
from tests.killing import KilledError
from tl_kit import FitConfig
from tl_kit.config import LadderConfig, RuntimeConfig
from tl_kit.display import class_figures
from tl_kit.errors import CheckpointError, ConfigError, NonFiniteError, TlKitError, WeightsError
from tl_kit.fitting import best_result, climb, fit_result, leaderboard, prices
from tl_kit.fitting.step_words import reason_of
from tl_kit.planning.price import Price
from tl_kit.storage.fit_folder import best_of, read_fit
from tl_kit.training.late_losses import ADVICE
from tl_kit.zoo.starter import WAYS_OUT

pytestmark = pytest.mark.usefixtures("own_cache", "quick_runs", "plain_pictures", "same_speed")


@pytest.fixture(scope="module")
def quick_runs() -> Iterator[None]:
    """One epoch at most, at a price that nobody measured."""
    original = climb.finetune_on

    def short(manifest: Any, options: Any, **more: Any) -> Any:
        epochs = None if options.epochs is None else 1
        return original(manifest, replace(options, epochs=epochs), **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "finetune_on", short)
        patch.setattr(prices, "price_of", lambda *args, **options: Price(policy="full", epochs=4, seconds=1.0))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    data = write_images(root / "images", images=12, size=NEARLY_SQUARE)
    other = write_images(root / "other", ("red", "green", "blue", "grey"), seed=1, size=NEARLY_SQUARE)
    for name, model in (("a", "test_resnet"), ("b", "test_vit3")):
        quick(other, root / name, model=model, epochs=1)
    return data


def config(data: Path, out: Path, *names: str, **options: Any) -> FitConfig:
    root = data.parent
    models = ",".join(f"local-dir:{root / name}" for name in names or ("a", "b"))
    own = {"models": models, "img_size": 32, "ladder": LadderConfig(members=1, patience=1), "data": data}
    return FitConfig(out=out, runtime=RuntimeConfig(precision="fp32"), **(own | options))


def killed_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, count: int) -> None:
    """The call of this number, counted from 1, does not return."""
    original, calls = getattr(module, name), iter(range(1, 1000))

    def dying(*args: Any, **options: Any) -> Any:
        if next(calls) == count:
            raise KilledError
        return original(*args, **options)

    monkeypatch.setattr(module, name, dying)


@pytest.mark.parametrize("module", [best_result, fit_result], ids=["best", "result"])
def test_a_kill_while_results_are_written_leaves_one(data: Path, tmp_path: Path, module: Any) -> None:
    """In the middle of the second ensemble, of the first after a resume, and of the last phase."""
    out, name = tmp_path / "fit", "write_ensemble" if module is best_result else "draw_fit"
    for count in (2, 1) if module is best_result else (1, 1):
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, module, name, count)
            with pytest.raises(KilledError):
                tl_kit.resume_fit(out) if out.exists() else tl_kit.fit(config(data, out))
        assert tl_kit.load(out).predict(next((data / "red").iterdir()))[0].error is None
    result = tl_kit.resume_fit(out)
    assert result.test is not None
    kept = [folder.name for folder in out.glob("best-*")]
    assert kept == [best_of(out).name]


def test_validation_that_chose_the_result_is_not_called_a_test(data: Path, tmp_path: Path) -> None:
    for prefer in ("accuracy", "speed"):
        result = tl_kit.fit(config(data, tmp_path / prefer, "a", prefer=prefer))
        assert len(result.leaderboard) > 1
        assert tl_kit.evaluate(result.folder, data, split="val").kind == "selected on"
        assert tl_kit.evaluate(result.folder, data, split="test").kind == "test"


def test_a_fit_whose_time_is_over_still_gets_its_end(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_result, "predict_labelled", interrupted)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            tl_kit.fit(config(data, out, "a", time=1000))
    journal = json.loads((out / "state" / "journal.json").read_text())
    (out / "state" / "journal.json").write_text(json.dumps(journal | {"elapsed": 999.0}))
    result = tl_kit.resume_fit(out)
    assert result.test is not None
    assert result.test["readings"] == 1
    again = tl_kit.resume_fit(out)
    assert again.test is not None
    assert again.test["readings"] == 2
    assert "read 2 times" in " ".join(again.story)


def interrupted(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_no_time_at_all_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--time 2: is too short; 4 s pass beside the steps; give more"):
        tl_kit.fit(config(data, tmp_path / "fit", time=2))
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("broken", ["a", "b"])
def test_a_network_with_broken_weights_is_passed_over(data: Path, tmp_path: Path, broken: str) -> None:
    for name in ("a", "b"):
        shutil.copytree(data.parent / name, tmp_path / name)
    (tmp_path / broken / "model.safetensors").write_bytes(b"nothing")
    models = ",".join(f"local-dir:{tmp_path / name}" for name in ("a", "b"))
    result = tl_kit.fit(config(data, tmp_path / "fit", models=models))
    assert [row.status for row in result.leaderboard if row.network.endswith(f"/{broken}")] == ["failed"]
    assert result.members


def test_memory_that_runs_out_in_a_trial_is_a_failed_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*args: object, **options: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(prices, "price_of", hungry)
    result = tl_kit.fit(config(data, tmp_path / "fit", "a"))
    assert {row.status for row in result.leaderboard} == {"finished", "failed"}
    assert result.members


def test_what_failed_is_tried_again_when_it_is_resumed(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        killed: list[int] = []
        original = climb.finetune_on

        def failing(*args: Any, **options: Any) -> Any:
            if not killed:
                killed.append(1)
                raise MemoryError("too large")
            return original(*args, **options)

        patch.setattr(climb, "finetune_on", failing)
        first = tl_kit.fit(config(data, tmp_path / "fit"))
    assert first.leaderboard[0].status == "failed"
    again = tl_kit.resume_fit(tmp_path / "fit")
    assert {row.status for row in again.leaderboard} == {"finished"}
    assert {row.network for row in again.leaderboard if row.what == "head"} == {
        row.network for row in again.leaderboard
    }


def test_a_full_disk_ends_it_with_what_there_is(data: Path, tmp_path: Path) -> None:
    listener, out = Listener(), tmp_path / "fit"
    calls, original = iter(range(10)), best_result.write_ensemble

    def full(*args: Any, **options: Any) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_result, "write_ensemble", full)
        with pytest.raises(CheckpointError, match="cannot be written"):
            tl_kit.fit(config(data, out), reporter=listener)
    assert any("the best result so far is in" in message for message in listener.messages)
    assert tl_kit.load(out).predict(next((data / "blue").iterdir()))[0].error is None
    assert tl_kit.resume_fit(out).test is not None


def test_a_single_validation_image(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # its pictures are drawn
    own = tmp_path / "images"
    write_images(own / "train", images=6)
    write_images(own / "val", ("red",), images=1, seed=3)
    write_images(own / "test", images=2, seed=4)
    result = tl_kit.fit(replace(config(data, tmp_path / "fit", "a"), data=own, allow=("class-missing",)))
    assert result.leaderboard[0].accuracy_error is None
    assert Path(result.picture).is_file()
    json.dumps(result.to_dict(), allow_nan=False)


def test_without_test_images_there_is_no_test_score(tmp_path: Path, data: Path) -> None:
    own = tmp_path / "images"
    write_images(own / "train", images=6)
    write_images(own / "val", images=3, seed=3)
    result = tl_kit.fit(replace(config(data, tmp_path / "fit", "a"), data=own))
    assert result.test is None
    assert not any(line.startswith("test") for line in result.story)
    assert result.predict(next((own / "val" / "green").iterdir()))[0].label is not None


def test_it_goes_on_from_another_folder_with_relative_paths(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    out = tmp_path / "fit"
    relative = replace(config(Path("images"), out), models="local-dir:a, local-dir:b")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, climb, "finetune_on", 2)
        with pytest.raises(KilledError):
            tl_kit.fit(relative)
    monkeypatch.chdir(tmp_path)
    result = tl_kit.resume_fit("fit")
    assert len({row.network for row in result.leaderboard}) == 2


def test_a_mistake_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    for options in ({"models": "resnet81"}, {"models": "local-dir:nowhere"}, {"max_params": 10}):
        with pytest.raises(TlKitError):
            tl_kit.fit(config(data, tmp_path / "fit", **options))
        assert not (tmp_path / "fit").exists()


def test_a_folder_with_a_fit_is_refused_and_the_command_is_named(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit"
    tl_kit.fit(config(data, out, "a"))
    for again in (lambda: tl_kit.fit(config(data, out)), lambda: quick(data, out)):
        with pytest.raises(CheckpointError, match=f"tlkit fit --resume {out}"):
            again()
    assert read_fit(out)["status"] == "finished"


def test_auto_is_no_name_for_folds_and_members(data: Path, tmp_path: Path) -> None:
    options = tl_kit.FinetuneConfig(model="auto", data=data, out=tmp_path / "out")
    for several in (tl_kit.cross_validate, tl_kit.finetune_members, tl_kit.plan):
        with pytest.raises(ConfigError, match=r"auto: name a network here; tl_kit\.choose_network"):
            several(options)


@pytest.mark.parametrize(("right", "error"), [(4, None), (0, None), (3, 0.25)])
def test_the_error_of_an_accuracy_is_unknown_where_all_or_none_are_right(right: int, error: float | None) -> None:
    labels = np.array([0, 1, 0, 1])
    probabilities = np.eye(2)[np.where(np.arange(4) < right, labels, 1 - labels)] * 0.8 + 0.1
    assert leaderboard._scores(probabilities, labels)["accuracy_error"] == error


def test_a_class_that_no_test_image_has_is_named(tmp_path: Path, data: Path) -> None:
    """Of one image, which trains; its recall is undefined, and not 0."""
    shutil.copytree(data, tmp_path / "images")
    (tmp_path / "images" / "rare").mkdir()
    shutil.copy(next(data.rglob("*.png")), tmp_path / "images" / "rare" / "1.png")
    with Image.open(tmp_path / "images" / "rare" / "1.png") as image:
        pixels = 255 - np.asarray(image)
    Image.fromarray(pixels).save(tmp_path / "images" / "rare" / "1.png")
    listener = Listener()
    options = replace(config(data, tmp_path / "fit", "a"), data=tmp_path / "images")
    result = tl_kit.fit(options, reporter=listener)
    assert result.test is not None
    assert result.test["without"] == ["rare"]
    assert any("none of 'rare')" in line for line in result.story)
    assert any(line.startswith("test has no image of 'rare': too few images") for line in listener.messages)
    assert class_figures(tl_kit.evaluate(result.folder, tmp_path / "images").per_class["rare"])[1] == "–"


def test_ways_out_of_a_failed_step_are_options_of_fit() -> None:
    said = reason_of(WeightsError(f"no weights of x on this machine; {WAYS_OUT}"))
    lost = reason_of(NonFiniteError(f"the loss is nan at step 2: {ADVICE}; the best epoch so far is kept in x"))
    assert lost == "the loss is nan at step 2"
    assert "--weights" not in said
    assert "--models local-dir:FOLDER" in said


def test_only_the_limits_that_are_missed_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tl_kit.fit(config(data, tmp_path / "fit", "a", max_latency=1e-6, max_params="900M"))
    assert "--max-latency 1e-06 (the fastest so far" in str(caught.value)
    assert "--max-params" not in str(caught.value)
    assert str(caught.value).endswith("; raise it")


def test_ctrl_c_after_a_head_that_failed_speaks_of_no_limit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data.parent / "b", tmp_path / "b")  # the cheaper one, which comes first
    (tmp_path / "b" / "model.safetensors").write_bytes(b"nothing")
    models = f"local-dir:{data.parent / 'a'},local-dir:{tmp_path / 'b'}"
    original, calls = climb.finetune_on, itertools.count()

    def stopping(*args: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(climb, "finetune_on", stopping)
    with pytest.raises(KeyboardInterrupt, match="no step is finished yet"):
        tl_kit.fit(config(data, tmp_path / "fit", models=models))
