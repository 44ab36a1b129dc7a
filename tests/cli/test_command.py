"""Flags made from the fields of configurations: one field is a whole flag, and no command has any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
import typer

from tests.cli.helpers import tlkit
from tl_kit.cli import app as program
from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.config import (
    CacheReportConfig,
    DebugConfig,
    DemoConfig,
    EnsembleConfig,
    EvaluateConfig,
    ExamineConfig,
    ExportConfig,
    FinetuneConfig,
    JsonConfig,
    ModelsConfig,
    OptionsFileConfig,
    PredictConfig,
    PushConfig,
    ReportAtEndConfig,
    ReportConfig,
    RunsConfig,
    ServeConfig,
    StudentConfig,
)
from tl_kit.flags import NO_FLAGS, Field, Flag, OnlyFlags, Panel, fields_of
from tl_kit.number_ranges import AT_LEAST_ONE

RUN = (FinetuneConfig, RunsConfig, ReportAtEndConfig, JsonConfig)
COMMANDS: dict[str, tuple[type[Any], ...]] = {
    "finetune": RUN,
    "plan": RUN,
    "ensemble": (EnsembleConfig, StudentConfig, ReportAtEndConfig, JsonConfig),
    "evaluate": (EvaluateConfig, JsonConfig),
    "export": (ExportConfig, JsonConfig),
    "predict": (PredictConfig,),
    "push": (PushConfig, JsonConfig),
    "serve": (ServeConfig,),
    "report": (ReportConfig, JsonConfig),
    "models": (ModelsConfig,),
    "doctor": (ExamineConfig, JsonConfig),
    "cache": (CacheReportConfig, JsonConfig),
    "demo": (DemoConfig,),
}


def _pair(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise ValueError("must be two numbers, such as 3x4") from None


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: Annotated[int, AT_LEAST_ONE, Flag(panel="Run", metavar="D", help="Layers.")] = 2
    width: int = 7  # no flag


@dataclass(frozen=True, kw_only=True)
class Perhaps:
    views: Annotated[int, AT_LEAST_ONE, Flag(panel="Run", help="Many.")] = 4


@dataclass(frozen=True, kw_only=True)
class Partly:
    spoken: Annotated[int, Flag(panel="Run", help="Taken.")] = 1
    unspoken: Annotated[int, Flag(panel="Run", help="Not taken.")] = 2


@dataclass(frozen=True, kw_only=True)
class Example:
    source: Annotated[Path, Flag(panel="Run", name="SOURCE", help="A file.")]
    new_field: Annotated[float | None, Flag(panel="Run", help="A new thing.")] = None
    kind: Annotated[Literal["a", "b"], Flag(panel="Run", name="--sort", help="Of two.")] = "a"
    loud: Annotated[bool, Flag(panel="Run", help="Say more.")] = False
    tags: Annotated[tuple[str, ...], Flag(panel="Run", name="--tag", help="May be repeated.")] = ()
    size: Annotated[tuple[int, ...], Flag(panel="Run", metavar="WxH", help="Two numbers.", parse=_pair)] = (1, 1)
    inner: Inner = Inner(depth=5, width=9)
    perhaps: Perhaps | None = None
    silent: Annotated[Inner, NO_FLAGS] = Inner()
    partly: Annotated[Partly, OnlyFlags(("spoken",))] = Partly()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Example]:
    """What a command that is made of ``Example``, and of nothing else, reads: ``tlkit example``."""
    found: list[Example] = []

    @command(Example)
    def example(given: Given, console: Console) -> None:
        """An example."""
        found.append(given.read(Example))

    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(example)
    app.callback()(lambda: None)
    monkeypatch.setattr(program, "app", app)
    return found


def test_of_a_configuration_within_only_the_named_fields_are_flags(seen: list[Example]) -> None:
    done = tlkit("example", "here", "--spoken", 5)
    assert done.code == 0, done.err
    assert seen[0].partly == Partly(spoken=5, unspoken=2)
    assert tlkit("example", "here", "--unspoken", 5).code == 2
    assert "--unspoken" not in tlkit("example", "--help").out


def test_a_field_is_a_flag(seen: list[Example]) -> None:
    done = tlkit("example", "here", "--new-field", "0.5", "--sort", "b", "--loud", "--tag", "x", "--tag", "y")
    assert done.code == 0, done.err
    assert seen == [Example(source=Path("here"), new_field=0.5, kind="b", loud=True, tags=("x", "y"))]
    assert re.search(r"--new-field \S+ +A new thing\.", tlkit("example", "--help").out)


def test_what_is_not_typed_is_as_the_configuration_has_it(seen: list[Example]) -> None:
    for flags in ((), ("--depth", 3), ("--views", 4), ("--size", "3x4")):
        done = tlkit("example", "here", *flags)
        assert done.code == 0, done.err
    usual = Example(source=Path("here"))
    assert seen[0] == usual
    assert seen[1] == Example(source=Path("here"), inner=Inner(depth=3, width=9))
    assert seen[2] == Example(source=Path("here"), perhaps=Perhaps())
    assert seen[3] == Example(source=Path("here"), size=(3, 4))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--depth", 0), "--depth 0: must be at least 1"),
        (("--views", 0), "--views 0: must be at least 1"),
        (("--new-field", "-1"), "--new-field -1.0: must be at least 0"),
        (("--size", "wide"), "--size wide: must be two numbers, such as 3x4"),
        (("--sort", "c"), "'--sort': 'c' is not one of 'a', 'b'"),
        (("--width", 3), "--width"),
    ],
)
def test_what_a_field_cannot_be_is_one_line(seen: list[Example], flags: tuple[object, ...], message: str) -> None:
    done = tlkit("example", "here", *flags)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert seen == []


def test_a_needed_field_that_is_missing_is_named(seen: list[Example]) -> None:
    done = tlkit("example")
    assert (done.code, seen) == (2, [])
    assert done.err == "error: SOURCE is missing\n"


@pytest.mark.parametrize("name", ["finetune", "plan"])
def test_a_run_needs_a_model_and_images_or_a_folder_to_go_on_with(name: str) -> None:
    usage = f"tlkit {name} MODEL --data PATH, or tlkit {name} --resume RUN"
    assert tlkit(name).err == f"error: MODEL is missing: {usage}\n"
    assert tlkit(name, "resnet18").err == f"error: --data is missing: {usage}\n"


def flagged(*kinds: type[Any]) -> Iterator[Field]:
    for kind in kinds:
        for entry in fields_of(kind):
            if entry.nested is not None:
                yield from (each for each in flagged(entry.nested) if entry.only is None or each.name in entry.only)
            elif entry.flag is not None:
                yield entry


LONG = ("finetune", "plan", "ensemble", "predict", "serve")


def page(name: str) -> str:
    """The help page of a command with every option."""
    return tlkit(name, "--help-all" if name in LONG else "--help").out


def blocks(text: str) -> dict[str, str]:
    """The help text of each option and argument on a help page, by its name, on one line."""
    sections = re.split(r"\n\n(?=[A-Z][a-zA-Z ]+:\n)", text)[1:]
    entries = [block for section in sections for block in re.split(r"\n  (?=\S)", section.partition("\n\n")[0])[1:]]
    return {
        re.split(r"[ ,\]]|/(?=-)", block.removeprefix("-h, ").lstrip("["))[0]: " ".join(block.split())
        for block in entries
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_a_field_with_its_help_and_its_default(name: str) -> None:
    shown = blocks(page(name))
    entries = {entry.shown: entry for entry in flagged(*COMMANDS[name], OptionsFileConfig, DebugConfig)}
    assert set(shown) - {"--help-all"} == {*entries, "--help"}
    for option, entry in entries.items():
        assert entry.flag is not None
        assert entry.flag.help.split()[0] in shown[option]
        default = entry.default
        if isinstance(default, int | float | str | Path) and not isinstance(default, bool):
            text = f"{default:g}" if entry.flag.parse is not None and isinstance(default, float) else str(default)
            assert (f"[default: {text}]" in shown[option]) == entry.flag.show_default


def test_plan_takes_every_option_of_finetune() -> None:
    assert list(blocks(page("plan"))) == list(blocks(page("finetune")))


def sections(text: str) -> list[str]:
    return re.findall(r"^([A-Z][a-zA-Z ]+):$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["finetune", "plan", "fit"])
def test_a_long_page_has_sections_and_shows_the_common_options_first(name: str) -> None:
    first, whole = tlkit(name, "--help").out, tlkit(name, "--help-all").out
    shown, every = blocks(first), blocks(whole)
    assert set(shown) < set(every)
    assert {option: every[option] for option in shown} == shown
    assert first.endswith(f"\n{len(every) - len(shown)} more options: tlkit {name} --help-all\n")
    order = ["Arguments", *get_args(Panel)]
    assert sections(whole) == [title for title in order if title in sections(whole)]
    assert len(sections(whole)) > 4
    assert "more options" not in whole
    assert tlkit(name, "--help").out == first, "the whole page leaves nothing behind"
    assert name == "fit" or 10 * len(first.splitlines()) < 6 * len(whole.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_pages_fit_80_columns(name: str) -> None:
    assert max(map(len, page(name).splitlines())) <= 80


def test_the_list_of_commands_cuts_no_sentence() -> None:
    assert "..." not in tlkit("--help").out.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_have_no_types_of_python(name: str) -> None:
    arguments = re.search(r"^Arguments:\n(.*?)\n\n", page(name), flags=re.MULTILINE | re.DOTALL)
    assert arguments is None or not re.search(r"^  \S+ <", arguments[1], flags=re.MULTILINE)


@pytest.mark.parametrize("arguments", [("--epochs",), ("--epochs", "many"), ("--bogus",)])
def test_a_parsers_error_names_the_commands_own_page(arguments: tuple[str, ...]) -> None:
    assert tlkit("finetune", *arguments).err.endswith(" (tlkit finetune -h shows how)\n")


def test_a_repository_that_is_missing_is_named_in_full() -> None:
    assert tlkit("push", "x").err == "error: OWNER/NAME is missing: tlkit push CKPT OWNER/NAME\n"
    assert tlkit("export").err == "error: CKPT is missing: tlkit export CKPT\n"


def test_a_short_page_has_one_list_of_options() -> None:
    assert sections(tlkit("evaluate", "--help").out) == ["Arguments", "Options"]
    assert tlkit("evaluate", "--help-all").code == 2
