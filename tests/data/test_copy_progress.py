"""Local copies show how far they are, and leave nothing behind when they are interrupted."""

from __future__ import annotations

import http.server
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import fsspec
import pytest

from tests.cli.helpers import tlkit
from tests.data.images import write_classes
from tests.data.packing import FORMS, class_folders, zipped
from tests.data.scans import row_by_row
from tl_kit.data.forms import local_copies, remote
from tl_kit.data.forms.local_copies import Megabytes, copies
from tl_kit.data.scan import scan
from tl_kit.errors import DataError
from tl_kit.reporting import UNKNOWN


class Stages:
    """A Reporter that keeps the stages with their totals and their steps; ``stop``: Ctrl-C in the first step."""

    def __init__(self, *, stop: bool = False) -> None:
        self.found: list[tuple[str, int, int]] = []
        self._stop = stop

    def message(self, text: str) -> None: ...

    def epoch(self, row: object) -> None: ...

    def start(self, stage: str, total: int) -> None:
        self.found.append((stage, total, 0))

    def advance(self, steps: int = 1, **figures: float) -> None:
        if self._stop:
            raise KeyboardInterrupt
        stage, total, done = self.found[-1]
        self.found[-1] = stage, total, done + steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("progress") / "imgs", {"a": 6, "b": 6})


@pytest.fixture(autouse=True)
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_copies, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "data"


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/progress/imgs", recursive=True)
    yield "memory://progress/imgs"
    store.rm("/progress", recursive=True)


STAGES = {
    "set.zip": [("unpack", 12, 12)],
    "set.tar.gz": [("unpack", UNKNOWN, 12)],
    "shard.tar": [("unpack", UNKNOWN, 24)],
    "structs.parquet": [("read table", 12, 12)],
    "saved": [("read table", 12, 12)],
    "imgs": [],
}


@pytest.mark.parametrize("name", STAGES)
def test_a_copy_is_shown_while_it_is_made(name: str, folder: Path) -> None:
    place = folder.parent / name
    if not place.exists():
        FORMS[name](place, folder)
    stages = Stages()
    scan(place, reporter=stages)
    assert stages.found == STAGES[name]
    again = Stages()
    scan(place, reporter=again)
    assert again.found == [], "it is there already"


def test_a_download_is_counted_in_megabytes(address: str) -> None:
    stages = Stages()
    scan(Path(address), reporter=stages)
    assert [stage for stage in stages.found if stage[0] == "download"] == [("download", 1, 1)]
    stages = Stages()
    megabytes = Megabytes(stages, "download", 2_500_000)
    for _ in range(5):
        megabytes.add(450_000)
    assert stages.found == [("download", 3, 2)]
    megabytes.finish()
    assert stages.found == [("download", 3, 3)]
    unknown = Megabytes(stages, "download", 0)
    unknown.add(3_100_000)
    unknown.finish()
    assert stages.found[-1] == ("download", UNKNOWN, 4)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "structs.parquet", "saved", "address"])
def test_an_interrupted_copy_leaves_nothing(name: str, folder: Path, address: str, own_copies: Path) -> None:
    place = Path(address) if name == "address" else folder.parent / name
    if name in FORMS and not place.exists():
        FORMS[name](place, folder)
    with pytest.raises(KeyboardInterrupt):
        scan(place, reporter=Stages(stop=True))
    assert list(own_copies.glob("*")) == []
    assert row_by_row(scan(place)) == row_by_row(scan(folder))
    assert len(copies()) == 1


def test_commands_name_what_a_copy_counts(folder: Path, tmp_path: Path) -> None:
    file = zipped(tmp_path / "x.zip", class_folders(folder))
    found = tlkit("doctor", "--data", file, "--json")
    assert found.err.splitlines()[0].startswith("unpack: 12 files in ")
    assert found.out.startswith("{")


class Cut(http.server.SimpleHTTPRequestHandler):
    """A server that promises a file and closes the connection in the middle, of ``slow.zip`` after a second."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if self.path == "/slow.zip":
            time.sleep(1.0)
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    for name in ("web.zip", "slow.zip"):
        zipped(folder.parent / name, class_folders(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Cut, directory=str(folder.parent))) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()
        thread.join()


def test_a_lost_connection_is_a_line_and_leaves_nothing(server: str, own_copies: Path) -> None:
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:\d+/web\.zip: .*cannot be read \(.+\)$"):
        scan(Path(f"{server}/web.zip"))
    assert list(own_copies.glob("*")) == []
    with pytest.raises(DataError, match=r"/none\.zip: cannot be read \(nothing is there, or nothing answers\)$"):
        scan(Path(f"{server}/none.zip"))


def test_a_silent_server_is_not_waited_for(server: str, own_copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 0.2)
    (patience,) = remote._patience()["client_kwargs"].values()
    assert patience == aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=0.2), "large files take long"
    with pytest.raises(DataError, match=r"/slow\.zip: .*cannot be read \(.*[Tt]ime.*\)$"):
        scan(Path(f"{server}/slow.zip"))
    assert list(own_copies.glob("*")) == []


def test_a_file_that_ends_early_is_no_copy(address: str, own_copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every store tells that a connection was lost."""
    files = remote._files
    monkeypatch.setattr(
        remote,
        "_files",
        lambda store, root: [(path, {**facts, "size": facts["size"] + 9}) for path, facts in files(store, root)],
    )
    with pytest.raises(DataError, match=r"a/0\.png: ended after \d+ of \d+ bytes; try again$"):
        scan(Path(address))
    assert list(own_copies.glob("*")) == []


class Bucket:
    """A store in which an empty object stands for each folder, as consoles of web stores make them."""

    protocol = "s3"

    def info(self, path: str) -> dict[str, str]:
        return {"type": "directory"}

    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, object]]:
        names = ("b/imgs/", "b/imgs/a/", "b/imgs/a/1.png", "b/imgs/.hidden/2.png")
        return {name: {"type": "file", "size": 0} for name in names}


def test_objects_that_stand_for_folders_are_no_files() -> None:
    assert [path for path, _ in remote._files(Bucket(), "b/imgs")] == ["b/imgs/a/1.png"]


def test_a_store_writes_no_tracebacks_of_its_own() -> None:
    logger = logging.getLogger("some_store")
    for _ in range(2):
        remote._hush("some_store")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert logger.propagate, "whoever set up logging still sees them"


def test_a_missing_login_has_a_remedy() -> None:
    for error in (PermissionError("Forbidden"), RuntimeError("Unable to locate credentials")):
        assert remote._reason(error).startswith(f"{error}; log in as the store's package is told: ")


def test_addresses_of_files_and_chains(folder: Path) -> None:
    assert row_by_row(scan(Path(f"file://{folder}"))) == row_by_row(scan(folder))
    assert copies() == [], "what lies here is not copied"
    with pytest.raises(
        DataError, match=r"a chain of addresses; give the address of the archive alone, .*x\.zip, which"
    ):
        scan(Path("zip://imgs::https://somewhere/x.zip"))
