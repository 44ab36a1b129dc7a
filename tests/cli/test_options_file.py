"""``--config``: options from a YAML file, and the ``config.yaml`` of a run, which gives the same bits again."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import children
from tests.cli.helpers import tlkit
from tests.helpers import same, weights, write_images
from tl_kit.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    EnsembleConfig,
    FinetuneConfig,
    FitConfig,
    HeadConfig,
    LoopConfig,
    RegularizationConfig,
    RunsConfig,
    RuntimeConfig,
    SwaConfig,
)
from tl_kit.named_options import configured, read_options
from tl_kit.options_file import options_text, read_options_file

pytestmark = pytest.mark.usefixtures("plain_pictures")

SHORT = ("test_resnet", "--weights", "none", "--img-size", 32, "--policy", "last:2", "--batch-size", 8)
BASE = FinetuneConfig(model="resnet18", data=Path("/imgs"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("options") / "images", images=8)


def again(file: Path, kind: type[Any], *others: type[Any]) -> Any:
    changes = read_options([kind, *others], read_options_file(file), where=str(file))
    own = {path: value for path, value in changes.items() if path[0] in kind.__dataclass_fields__}
    return configured(kind, own)


# The file of a run.


@pytest.mark.parametrize(
    "config",
    [
        BASE,
        replace(BASE, model="1e3", policy="off", weights="null"),  # texts that YAML could take for others
        replace(BASE, lr=1e-5, epochs=3, optimizer_options=("momentum=0.5",), allow=("split-leak", "group-leak")),
        replace(BASE, lr="auto", optimizer_options={"momentum": 0.5, "betas": (0.9, 0.99)}, augment="strong"),
        replace(BASE, augment=AugmentConfig(flip=0.0), distill=DistillConfig(teacher=Path("/t"), weight=0.5)),
        replace(BASE, runtime=RuntimeConfig(mode="plain", batch_size=4, device="cpu")),
        replace(BASE, regularization=RegularizationConfig(swa=True, l2=0.1), swa=SwaConfig(start=0.5)),
        replace(BASE, split=DataConfig(test_fraction=0.1, split_seed=4), head=HeadConfig(refit=False, c=0.1)),
        replace(BASE, loop=LoopConfig(warmup_epochs=0.0, weight_decay=1e-4, epochs=9), patience=3),
    ],
)
def test_every_option_comes_back(config: FinetuneConfig, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(options_text([config, RunsConfig(folds=3)], command="finetune"))
    assert again(tmp_path / "x.yaml", FinetuneConfig, RunsConfig) == config
    assert again(tmp_path / "x.yaml", RunsConfig, FinetuneConfig) == RunsConfig(folds=3)


@pytest.mark.parametrize(
    "config",
    [FitConfig(data=Path("/imgs"), time=600.0, max_params=5e6), EnsembleConfig(checkpoints=(Path("/a"), Path("/b")))],
)
def test_options_of_other_commands_come_back(config: Any, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(options_text([config], command="x"))
    assert again(tmp_path / "x.yaml", type(config)) == config


def test_a_run_from_its_file_has_the_same_weights(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from another folder, where the paths that were typed lead nowhere."""
    monkeypatch.chdir(data.parent)
    assert tlkit("finetune", *SHORT, "--data", data.name, "--epochs", 1, "--out", "first").code == 0
    flags = (
        "--weights",
        "first",
        "--epochs",
        2,
        "--mixup",
        0.2,
        "--opt",
        "momentum=0.8",
        "--aug",
        "flip=0",
        "--seed",
        3,
        "--lr",
        0.01,
    )
    done = tlkit("finetune", *SHORT, "--data", data.name, *flags, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    file = tmp_path / "a" / "config.yaml"
    assert yaml.safe_load(file.read_text())["mixup"] == 0.2
    monkeypatch.chdir(tmp_path)
    assert tlkit("finetune", "--config", file, "--out", "b").code == 0
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert (tmp_path / "b" / "config.yaml").read_text() == file.read_text()
    assert tlkit("finetune", "--config", file, "--out", "c", "--seed", 4).code == 0
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c")), "what is typed wins"


def test_members_and_folds_and_ensembles_from_their_files(data: Path, tmp_path: Path) -> None:
    command = ("finetune", *SHORT, "--epochs", 1, "--data", data)
    for name, flags in (("m", ("--members", 2, "--vary", "bootstrap")), ("f", ("--folds", 2))):
        assert tlkit(*command, *flags, "--out", tmp_path / name).code == 0
        done = tlkit("finetune", "--config", tmp_path / name / "config.yaml", "--out", tmp_path / f"{name}2")
        assert done.code == 0, done.err
    for part in ("member-1", "member-2"):
        assert same(weights(tmp_path / "m" / part), weights(tmp_path / "m2" / part))
    assert same(weights(tmp_path / "f" / "fold-2"), weights(tmp_path / "f2" / "fold-2"))
    assert not (tmp_path / "m" / "member-1" / "config.yaml").exists(), "its images are those of the series"
    members = (tmp_path / "m" / "member-1", tmp_path / "m" / "member-2")
    assert tlkit("ensemble", *members, "--rule", "logit-mean", "--out", tmp_path / "e").code == 0
    done = tlkit("ensemble", "--config", tmp_path / "e" / "config.yaml", "--out", tmp_path / "e2")
    assert done.code == 0, done.err
    found = [json.loads((tmp_path / name / "ensemble.json").read_text())["receipt"]["rule"] for name in ("e", "e2")]
    assert found == ["logit-mean", "logit-mean"]


# A file that a user wrote.


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "run.yaml").write_text(text)
    return tmp_path / "run.yaml"


def test_every_command_takes_its_options_from_a_file(data: Path, tmp_path: Path) -> None:
    file = written(tmp_path, f"model: test_resnet\ndata: {data}\nweights: none\nimg-size: 32\nlr: 1e-2\nepochs: 1\n")
    assert tlkit("finetune", "--config", file, "--policy", "full", "--out", tmp_path / "run").code == 0
    plan = tlkit("plan", "--config", file, "--json")
    assert plan.code == 0, plan.err
    image = data / "red" / "0-1.png"
    file = written(tmp_path, f"checkpoint: {tmp_path / 'run'}\nimages: {image}\nformat: csv\ntop: 1\n")
    typed = tlkit("predict", tmp_path / "run", image, "--format", "csv", "--top", 1)
    assert tlkit("predict", "--config", file).out == typed.out != ""
    assert tlkit("predict", "--config", file, "--top", 2).out != typed.out
    file = written(tmp_path, f"checkpoint: {tmp_path / 'run'}\ndata: {data}\nsplit: all\njson: true\n")
    assert tlkit("evaluate", "--config", file).json["images"] == 24
    assert tlkit("doctor", "--config", written(tmp_path, f"data: {data}\njson: yes\n")).json["blocks"] is False
    assert tlkit("models", "--config", written(tmp_path, "pattern: test_vit.*\n")).out.count("test_vit.") == 1
    assert tlkit("cache", "--config", written(tmp_path, "json: true\n")).code == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("epoch: 3", "FILE: epoch: no such option of tlkit finetune; did you mean epochs?"),
        ("checkpoints: [a]", "FILE: checkpoints: no such option of tlkit finetune"),
        ("epochs: many", "FILE: epochs 'many': must be a whole number, or None"),
        ("mixup: [1]", "FILE: mixup [1]: must be a number"),
        ("lr: fast", "FILE: lr fast: must be a positive number, or auto"),
        ("on-nan: continue", "FILE: on-nan continue: known are stop, rollback"),
        ("head: {max_itre: 3}", "FILE: head: max_itre: no such option; did you mean max_iter?"),
        ("debug: true", "FILE: debug: no such option of tlkit finetune"),
        ("augment: 3", "FILE: augment 3: must be names and values, or a text"),
        ("distill: 3", "FILE: distill 3: must be names and values, or None"),
        ("head: {c: -1}", "FILE: head.c -1: must be above 0"),
        ("epochs: 0", "FILE: --epochs 0: must be at least 1"),
        ("split: 3", "FILE: split 3: must hold names and values, such as val_fraction: 0.2"),
        ("opt: a=1\noptimizer_options: b=1", "FILE: optimizer_options: is given twice"),
        ("epochs: 1\nepochs: 2", "--config FILE: line 1: is not YAML (epochs is given twice)"),
        ("epochs: [1", "--config FILE: line 1: is not YAML (expected ',' or ']', but got '<stream end>')"),
        ("- epochs", "--config FILE: must hold names and values, such as epochs: 3"),
        ('model: "a\\0b"', "FILE: model 'a\\x00b': must be a text"),
        ('out: "a\\0b"', "FILE: out 'a\\x00b': must be a path, or None"),
        ("just words", "--config FILE: must hold names and values, such as epochs: 3"),
    ],
)
def test_mistakes_in_the_file_are_one_line(text: str, error: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    done = tlkit("finetune", "resnet18", "--data", "imgs", "--config", file)
    assert (done.code, done.err) == (2, f"error: {error.replace('FILE', str(file))}\n")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [{0}]", "!!python/name:os.mkdir"])
def test_nothing_in_the_file_is_executed(tag: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"model: {tag.format(tmp_path / 'made')}\n")
    done = tlkit("finetune", "--config", file)
    assert done.code == 2
    assert "could not determine a constructor for the tag" in done.err
    assert not (tmp_path / "made").exists()


def test_other_mistakes(tmp_path: Path) -> None:
    file = written(tmp_path, "epochs: 3\n")
    assert tlkit("finetune", "--config", tmp_path / "no.yaml").err.endswith("no.yaml: no such file\n")
    typed = tlkit("finetune", "resnet18", "--data", "imgs", "--config", file, "--epochs", 0)
    assert typed.err == "error: --epochs 0: must be at least 1\n", "the file has nothing to do with it"
    assert "MODEL is missing" in tlkit("finetune", "--config", file).err
    assert f"{file}: epochs: --resume continues" in tlkit("finetune", "--resume", tmp_path, "--config", file).err
    both = written(tmp_path, f"resume: {tmp_path}\nepochs: 3\n")
    assert f"{both}: epochs: --resume continues" in tlkit("finetune", "--config", both).err
    (tmp_path / "bytes.yaml").write_bytes(b"model: \xff\n")
    assert "is not UTF-8 text" in tlkit("finetune", "--config", tmp_path / "bytes.yaml").err
    (tmp_path / "long.yaml").write_bytes(b"#" * 2**21)
    assert "is too large" in tlkit("finetune", "--config", tmp_path / "long.yaml").err


def test_a_typed_choice_replaces_the_files_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("tl_kit.finetune", lambda config, **_: seen.append(config) or sys.exit(0))
    monkeypatch.setattr("tl_kit.choose_network", lambda config, **_: config)
    file = written(tmp_path, "augment: {flip: 0.0}\nl2: 0.1\nregularization: {l1: 0.2}\n")
    command = ("finetune", "resnet18", "--data", "imgs", "--config", file)
    tlkit(*command, "--l2", "0.3")
    assert seen[0].augment == AugmentConfig(flip=0.0)
    assert seen[0].regularization == RegularizationConfig(l1=0.2, l2=0.3)
    tlkit(*command, "--augment", "light")
    assert seen[1].augment == "light"


def test_the_examples_of_the_documentation_are_options(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    config = again(written(tmp_path, "".join(blocks)), FinetuneConfig)
    assert config.regularization.mixup == 0.2
    assert config.allow == ("split-leak",)
    assert config.head.c == 0.5
    assert config.runtime.precision == "fp32"


def test_none_in_a_file_is_none_and_the_text_is_quoted(tmp_path: Path) -> None:
    """Messages say None, so that people write it."""
    file = written(tmp_path, "epochs: None\nmodel: 'None'\n")
    assert read_options_file(file) == {"epochs": None, "model": "None"}
    file = written(tmp_path, options_text([replace(BASE, model="None", epochs=None)], command="finetune"))
    assert again(file, FinetuneConfig) == replace(BASE, model="None")


def test_python_m_tl_kit() -> None:
    done = children.run([sys.executable, "-m", "tl_kit", "--version"])
    assert done.returncode == 0
    assert done.stdout.startswith("tlkit ")
