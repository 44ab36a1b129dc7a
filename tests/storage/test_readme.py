"""The model card: what it says, that it holds no path, and that its own code opens the folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import tl_kit
from tests.exporting.checkpoints import photo, run_blocks, write_checkpoint
from tests.helpers import quick, quick_config, write_images
from tl_kit import EnsembleConfig, TlKitError
from tl_kit.metrics import wilson
from tl_kit.storage.cards.readme import README, Network, checkpoint_readme, code, ensemble_readme
from tl_kit.storage.cards.recorded_scores import Score
from tl_kit.storage.checkpoint import is_checkpoint, read_meta
from tl_kit.storage.ensemble_folder import is_ensemble

pytestmark = pytest.mark.usefixtures("plain_pictures")

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name must not be told."""
    return tmp_path_factory.mktemp("secretplace")


@pytest.fixture(scope="module")
def data(secret: Path) -> Path:
    """With a test split: most of the ways that a score can have come about."""
    return write_images(secret / "secretimages", CLASSES, images=15)


@pytest.fixture(scope="module")
def runs(data: Path, secret: Path) -> tuple[Path, Path]:
    """One whose validation chose its epoch, and one whose did not choose anything."""
    first = quick(data, secret / "secretrun", epochs=2, keep_epoch="best")
    second = quick(data, secret / "secretother", policy="head", epochs=None, seed=1)
    return Path(first.checkpoint), Path(second.checkpoint)


@pytest.fixture(scope="module")
def ensemble(runs: tuple[Path, Path], secret: Path) -> Path:
    return Path(tl_kit.ensemble(EnsembleConfig(checkpoints=runs, out=secret / "secretboth")).checkpoint)


def card_of(folder: Path) -> ModelCard:
    return ModelCard((folder / README).read_text(encoding="utf-8"))


def row_of(card: str, split: str) -> list[str]:
    (line,) = [line for line in card.splitlines() if re.match(rf"\| {split}\*? \|", line)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_it_says_what_the_record_says(runs: tuple[Path, Path]) -> None:
    meta = json.loads((runs[0] / "tlkit.json").read_text())
    card = card_of(runs[0])
    counts = meta["data"]["images"]
    assert counts["train"] == len(meta["data"]["train"])
    assert counts["val"] == len(meta["data"]["val"])
    assert sum(counts.values()) == 45
    assert f"{counts['train']} for training, {counts['val']} for validation, {counts['test']} for the test" in card.text
    assert all(f"`{name}`" in card.text for name in CLASSES)
    low, high = wilson(meta["test"]["accuracy"], counts["test"])
    cells = row_of(card.text, "test")
    assert cells[1:5] == [
        "test",
        str(counts["test"]),
        f"{100 * meta['test']['accuracy']:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
    ]
    assert row_of(card.text, "val")[:2] == ["val*", "selected on"]
    assert "these images chose the best epoch" in card.text
    assert "random weights" in card.text


def test_it_explains_the_kinds_that_it_has_and_no_others(runs: tuple[Path, Path]) -> None:
    for run in runs:
        text = card_of(run).text
        kinds = {line.split("|")[2].strip() for line in text.splitlines() if re.match(r"\| (test|val|train)", line)}
        assert "test" in kinds
        assert set(re.findall(r"Kind ([a-z ]+): ", text)) == kinds & {"test", "out of fold"}


def test_the_metadata_holds_only_scores_that_are_estimates(runs: tuple[Path, Path]) -> None:
    meta, data = json.loads((runs[0] / "tlkit.json").read_text()), card_of(runs[0]).data
    assert data.library_name == "timm"
    assert data.pipeline_tag == "image-classification"
    assert [result.dataset_split for result in data.eval_results or []] == ["test"], "val chose the epoch"
    (result,) = data.eval_results or []
    assert result.metric_value == round(meta["test"]["accuracy"], 4)
    assert data.license is None, "nothing pretrained is in it"


def test_validation_that_chose_nothing_is_an_estimate_too(runs: tuple[Path, Path]) -> None:
    card = card_of(runs[1])
    assert row_of(card.text, "val")[:2] == ["val", "test"]
    assert "fitted to the validation images too" in card.text
    assert "fitted to the validation images too" not in card_of(runs[0]).text
    assert {result.dataset_split for result in card.data.eval_results or []} >= {"val", "test"}


def test_an_ensemble_has_its_own_scores_and_its_members(ensemble: Path) -> None:
    content = json.loads((ensemble / "ensemble.json").read_text())
    card, receipt = card_of(ensemble), content["receipt"]
    assert row_of(card.text, "test")[3] == f"{100 * receipt['ensemble']['test']['accuracy']:.1f} %"
    low, high = (100 * bound for bound in receipt["gain"]["ci95"])
    assert f"(95 % interval {low:+.1f} to {high:+.1f})" in card.text
    members = re.findall(r"^\| `(\d+)` \| (\w+) \|", card.text, re.MULTILINE)
    assert members == [("01", "test_resnet"), ("02", "test_resnet")]
    for member in content["members"]:
        assert row_of(card_of(ensemble / member).text, "test")


def test_no_card_tells_a_path_or_a_name_of_the_users(runs: tuple[Path, Path], ensemble: Path, secret: Path) -> None:
    cards = sorted(secret.rglob(README))
    assert len(cards) == 5
    images = {path.name for path in (secret / "secretimages").rglob("*.png")}
    for path in cards:
        text = path.read_text(encoding="utf-8")
        assert "secret" not in text
        assert str(Path.home()) not in text
        assert not any(name in text for name in images)


def test_equal_runs_write_equal_cards(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    again = quick(data, tmp_path / "again", epochs=2, keep_epoch="best")
    assert (Path(again.checkpoint) / README).read_bytes() == (runs[0] / README).read_bytes()


@pytest.mark.parametrize("kind", ["checkpoint", "ensemble"])
def test_its_code_opens_the_folder(
    kind: str, runs: tuple[Path, Path], ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"checkpoint": runs[0], "ensemble": ensemble}[kind]
    alone = runs[0] if kind == "checkpoint" else sorted((ensemble / "members").iterdir())[0]
    photo(60, 40).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    text = (folder / README).read_text()
    ours, timms, theirs = run_blocks(text, FOLDER=str(folder), MEMBER=str(alone))
    (together,) = tl_kit.load(folder).predict("photo.jpg")
    (single,) = tl_kit.load(alone).predict("photo.jpg")
    assert ours == [(together.label, together.probabilities)]
    assert timms[0][0] == pytest.approx(single.probabilities, abs=1e-5)
    assert {row["label"]: row["score"] for row in theirs[0][0]} == pytest.approx(single.probabilities, abs=1e-5)


@pytest.mark.parametrize("name", ["plain", "`", "a``b`", "`x` y", "line\nbreak", "a | b", "<script>", "---", "日本 🍎"])
def test_any_class_name_stays_code(name: str) -> None:
    """CommonMark: a code span ends at the next run of as many backticks as it began with."""
    text = code(name)
    fence = re.match("`+", text)
    assert fence is not None
    runs_inside = re.findall("`+", text[len(fence[0]) : -len(fence[0])])
    assert text.endswith(fence[0])
    assert fence[0] not in runs_inside
    assert "\n" not in text
    assert "|" not in text


def source(words: str, **options: str) -> dict[str, Any]:
    return {"weights": {"source": words}, "config": {"weights": "auto", **options}}


@pytest.mark.parametrize(
    ("record", "word", "base", "licence"),
    [
        (source("Hugging Face hub timm/test_resnet.r160_in1k"), "apache-2.0", "timm/test_resnet.r160_in1k", True),
        (source("Hugging Face cache a/b@main"), "apache-2.0", "a/b", True),
        (source("Hugging Face hub a/b", weights="hf-hub:a/b"), "unknown", "a/b", False),
        (source("local file /home/secret/w.pt", weights="/home/secret/w.pt"), "unknown", None, False),
        (source("cached download https://x.org/w.pth"), "apache-2.0", None, True),
        (source("random, from seed 0", weights="none"), "random weights", None, False),
        ({}, "unknown", None, False),
        ({"weights": 3, "config": [], "data": "x", "kinds": 1, "val": {"accuracy": "high"}}, "unknown", None, False),
    ],
    ids=str,
)
def test_origin_and_licence(record: dict[str, Any], word: str, base: str | None, licence: bool, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run", "test_resnet", **record)
    card = card_of(folder)
    assert word in card.text.partition("## Licence of the pretrained weights")[2].partition("## Use")[0]
    assert card.data.base_model == (None if base is None else [base])
    assert (card.data.license == "apache-2.0") is licence
    assert "secret" not in str(card)


def test_a_licence_that_the_hub_does_not_know_has_a_name_of_its_own(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run", **source("Hugging Face hub timm/x"))
    network = Network.read(folder, read_meta(folder))
    config = {**network.config, "pretrained_cfg": {**network.config["pretrained_cfg"], "license": "dinov3-license"}}
    data = ModelCard(checkpoint_readme(Network(config=config, meta=network.meta))).data
    assert (data.license, data.license_name) == ("other", "dinov3-license")


LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "precision": ({"precision": "bf16"}, "compute in fp32"),
    "decoder": ({"decoder": "nvjpeg"}, "decode with Pillow"),
    "deep": ({"ranges": {"uint16": [0, 4095]}}, "more than 8 bits a sample. Only tl-kit"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_other_programs_cannot_do_is_said(name: str, tmp_path: Path) -> None:
    record, words = LIMITS[name]
    assert words in card_of(write_checkpoint(tmp_path / "run", **record)).text
    assert words not in card_of(write_checkpoint(tmp_path / "plain")).text


def test_later_scores_take_the_place_of_those_on_the_same_split(runs: tuple[Path, Path]) -> None:
    network = Network.read(runs[0], read_meta(runs[0]))
    better = Score(split="test", kind="test", images=1000, figures={"accuracy": 0.5, "nll": 1.0})
    text = checkpoint_readme(network, further=[better])
    assert row_of(text, "test")[2:4] == ["1,000", "50.0 %"]
    assert row_of(text, "val")


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    assert not (write_checkpoint(tmp_path / "run", status="running") / README).exists()
    assert (write_checkpoint(tmp_path / "other", status="interrupted") / README).exists()


def test_a_folder_without_a_place_is_an_error_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TlKitError, match="free space"):
        write_checkpoint(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def folders_below(out: Path) -> list[Path]:
    """All checkpoints and ensembles."""
    return [folder for folder in out.rglob("*") if is_checkpoint(folder) or is_ensemble(folder)]


def test_every_way_of_writing_a_folder_writes_its_card(data: Path, tmp_path: Path) -> None:
    """Fits have theirs in tests/fitting."""
    one = {"epochs": 2, "batch_size": 12}
    quick(data, tmp_path / "run", snapshots=2, late=2, **one)
    tl_kit.cross_validate(quick_config(data, tmp_path / "folds", **one), folds=2)
    pair = tl_kit.finetune_members(quick_config(data, tmp_path / "pair", **one), members=2)
    for rule in ("mean", "soup", "concat"):
        config = EnsembleConfig(checkpoints=tuple(map(Path, pair.checkpoints)), out=tmp_path / rule, rule=rule)
        if rule != "soup":  # these began from different random weights
            tl_kit.ensemble(config)
    found = folders_below(tmp_path)
    assert len(found) == 1 + 4 + 2 + 2 + 2 * 3
    assert [folder for folder in found if not (folder / README).is_file()] == []


def test_an_average_of_weights_has_a_card(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    start = str(runs[0])
    members = [quick(data, tmp_path / str(seed), weights=start, epochs=1, seed=seed).checkpoint for seed in (1, 2)]
    options = {"checkpoints": tuple(map(Path, members)), "out": tmp_path / "soup", "rule": "soup"}
    made = Path(tl_kit.ensemble(EnsembleConfig(**options)).checkpoint)
    (member,) = (made / "members").iterdir()
    assert "weights of a file; their licence is unknown" in card_of(member).text
    assert row_of(card_of(made).text, "test")


FIGURES = {"accuracy": 0.5, "nll": 1.0}


@pytest.mark.parametrize(
    "record",
    [
        {"test": FIGURES, "kinds": {"test": "of a later version"}},
        {"test": FIGURES, "kinds": {"test": ["test"]}},
        {"test": FIGURES, "kinds": "test"},
        {"test": FIGURES, "data": {"images": {"test": 10**400}}},
        {"test": {"accuracy": 0.5, "nll": 10**400}},
        {"test": {"accuracy": "high"}},
        {"test": FIGURES, "chosen_by_val": 5},
        {"test": FIGURES, "chosen_by_val": [["rule"], None]},
        {"versions": {"tl_kit": "1\n\n## Heading"}, "precision": "bf16\n\n## Heading", "decoder": "a\n## Heading"},
        {"weights": {"source": "starter wheel\n\n## Heading"}},
    ],
)
def test_an_entry_that_tl_kit_would_not_write_counts_as_missing(record: dict[str, Any]) -> None:
    """Records may come from others, and their cards are written when they become members, or go up."""
    network = Network(config={"architecture": "resnet18"}, meta={"classes": list(CLASSES), **record})
    text = checkpoint_readme(network)
    assert text.count("\n## ") == 6
    known = isinstance(record.get("test"), dict) and record["test"]["accuracy"] == 0.5
    assert ("| test* | unknown |" in text) == known
    assert ("of a later version" in text) is False


@pytest.mark.parametrize(
    "receipt",
    [
        5,
        {"gain": 5},
        {"gain": {"accuracy": 0.1}},
        {"gain": {"accuracy": "x", "ci95": [0, 0.1]}},
        {"gain": {"accuracy": 0.1, "ci95": "ab"}},
        {"gain": {"accuracy": 10**400, "ci95": [0, 0.1]}},
        {"gain": {"accuracy": 0.1, "ci95": [0, 0.1, 0.2]}},
        {"ensemble": {"val": FIGURES}, "kinds": {"val": 5}, "images": {"val": True}, "chosen_by_val": "rule"},
    ],
)
def test_a_receipt_that_tl_kit_would_not_write_counts_as_missing(receipt: Any) -> None:
    network = Network(config={"architecture": "resnet18"}, meta={"classes": list(CLASSES)}, name="01")
    text = ensemble_readme({"classes": list(CLASSES), "receipt": receipt, "data": {"selected": 5}}, [network])
    assert "Gain over" not in text
    assert ("| val* | unknown | unknown |" in text) == ("ensemble" in receipt if isinstance(receipt, dict) else False)
