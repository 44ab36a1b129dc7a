"""The probes' pass is the head's pass: same rows, nothing computed twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import MODEL, NEARLY_SQUARE, write_images
from tl_kit.config import CacheConfig, FinetuneConfig
from tl_kit.finetuning.choices.policy_choice import facts_of, run_probes
from tl_kit.finetuning.choices.stage_rows import HEAD_INPUT
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.run import Run
from tl_kit.reporting import SILENT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=15, size=NEARLY_SQUARE)


def a_run(data: Path, folder: Path, name: str) -> Run:
    config = FinetuneConfig(
        model=MODEL,
        data=data,
        weights="none",
        img_size=32,
        policy="head",
        out=folder / name,
        cache=CacheConfig(directory=folder / f"cache-{name}"),
    )
    return prepare(config, SILENT)


def test_plain_colours_are_told_apart_at_every_stage(data: Path, tmp_path: Path) -> None:
    run = a_run(data, tmp_path, "run")
    probes = run_probes(run)
    assert [probe.stage for probe in probes] == ["act1", "layer1", "layer2", "layer3", "layer4", HEAD_INPUT]
    assert probes[0].accuracy > 0.8
    assert all(0 <= probe.accuracy <= 1 and probe.error >= 0 for probe in probes)


def test_the_rows_are_those_of_the_head_policy_bit_for_bit(data: Path, tmp_path: Path) -> None:
    probed, plain = a_run(data, tmp_path, "probed"), a_run(data, tmp_path, "plain")
    run_probes(probed)
    rows = []
    for run in (probed, plain):
        head, reuse = head_run(run)
        assert reuse is not None
        samples = head.manifest.split("train")
        missing = reuse.features.store.missing([f"{sample.digest}/eval" for sample in samples])
        assert (len(missing) == 0) == (run is probed), "the head's own pass has nothing left to do"
        reuse.fill("train")
        rows.append(reuse.rows(samples))
    assert torch.equal(rows[0], rows[1])


def test_all_stages_together_are_probed_where_that_is_asked(data: Path, tmp_path: Path) -> None:
    run = a_run(data, tmp_path, "run")
    run = replace(run, weights=replace(run.weights, loaded=("all",)))
    plain, facts = facts_of(run), facts_of(run, together=True)
    assert facts.probes == plain.probes
    assert plain.together is None
    assert plain.stages_add is None
    assert facts.together is not None
    assert facts.together.channels == sum(probe.channels for probe in facts.probes)
    assert facts.together.accuracy > 0.8
    assert facts.to_dict()["together"]["stage"] == "all stages"


def test_a_second_time_nothing_is_computed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(data, tmp_path, "run")
    first = run_probes(run)

    def fail(*_: object) -> None:
        raise AssertionError("the features are known")

    monkeypatch.setattr("tl_kit.finetuning.choices.stage_rows._pass", fail)
    assert run_probes(run) == first


def test_an_image_that_cannot_be_decoded_is_no_hindrance_when_the_others_are_in_the_cache(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "images")
    broken = sorted((tmp_path / "images" / "red").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    found = []
    for _ in range(2):
        run = prepare(replace(a_run(tmp_path / "images", tmp_path, "run").config, out=None), SILENT, dry=True)
        if broken.name not in {Path(sample.path).name for sample in run.manifest.split("train")}:
            pytest.fail("the broken image is to be in training")
        found.append(run_probes(run))
        run.cleanup.close()
        shutil.rmtree(tmp_path / "run")
    assert found[0] == found[1] != []
