"""Shell completion: typer's, with the names of models, policies and checkpoints, and without torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import timm

from tests import children
from tests.cli.helpers import tlkit
from tl_kit import known_models
from tl_kit.config import CROP_MODES, OptimizerDefaults, ScheduleDefaults
from tl_kit.config.finetune_settings import FinetuneConfig
from tl_kit.data.findings import BLOCKING
from tl_kit.flags import fields_of
from tl_kit.freezing.policies import POLICIES, is_auto, parse_policy
from tl_kit.images.augmentation import resolve_augment

BASH = {"_TLKIT_COMPLETE": "complete_bash"}


def offered(monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash is told for the last word of a line."""
    words = line.split(" ")
    for name, value in {**BASH, "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}.items():
        monkeypatch.setenv(name, value)
    return tlkit().out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tlkit pl", ["plan"]),
        ("tlkit finetune --mix", ["--mixup"]),
        ("tlkit finetune --policy la", ["last:1", "last:2", "last:3"]),
        ("tlkit finetune --balance s", ["sampler"]),
        ("tlkit finetune --optimizer adam", ["adam", "adam-uncorrected", "adamw"]),
        ("tlkit plan --schedule co", ["constant", "cosine"]),
        ("tlkit finetune test_vi", sorted(timm.list_models("test_vi*"))),
        ("tlkit finetune test_vit2", ["test_vit2", *sorted(timm.list_pretrained("test_vit2.*"))]),
        ("tlkit finetune --data x tf_efficientnet_lite0.", ["tf_efficientnet_lite0.in1k"]),
        ("tlkit finetune zzz", []),
    ],
)
def test_names_that_bash_is_offered(line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(monkeypatch, line) == expected


def test_checkpoints_where_commands_write_them_and_beside_what_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, mark in (("ckpts/a-1", "tlkit.json"), ("ensembles/e-1", "ensemble.json"), ("own/b", "tlkit.json")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / mark).touch()
    (tmp_path / "ckpts" / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert offered(monkeypatch, "tlkit predict ") == ["ckpts/a-1", "ensembles/e-1"]
    assert offered(monkeypatch, "tlkit evaluate own/") == ["own/b"]
    assert offered(monkeypatch, "tlkit evaluate ./own/") == ["./own/b"]
    assert offered(monkeypatch, "tlkit ensemble ckpts/a-1 e") == ["ensembles/e-1"]


def test_known_models_are_timms_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = known_models()
    assert {*timm.list_models(), *timm.list_pretrained()} <= set(names)
    (file,) = (tmp_path / "tl-kit").iterdir()
    assert timm.__version__ in file.name
    file.write_text("one\ntwo\n")
    assert known_models() == ["one", "two"]


def test_a_shell_does_not_wait_for_torch() -> None:
    known_models()
    code = (
        "import sys\nfrom tl_kit.cli import main\ntry: main([])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    env = {**os.environ, **BASH, "COMP_WORDS": "tlkit finetune resnet1", "COMP_CWORD": "2"}
    done = children.run([sys.executable, "-c", code], env=env)
    assert done.returncode == 0, done.stderr
    assert "resnet18" in done.stdout.split()


def test_the_offers_are_what_the_options_take() -> None:
    flags = {entry.name: entry.flag for entry in fields_of(FinetuneConfig) if entry.flag is not None}
    offers = {name: flag.complete for name, flag in flags.items() if isinstance(flag.complete, tuple)}
    assert all(is_auto(text) or parse_policy(text) for text in offers["policy"])
    assert {text.partition(":")[0] for text in offers["policy"]} == {"auto", *POLICIES}
    assert set(offers["optimizer"]) == {*OptimizerDefaults().options, "lbfgs", "newton"}
    assert set(offers["schedule"]) == set(ScheduleDefaults().options)
    assert all(resolve_augment(text, {}, images_per_class=50)[0] for text in offers["augment"])
    assert set(offers["crop_mode"]) == {"auto", *CROP_MODES}
    assert set(offers["allow"]) == set(BLOCKING)
