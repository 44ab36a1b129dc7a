"""``push`` against a stand-in for the hub: what goes up, what does not, and that it opens again from there."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import HfApi, ModelCard, constants, snapshot_download
from transformers import pipeline

import tl_kit
from tests.cli.helpers import tlkit
from tests.exporting.checkpoints import CLASSES, photo, run_blocks, write_checkpoint
from tests.exporting.hub_server import Hub, Repository
from tests.helpers import quick, write_images
from tl_kit import EnsembleConfig, PushConfig, TlKitError
from tl_kit.errors import CheckpointError, ConfigError, PublishError
from tl_kit.storage.fit_folder import write_fit
from tl_kit.zoo import hub as client

REPOSITORY = "someone/fruit"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name must not be told."""
    return tmp_path_factory.mktemp("secretplace")


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    folder = write_images(place / "secretimages", images=15)
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        file.rename(file.with_name(f"secretphoto{number}.png"))
    return folder


@pytest.fixture(scope="module")
def start(data: Path, place: Path) -> Path:
    """Weights from which other runs begin: their records name its path."""
    return Path(quick(data, place / "secretstart", epochs=1).checkpoint)


@pytest.fixture(scope="module")
def run(data: Path, place: Path, start: Path) -> Path:
    """With a head that was fitted to validation images too, and its curves."""
    done = quick(data, place / "secretrun", policy="head", epochs=None, weights=str(start), model=f"local-dir:{start}")
    assert done.refit
    return Path(done.checkpoint)


@pytest.fixture(scope="module")
def ensemble(run: Path, data: Path, place: Path) -> Path:
    other = quick(data, place / "secretother", epochs=2, plot=True)
    members = (run, Path(other.checkpoint))
    return Path(
        tl_kit.ensemble(EnsembleConfig(checkpoints=members, out=place / "secretboth", rule="weighted")).checkpoint
    )


def push(folder: Path, **options: Any) -> tl_kit.PushResult:
    return tl_kit.push(PushConfig(checkpoint=folder, repository=REPOSITORY, **options))


def secrets(place: Path, data: Path) -> list[bytes]:
    """What no byte of an upload may hold: paths and names of this machine and of the user, and digests of images."""
    words = ["secret", str(place), str(Path.home()), str(Path.cwd()), socket.gethostname()]
    words += [path.name for path in data.rglob("*.png")]
    if len(getpass.getuser()) > 4:
        words.append(getpass.getuser())
    records = [json.loads(path.read_text()) for path in place.rglob("tlkit.json")]
    for record in records:
        words += [*record["data"]["train"], *record["data"]["val"]]
    return [word.encode() for word in words if len(word) > 4]


@pytest.mark.parametrize("kind", ["checkpoint", "ensemble"])
def test_no_path_name_or_digest_leaves_the_machine(
    kind: str, run: Path, ensemble: Path, place: Path, data: Path, hub: Hub
) -> None:
    folder = {"checkpoint": run, "ensemble": ensemble}[kind]
    record = (run / "tlkit.json").read_text()
    assert all(word in record for word in ("secretimages", "secretstart", "secretrun")), "there is what to hide"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = push(folder)
    uploaded = hub.repositories[REPOSITORY].files
    assert set(uploaded) == set(result.files)
    assert {path: len(content) for path, content in uploaded.items()} == result.files
    for word in secrets(place, data):
        assert not [path for path, content in uploaded.items() if word in content], word
        assert not [body for body in hub.received if word in body], word
        assert word not in json.dumps(list(uploaded)).encode()
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before, "the folder is as it was"


@pytest.mark.parametrize("kind", ["checkpoint", "ensemble"])
def test_it_opens_from_the_hub_and_predicts_the_same(
    kind: str, run: Path, ensemble: Path, hub: Hub, tmp_path: Path
) -> None:
    folder = {"checkpoint": run, "ensemble": ensemble}[kind]
    push(folder)
    photo(60, 40).save(tmp_path / "photo.jpg")
    copy = Path(snapshot_download(REPOSITORY))
    (ours,) = tl_kit.load(folder).predict(tmp_path / "photo.jpg")
    (theirs,) = tl_kit.load(copy).predict(tmp_path / "photo.jpg")
    assert theirs == ours
    if kind == "checkpoint":
        model = timm.create_model(f"hf-hub:{REPOSITORY}", pretrained=True).eval()
        with torch.inference_mode():
            pixels = torch.rand(1, 3, 32, 32)
            assert torch.equal(model(pixels), tl_kit.load(folder).members[0].model(pixels))
        found = pipeline("image-classification", str(copy))(str(tmp_path / "photo.jpg"), top_k=None)
        assert {row["label"]: row["score"] for row in found} == pytest.approx(ours.probabilities, abs=1e-5)


@pytest.mark.parametrize("kind", ["checkpoint", "ensemble"])
def test_the_code_in_its_card_opens_it_from_the_hub(
    kind: str, run: Path, ensemble: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"checkpoint": run, "ensemble": ensemble}[kind]
    push(folder)
    photo(60, 40).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    ours, timms, theirs = run_blocks(hub.repositories[REPOSITORY].files["README.md"].decode())
    (together,) = tl_kit.load(folder).predict("photo.jpg")
    (single,) = tl_kit.load(run).predict("photo.jpg")
    assert ours == [(together.label, together.probabilities)]
    assert timms[0][0] == pytest.approx(single.probabilities, abs=1e-5)
    assert {row["label"]: row["score"] for row in theirs[0][0]} == pytest.approx(single.probabilities, abs=1e-5)


def test_the_records_keep_the_scores_and_say_that_images_are_unknown(run: Path, hub: Hub, data: Path) -> None:
    push(run)
    copy, own = Path(snapshot_download(REPOSITORY)), json.loads((run / "tlkit.json").read_text())
    record = json.loads((copy / "tlkit.json").read_text())
    for name in ("val", "test", "kinds", "classes", "precision", "cross_validated"):
        assert record[name] == own[name]
    assert record["data"] == {"images": own["data"]["images"]}
    assert tl_kit.evaluate(run, data, split="test").kind == "test"
    assert tl_kit.evaluate(copy, data, split="test").kind == "unknown"
    assert not (copy / "held-out-head.safetensors").exists()


def test_a_published_ensemble_has_its_receipt_and_its_members(ensemble: Path, hub: Hub) -> None:
    result = push(ensemble)
    repository = hub.repositories[REPOSITORY]
    content = json.loads(repository.files["ensemble.json"])
    assert content["members"] == ["members/01-test_resnet", "members/02-test_resnet"]
    own = json.loads((ensemble / "ensemble.json").read_text())
    assert content["receipt"]["ensemble"] == own["receipt"]["ensemble"]
    assert content["receipt"]["gain"] == own["receipt"]["gain"]
    assert (content["rule"], content["parameters"]) == (own["rule"], own["parameters"])
    assert not any(path.endswith((".png", ".jsonl")) for path in repository.files)
    assert any("receipt.png" in line for line in result.left_out)
    assert "members/01-test_resnet" in ModelCard(repository.files["README.md"].decode()).text


def test_private_unless_told(run: Path, hub: Hub) -> None:
    result = push(run)
    assert hub.repositories[REPOSITORY].private
    assert result.private
    assert result.url == f"{hub.address}/{REPOSITORY}"
    hub.repositories.clear()
    assert not push(run, public=True).private
    assert not hub.repositories[REPOSITORY].private


@pytest.mark.parametrize("public", [True, False])
def test_a_repository_of_another_visibility_is_refused(public: bool, run: Path, hub: Hub) -> None:
    hub.repositories[REPOSITORY] = Repository(private=public)
    with pytest.raises(PublishError, match=r"is (public|private) already; (add|leave) --public"):
        push(run, public=public)
    assert hub.repositories[REPOSITORY].files == {}


def test_a_dry_run_says_what_goes_up_and_asks_nobody(ensemble: Path, hub: Hub) -> None:
    dry = push(ensemble, dry_run=True)
    assert dry.url is None
    assert hub.requests == []
    assert push(ensemble).files == dry.files


def test_the_result_of_a_fit_goes_up_and_the_rest_is_named(run: Path, hub: Hub, tmp_path: Path) -> None:
    fit = tmp_path / "fit"
    shutil.copytree(run, fit / "best-1")
    (fit / "runs" / "a").mkdir(parents=True)
    (fit / "leaderboard.csv").touch()
    write_fit(fit, {"best": "best-1"})
    result = push(fit, dry_run=True)
    assert result.files.keys() == push(run, dry_run=True).files.keys()
    (line,) = [line for line in result.left_out if "the fit" in line]
    assert line == "what else the fit wrote: fit.json, leaderboard.csv, runs; its best result alone goes up"
    assert hub.requests == []
    shown = tlkit("push", fit, REPOSITORY, "--dry-run")
    assert f"not sent: {line}" in shown.out


def test_a_second_push_replaces_the_first(run: Path, ensemble: Path, hub: Hub) -> None:
    push(ensemble)
    hub.repositories[REPOSITORY].files["notes.txt"] = b"of the user's"
    push(run)
    assert set(hub.repositories[REPOSITORY].files) == {
        *("README.md", "config.json", "tlkit.json", "model.safetensors", "notes.txt")
    }, "an ensemble's files are gone, so that the folder is what was pushed last"
    copy = Path(snapshot_download(REPOSITORY))
    assert len(tl_kit.load(copy).members) == 1


def test_the_same_folder_makes_the_same_bytes(ensemble: Path, hub: Hub) -> None:
    push(ensemble)
    first = dict(hub.repositories.pop(REPOSITORY).files)
    push(ensemble)
    assert hub.repositories[REPOSITORY].files == first


def test_a_checkpoint_of_an_earlier_version_is_published_as_transformers_reads_it(hub: Hub, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "old", data={"root": "/home/secret", "train": ["0" * 16], "val": []})
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["num_classes"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").unlink()
    push(folder)
    photo(40, 40).save(tmp_path / "photo.png")
    found = pipeline("image-classification", snapshot_download(REPOSITORY))(str(tmp_path / "photo.png"), top_k=None)
    assert {row["label"] for row in found} == set(CLASSES)


@pytest.mark.parametrize("name", ["fruit", "a/b/c", "a/b@main", "", "a/../b", "hf-hub:a/b"])
def test_an_impossible_name_is_refused_before_anything(name: str, run: Path, hub: Hub) -> None:
    with pytest.raises(ConfigError, match="write OWNER/NAME"):
        tl_kit.push(PushConfig(checkpoint=run, repository=name))
    assert hub.requests == []


@pytest.mark.parametrize("name", ["a/b.git", "a/-b", "a/b--c", f"a/{'b' * 100}"])
def test_a_name_that_the_hub_refuses_is_refused_here_in_a_line(name: str, run: Path, hub: Hub) -> None:
    with pytest.raises(ConfigError, match=r"is no name for a repository: .") as refusal:
        tl_kit.push(PushConfig(checkpoint=run, repository=name, dry_run=True))
    assert "\n" not in str(refusal.value)
    assert hub.requests == []


def test_without_a_login_it_says_what_to_do(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(PublishError, match="hf auth login"):
        push(run)
    assert hub.repositories == {}


def test_without_a_network_it_stops_in_a_line(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_TIMEOUT", 0.3)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(PublishError, match=r"cannot be reached.*--dry-run needs no network") as caught:
            push(run)
    assert "\n" not in str(caught.value)


def test_a_hub_that_fails_midway_is_an_error_of_a_line(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ConnectionResetError("the connection broke")

    monkeypatch.setattr(HfApi, "create_commit", broken)
    with pytest.raises(PublishError, match=r"the upload failed \(the connection broke"):
        push(run)


def test_only_what_opens_goes_up(run: Path, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        push(tmp_path / "nothing")
    folder = write_checkpoint(tmp_path / "running")
    record = json.loads((folder / "tlkit.json").read_text())
    (folder / "tlkit.json").write_text(json.dumps({**record, "status": "running"}))
    with pytest.raises(PublishError, match="has not ended"):
        push(folder)
    noted = write_checkpoint(tmp_path / "noted")
    tensors = safetensors.torch.load_file(noted / "model.safetensors")
    safetensors.torch.save_file(tensors, noted / "model.safetensors", metadata={"from": "/home/secret"})
    with pytest.raises(PublishError, match="notes of another program"):
        push(noted)
    (noted / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(TlKitError, match=r"model\.safetensors"):
        push(noted)
    assert hub.requests == []


def test_the_command_shows_what_it_sends(ensemble: Path, hub: Hub) -> None:
    dry = tlkit("push", ensemble, REPOSITORY, "--dry-run")
    assert dry.code == 0, dry.err
    for path, size in push(ensemble, dry_run=True).files.items():
        assert any(path in line and f"{size:,}" in line for line in dry.out.splitlines())
    assert "nothing was sent" in dry.out
    sent = tlkit("push", ensemble, REPOSITORY, "--public", "--json")
    assert sent.json["url"] == f"{hub.address}/{REPOSITORY}"
    assert sent.json["private"] is False
    refused = tlkit("push", ensemble, REPOSITORY)
    assert refused.code == 2
    assert "add --public" in refused.err
    assert refused.err.strip().count("\n") <= 1
