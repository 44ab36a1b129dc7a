"""The report: every figure is that of the file it names, and whatever the names hold, the page stays as it is."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

import tl_kit
from tests.browsers import grave_faults
from tests.cli.helpers import tlkit
from tests.helpers import quick
from tests.report_page.conftest import HOSTILE
from tests.report_page.parsed_pages import Page, read
from tl_kit.config import HeadConfig, ReportLimits
from tl_kit.diagnosis.examine import Report
from tl_kit.errors import CheckpointError, ConfigError, DataError
from tl_kit.report_page.page import ReportResult


@pytest.fixture(scope="module")
def made(run: Path, ensemble: Path, folds: Path) -> dict[str, tuple[ReportResult, Page]]:
    found = {name: tl_kit.report(folder) for name, folder in (("run", run), ("ensemble", ensemble), ("folds", folds))}
    return {name: (result, read(result.file)) for name, result in found.items()}


KINDS = ("run", "ensemble", "folds")


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_that_of_the_file_that_it_names(kind: str, made: dict[str, tuple[ReportResult, Page]]) -> None:
    result, page = made[kind]
    assert len(page.figures) > 30
    files = {source.partition("#")[0] for source, _, _ in page.figures}
    assert {"run": "tlkit.json", "ensemble": "ensemble.json", "folds": "folds.json"}[kind] in files
    for source, value, shown in page.figures:
        name, _, pointer = source.partition("#/")
        entry = page.computed if name == "report" else json.loads((result.file.parent / name).read_text())
        for step in pointer.split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            entry = entry[int(step)] if isinstance(entry, list) else entry[step]
        assert float(value) == entry, source
        assert says(shown, float(entry)), (source, shown, entry)


def says(shown: str, value: float) -> bool:
    """Whether a text is the value, as exactly as its digits say."""
    number, _, unit = shown.replace("\u00a0", " ").replace(",", "").partition(" ")
    factor = {"%": 100, "min": 1 / 60, "h": 1 / 3600}.get(unit, 1)
    digits = len(number.partition(".")[2])
    near = [abs(float(number) - scale * value) <= 0.500001 * 10**-digits for scale in (factor, 100)]
    return near[0] or (number[0] in "+-" and near[1])


@pytest.mark.parametrize("kind", ["run", "ensemble"])
def test_what_it_computes_is_what_evaluate_says(
    kind: str, made: dict[str, tuple[ReportResult, Page]], data: Path
) -> None:
    result, page = made[kind]
    expected = tl_kit.evaluate(result.file.parent, data)
    computed = page.computed
    assert (computed["split"], computed["kind"]) == (expected.split, expected.kind) == ("test", "test")
    assert computed["scores"] == pytest.approx(expected.metrics)
    assert computed["confusion"] == expected.confusion
    for row in computed["per_class"]:
        there = expected.per_class[row["name"]]
        assert (row["recall"], row["precision"], row["f1"], row["support"]) == pytest.approx(
            (there["recall"], there["precision"], there["f1"], there["support"])
        )


def test_folds_are_scored_as_their_file_says(made: dict[str, tuple[ReportResult, Page]]) -> None:
    result, page = made["folds"]
    record = json.loads((result.file.parent / "folds.json").read_text())
    assert page.computed["scores"] == pytest.approx(record["out_of_fold"])
    assert page.computed["kind"] == "out of fold"
    assert f"Probably mislabelled: {record['suspects']}" in page.text


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_text_everywhere(kind: str, made: dict[str, tuple[ReportResult, Page]]) -> None:
    result, page = made[kind]
    source = result.file.read_text(encoding="utf-8")
    assert len(page.all("script")) == 2
    assert len(page.all("img")) == result.pictures > 0
    assert not page.all("b")
    for name in HOSTILE.values():
        assert name in page.text
    assert "49 ünï" not in page.text
    assert "\u202e" not in source, "a character that turns the line around"
    assert "alert(1)" not in "".join(page.scripts[1:])
    assert not [key for _, values in page.found for key in values if key.startswith("on")]
    addresses = [values.get(key) or "" for _, values in page.found for key in ("src", "href") if key in values]
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in addresses)


def test_the_page_may_run_its_own_script_alone(made: dict[str, tuple[ReportResult, Page]]) -> None:
    page = made["run"][1]
    (policy,) = [each["content"] or "" for each in page.all("meta") if each.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts[1:]).encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy.partition("script-src")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_headings_tables_and_pictures_are_named(kind: str, made: dict[str, tuple[ReportResult, Page]]) -> None:
    page = made[kind][1]
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(values.get("alt") for values in page.all("img"))
    assert all(values.get("aria-label") for values in page.all("svg"))
    assert all(values.get("scope") for values in page.all("th"))
    identities = [values["id"] for _, values in page.found if "id" in values]
    assert len(identities) == len(set(identities))
    assert {(values["href"] or "")[1:] for values in page.all("a")} <= set(identities)


def thumbnails(page: Page) -> Iterator[Image.Image]:
    for values in page.all("img"):
        yield Image.open(io.BytesIO(base64.b64decode((values["src"] or "").partition(",")[2])))


def test_thumbnails_are_small_and_carry_nothing(made: dict[str, tuple[ReportResult, Page]]) -> None:
    for image in thumbnails(made["ensemble"][1]):
        assert max(image.size) <= ReportLimits.side
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_without_images_no_picture_and_no_name_of_a_file(run: Path, tmp_path: Path) -> None:
    result = tl_kit.report(run, out=tmp_path / "bare.html", images=False)
    page = read(result.file)
    assert result.pictures == 0
    assert not page.all("img")
    assert ".jpg" not in result.file.read_text()
    assert page.computed["confusion"]
    assert "Left out files: 1" in page.text


def test_the_numbers_of_images_and_bytes_are_kept(ensemble: Path, tmp_path: Path) -> None:
    limits = replace(ReportLimits(), shown=1, of_pair=1, pairs=1, image_bytes=6_000, deleted=2)
    page = read(tl_kit.report(ensemble, out=tmp_path / "small.html", limits=limits).file)
    assert sum(len(values["src"] or "") for values in page.all("img")) <= limits.image_bytes
    assert "pictures are left out" in page.text
    assert re.search(r"\d+ more are not shown", page.text)


def changed(folder: Path, to: Path, **entries: Any) -> Path:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("report.html"))
    record = json.loads((to / "tlkit.json").read_text())
    (to / "tlkit.json").write_text(json.dumps({**record, **entries}))
    return to


def test_a_score_that_selected_is_no_estimate(run: Path, data: Path, tmp_path: Path) -> None:
    kinds = {"val": "selected on"}
    folder = changed(run, tmp_path / "run", test=None, kinds=kinds, chosen_by_val=["epoch"])
    result = tl_kit.report(folder, images=False)
    page = read(result.file)
    assert "validation images are classified right" in result.sentence
    assert "they chose the best epoch, so this is too good as an estimate for new images" in result.sentence
    assert "kind doubt" in [values.get("class") for values in page.all("p")]
    assert "Measure on images that the model has not seen" in page.text


def test_images_that_are_gone_leave_a_page_without_any(run: Path, data: Path, tmp_path: Path) -> None:
    record = json.loads((run / "tlkit.json").read_text())
    gone = {**record["data"], "root": str(tmp_path / "<gone>")}
    folder = changed(run, tmp_path / "run", data=gone)
    result = tl_kit.report(folder)
    page = read(result.file)
    assert result.pictures == 0
    assert "were not found" in page.text
    assert not page.all("gone")
    assert page.computed.keys() == {"headline_interval"}
    assert tl_kit.report(folder, data=data).pictures > 0
    assert "gone" not in tl_kit.report(folder, images=False, out=tmp_path / "bare.html").file.read_text()


def test_what_cannot_be_done_is_one_line(run: Path, folds: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        tl_kit.report(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no result"):
        tl_kit.report(data)
    with pytest.raises(ConfigError, match="is a folder"):
        tl_kit.report(run, out=tmp_path)
    with pytest.raises(ConfigError, match="its folder does not exist"):
        tl_kit.report(run, out=tmp_path / "a" / "b.html")
    with pytest.raises(DataError, match="nowhere"):
        tl_kit.report(run, data=tmp_path / "nowhere")
    broken = tmp_path / "folds"
    shutil.copytree(folds, broken)
    (broken / "out_of_fold.csv").write_text("path,label,predicted,fold\n1,2,3,4\n")
    with pytest.raises(CheckpointError, match="line 2 is broken"):
        tl_kit.report(broken)


def test_the_command_writes_the_page_and_says_so(run: Path, tmp_path: Path) -> None:
    done = tlkit("report", run, "--no-images", "--out", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert "test images are classified right" in done.out
    assert str(tmp_path / "page.html") in done.out
    found = tlkit("report", run, "--no-images", "--out", tmp_path / "page.html", "--json").json
    assert (found["file"], found["pictures"]) == (str(tmp_path / "page.html"), 0)
    assert tlkit("report", tmp_path / "nothing").code == 2


def test_a_run_ends_with_its_report(data: Path, tmp_path: Path) -> None:
    short = ("--weights", "none", "--img-size", 32, "--policy", "head", "--out", tmp_path / "run", "--report")
    done = tlkit("finetune", "test_resnet", "--data", data, *short)
    assert done.code == 0, done.err
    page = read(tmp_path / "run" / "report.html")
    assert page.figures
    assert "images, as the run predicted them;" in page.text
    both = ("ensemble", tmp_path / "run", tmp_path / "run", "--out", tmp_path / "both", "--report")
    assert tlkit(*both).code == 0
    assert "images, as the run predicted them;" in read(tmp_path / "both" / "report.html").text
    refused = tlkit("finetune", "test_resnet", "--data", data, "--members", 2, "--report")
    assert refused.code == 2
    assert "--report" in refused.err


def test_what_was_just_scored_is_not_predicted_again(data: Path, tmp_path: Path, plain_pictures: None) -> None:
    with tl_kit.keeping_outputs():
        one = quick(data, tmp_path / "one", epochs=1).checkpoint
        two = quick(data, tmp_path / "two", policy="head", epochs=None).checkpoint
        config = tl_kit.EnsembleConfig(checkpoints=(Path(one), Path(two)), out=tmp_path / "both")
        both = tl_kit.ensemble(config).checkpoint
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr("tl_kit.inference.predictor.Predictor.member_probabilities")
            kept = {
                folder: tl_kit.report(folder, out=tmp_path / "kept.html") and read(tmp_path / "kept.html")
                for folder in (one, two, both)
            }
    for folder, page in kept.items():
        record = json.loads((Path(folder) / ("ensemble.json" if folder == both else "tlkit.json")).read_text())
        assert page.computed["scores"] == (record["receipt"]["ensemble"] if folder == both else record)["test"]
        assert "test images, as the run predicted them;" in page.text
        anew = read(tl_kit.report(folder, out=tmp_path / "anew.html").file)
        assert "test images, predicted anew for this report;" in anew.text
        assert anew.computed["confusion"] == page.computed["confusion"]
        for name in ("scores", "trial_scores") if folder != both else ("scores",):
            assert anew.computed[name] == pytest.approx(page.computed[name], rel=1e-5)


def test_test_images_that_are_in_val_too_are_scored_by_the_head_without_them(tmp_path: Path) -> None:
    rng, data = np.random.default_rng(0), tmp_path / "data"
    for name in "ab":
        for split, images in (("train", 12), ("val", 12), ("test", 2)):
            (data / split / name).mkdir(parents=True)
            for number in range(images):
                noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).save(data / split / name / f"{number}.png")
        for number in range(12):
            shutil.copy(data / "val" / name / f"{number}.png", data / "test" / name / f"copy {number}.png")
    with tl_kit.keeping_outputs():
        more: dict[str, Any] = {"policy": "head", "epochs": None, "allow": ("split-leak",), "head": HeadConfig(c=1e4)}
        made = quick(data, tmp_path / "run", **more)
        kept = read(tl_kit.report(made.checkpoint, images=False, out=tmp_path / "kept.html").file)
    anew = read(tl_kit.report(made.checkpoint, images=False, out=tmp_path / "anew.html").file)
    assert made.refit
    assert made.test is not None
    assert "as the run predicted them" in kept.text
    assert "predicted anew" in anew.text
    assert kept.computed["scores"] == made.test
    assert anew.computed["scores"] == pytest.approx(made.test, rel=1e-5)
    assert anew.computed["trial_scores"] == pytest.approx(kept.computed["trial_scores"], rel=1e-5)
    assert made.test["accuracy"] < 0.9, "random labels, which the final head has learnt"


def test_an_old_record_takes_the_kind_of_the_images_as_they_are_scored(run: Path, tmp_path: Path) -> None:
    folder = changed(run, tmp_path / "run", kinds={})
    made = tl_kit.report(folder, images=False)
    assert "an estimate for new images like these" in made.sentence
    text = read(made.file).text
    assert "not recorded whether" not in text
    assert "Measure on images that the model has not seen" not in text


def test_other_images_are_told_from_those_of_the_run(run: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for folder in data.iterdir():
        shutil.copytree(folder, other / folder.name)
    assert "of --data" not in read(tl_kit.report(run, data=other, images=False, out=tmp_path / "moved.html").file).text
    for folder in sorted(other.iterdir())[1:]:
        for file in sorted(folder.iterdir())[2:]:
            file.unlink()
    made = tl_kit.report(run, data=other, images=False, out=tmp_path / "other.html")
    assert "images of the run are classified right" in made.sentence
    text = " ".join(read(made.file).text.split())
    assert re.search(r"What follows is of the \d+ test images of --data", text)
    assert "Of the images of --data: " in text
    shutil.rmtree(sorted(other.iterdir())[0])
    made = tl_kit.report(run, data=other, images=False, out=tmp_path / "lacking.html")
    assert "no image among them" not in made.sentence  # the sentence is of the run's own images
    assert "Score images of " in read(made.file).text


def test_the_epochs_chart_says_best_only_where_one_was_chosen(run: Path, tmp_path: Path) -> None:
    texts = {}
    for name, chosen in (("chosen", {"chosen_by_val": ["epoch"]}), ("not", {"chosen_by_val": ["C"]})):
        folder = changed(run, tmp_path / name, **chosen)
        texts[name] = read(tl_kit.report(folder, images=False, out=tmp_path / f"{name}.html").file).text
    assert "The best of several epochs" in texts["chosen"]
    assert "No epoch was chosen by these figures." in texts["not"]
    assert "The best of several epochs" not in texts["not"]


def test_a_cross_validated_head_and_a_network_of_another_epoch_are_told(run: Path, tmp_path: Path) -> None:
    rows = {name: {"accuracy": 0.5, "nll": 1.0} for name in ("trained", "head")}
    guard = {"kept": "head", "compared": rows, "out_of_fold": True}
    page = read(tl_kit.report(changed(run, tmp_path / "run", guard=guard), images=False, out=tmp_path / "a.html").file)
    for text in ("head, cross-validated", "The head's are cross-validated: each fold", "best epoch of the training"):
        assert text in page.text
    plain = read(tl_kit.report(run, images=False, out=tmp_path / "b.html").file)
    assert "cross-validated: each fold" not in plain.text
    assert "epoch kept" in plain.text


def test_scores_that_selected_are_marked_wherever_they_stand(run: Path, ensemble: Path, tmp_path: Path) -> None:
    folder = changed(run, tmp_path / "run", kinds={"val": "selected on", "test": "test"}, chosen_by_val=["epoch"])
    text = " ".join(read(tl_kit.report(folder, images=False).file).text.split())
    assert re.search(r"val\* ?selected on", text)
    assert not re.search(r"test\* ?test", text)
    assert "* val (selected on): these images chose the best epoch, so that the figure is too good" in text
    record = json.loads((ensemble / "ensemble.json").read_text())["receipt"]
    page = read(tl_kit.report(ensemble, images=False, out=tmp_path / "ensemble.html").file)
    mark = "*" if record["kinds"]["test"] != "test" else ""
    assert f"test{mark} accuracy" in page.text


def test_the_doctor_looks_at_the_splits_of_the_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((run / "tlkit.json").read_text())["config"]
    folder = changed(run, tmp_path / "run", config={**config, "split": {**config["split"], "split_seed": 7}})
    asked = []
    monkeypatch.setattr(
        "tl_kit.report_page.page.doctor", lambda data, **how: asked.append(how["split"]) or Report(data, None, ())
    )
    tl_kit.report(folder, images=False)
    assert [split.split_seed for split in asked] == [7]


def test_of_folds_no_copies_across_splits_are_told(made: dict[str, tuple[ReportResult, Page]]) -> None:
    assert "Near copies across splits" in made["run"][1].text
    assert "Near copies across splits" not in made["folds"][1].text


def test_what_is_not_shown_is_not_told(run: Path, tmp_path: Path) -> None:
    page = read(tl_kit.report(run, images=False, out=tmp_path / "page.html").file)
    assert "No map is shown." in page.text
    assert "Beside each image" not in page.text
    many = replace(ReportLimits(), examined=1)
    page = read(tl_kit.report(run, out=tmp_path / "page.html", limits=many).file)
    assert "Near copies across splits: 0" not in page.text
    assert page.text.count("The doctor was not asked about so many images") == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_a_browser_shows_it_without_a_grave_fault(
    browser: Browser, kind: str, scheme: Any, width: int, made: dict[str, tuple[ReportResult, Page]]
) -> None:
    """No other script than its own runs, nothing is asked for, no width scrolls sideways, axe-core finds nothing."""
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page, said, asked = context.new_page(), list[str](), list[str]()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(made[kind][0].file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for details in page.locator("summary").all():
            details.click()
        assert grave_faults(page) == []
        images = page.locator("figure.tile:visible").count()
        page.locator("#filter input").fill("no such class")
        expect(page.locator("#filter output")).to_have_text(f"0 of {images} images shown")
        head = page.locator("#classes th button").first
        head.click()
        head.click()
        names = page.locator("#classes tbody th").all_inner_texts()
        assert names == sorted(names, key=str.lower, reverse=True)
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
