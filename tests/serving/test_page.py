"""The page in a real browser, without a window: what a person does with the mouse, the keyboard and the clipboard."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import tl_kit
from tests.browsers import grave_faults
from tests.serving.conftest import FP32, listening
from tests.serving.test_answers import BAD, GOOD
from tl_kit.config import ServeLimits


@pytest.fixture(scope="module")
def port(ensemble: Path) -> Iterator[int]:
    with listening(ensemble) as found:
        yield found


@pytest.fixture
def page(browser: Browser, port: int) -> Iterator[Page]:
    with opened(browser, port) as found:
        yield found


class opened:  # noqa: N801 - a context, as a function would make it
    """A page of its own; at the end nothing went wrong in it, and it has asked nobody but the server."""

    def __init__(self, browser: Browser, port: int, *, width: int = 1400, token: bool = False, **more: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **more)
        self.port, self.token = port, token

    def __enter__(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(30_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(f"http://127.0.0.1:{self.port}/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Try a classifier" if self.token else "both")
        return page

    def __exit__(self, kind: Any, *_: object) -> None:
        self.context.close()
        if kind is None:
            # a refusal is a line on the browser's console; what a policy or a script would say begins otherwise
            assert [text for text in self.said if not text.startswith("Failed to load resource")] == []
            own = (f"http://127.0.0.1:{self.port}/", "data:", "blob:")
            assert [url for url in self.asked if not url.startswith(own)] == []


def files(*names: str) -> list[Any]:
    every = {**GOOD, **BAD}
    return [{"name": name, "mimeType": "application/octet-stream", "buffer": every[name]} for name in names]


def choose(page: Page, *chosen: Any) -> None:
    page.set_input_files("#files", list(chosen))
    expect(page.locator("#progress")).to_be_hidden()
    page.wait_for_selector(".answer, .problem", state="attached")


def transfer(page: Page, *names: str) -> Any:
    """What a drag or the clipboard carries."""
    items = [[name, base64.b64encode({**GOOD, **BAD}[name]).decode()] for name in names]
    return page.evaluate_handle(
        """items => {
            const found = new DataTransfer();
            for (const [name, text] of items) {
                found.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
            }
            return found;
        }""",
        items,
    )


@lru_cache(maxsize=16)
def best(ensemble: Path, name: str) -> tuple[str, str]:
    found = tl_kit.load(ensemble, runtime=FP32).predict([GOOD[name]])[0]
    assert found.label is not None
    return found.label, f"{100 * found.probabilities[found.label]:.1f} %"


def test_one_image(page: Page, ensemble: Path) -> None:
    choose(page, *files("large.jpg"))
    label, probability = best(ensemble, "large.jpg")
    expect(page.locator(".answer")).to_have_text(label)
    expect(page.locator(".bars li").first).to_contain_text(probability)
    expect(page.locator(".bars li")).to_have_count(3)
    expect(page.locator(".votes tbody tr")).to_have_count(2)
    expect(page.locator("#list")).to_be_hidden()
    assert page.locator("figure img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 400
    page.get_by_role("button", name="Show where it looks").click()
    expect(page.locator(".heat .lead")).to_contain_text(label)
    assert str(page.locator("figure img").get_attribute("src")).startswith("data:image/png")
    page.get_by_role("button", name="Hide where it looks").click()
    assert str(page.locator("figure img").get_attribute("src")).startswith("blob:")


def test_dropped_images_with_a_wrong_one(page: Page, ensemble: Path) -> None:
    carried = transfer(page, "large.jpg", "text.jpg", "deep.tif")
    page.dispatch_event("body", "dragenter", {"dataTransfer": carried})
    assert page.locator("#drop").get_attribute("class") == "over"
    page.dispatch_event("body", "drop", {"dataTransfer": carried})
    expect(page.locator("#state")).to_have_text("3 images, 1 without an answer")
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text(best(ensemble, "large.jpg")[0])
    expect(rows.nth(1)).to_contain_text("not an image")
    expect(rows.nth(2)).to_contain_text(best(ensemble, "deep.tif")[0])  # of which the browser has no preview
    page.get_by_role("button", name="text.jpg").click()
    expect(page.locator("#one .problem")).to_have_text("No answer: not an image")
    expect(page.locator("figure .none")).to_be_visible()


def test_a_pasted_image(page: Page, ensemble: Path) -> None:
    carried = transfer(page, "clear.png")
    page.evaluate(
        "carried => dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried, cancelable: true}))", carried
    )
    expect(page.locator(".answer")).to_have_text(best(ensemble, "clear.png")[0])


def carried(page: Page, kind: str, text: str) -> Any:
    """What a drag carries that holds no file."""
    return page.evaluate_handle(
        "([kind, text]) => { const found = new DataTransfer(); found.setData(kind, text); return found; }", [kind, text]
    )


def test_an_image_that_is_dragged_from_another_page(page: Page, ensemble: Path) -> None:
    """The browser gives its address alone; the sentence about it goes when there are images."""
    said = page.locator("#said")
    page.dispatch_event("body", "drop", {"dataTransfer": carried(page, "text/uri-list", "https://x.org/a.jpg")})
    expect(said).to_contain_text("gave the address of that image, not the image. Save it and drop the file")
    choose(page, *files("photo.jpg"))
    expect(said).to_be_hidden()
    page.dispatch_event("body", "drop", {"dataTransfer": carried(page, "text/plain", "a word")})
    expect(said).to_have_text("There is no file in what you dropped.")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer(page, "clear.png")})
    expect(said).to_be_hidden()
    expect(page.locator("#state")).to_have_text("2 images")
    page.evaluate(
        "carried => dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried, cancelable: true}))",
        carried(page, "text/plain", "https://x.org/a.jpg"),
    )
    expect(said).to_contain_text("There is no image in what you pasted")


def test_a_dropped_folder_with_a_file_that_cannot_be_read(page: Page, ensemble: Path) -> None:
    """As a browser gives them, whose entries a script cannot make: the others are taken, and it is said."""
    page.evaluate(
        """([name, text]) => {
            const file = new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name);
            const good = { isFile: true, name, file: done => done(file) };
            const bad = { isFile: true, name: "locked.jpg", file: (done, failed) => failed(new DOMException("no")) };
            const parts = [[bad, good], []];
            const reader = { readEntries: done => done(parts.shift()) };
            const folder = { isDirectory: true, name: "a", createReader: () => reader };
            return dropped({ types: ["Files"], files: [], items: [{ webkitGetAsEntry: () => folder }] });
        }""",
        ["photo.jpg", base64.b64encode(GOOD["photo.jpg"]).decode()],
    )
    expect(page.locator(".answer")).to_have_text(best(ensemble, "photo.jpg")[0])
    expect(page.locator("#said")).to_contain_text("could not read 1 of the files")


def test_thirty_images_as_a_table_to_download(page: Page, ensemble: Path) -> None:
    hostile = ["=cmd|' /C calc'!A0.png", 'a "b", c.png', "<b>bold</b>.png"]
    names = hostile + [f"{number}.png" for number in range(27)]
    given = [{**files("photo.jpg" if n % 2 else "large.jpg")[0], "name": name} for n, name in enumerate(names)]
    given[29] = files("text.jpg")[0]
    choose(page, *given)
    expect(page.locator("#state")).to_have_text("30 images, 1 without an answer")
    expect(page.locator("#rows tr")).to_have_count(30)
    expect(page.locator("#rows .name").nth(2)).to_have_text("<b>bold</b>.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "predictions.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"), newline="")))
    assert [row["name"] for row in rows] == [f"'{names[0]}", *names[1:29], "text.jpg"]
    classes = set(tl_kit.load(ensemble).classes)
    for number, row in enumerate(rows[:29]):
        found = best(ensemble, "photo.jpg" if number % 2 else "large.jpg")
        assert (row["label"], f"{100 * float(row['probability']):.1f} %") == found
        assert {row["01-one"], row["02-two"]} <= classes
    assert (rows[29]["label"], rows[29]["error"]) == ("", "not an image")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#choose")).to_be_focused()


def test_the_keyboard_alone(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # from now on the browser tells of it: a dialog of its own would never end
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    expect(page.locator("#classes")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose images")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(files("large.jpg", "photo.jpg", "turned.jpg"))
    expect(page.locator("#state")).to_have_text("3 images")
    for _ in range(3):
        page.keyboard.press("Tab")  # Download, Clear, the first name
    expect(page.get_by_role("button", name="large.jpg")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("button", name="photo.jpg")).to_be_focused()
    expect(page.locator("#one-name")).to_have_text("photo.jpg")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#one-name")).to_have_text("turned.jpg")
    assert page.locator("[aria-current]").count() == 1


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (800, "dark"), (1400, "light")])
def test_no_width_scrolls_sideways(browser: Browser, port: int, width: int, scheme: Any) -> None:
    phone = {"has_touch": True, "is_mobile": True} if width == 390 else {}
    with opened(browser, port, width=width, color_scheme=scheme, **phone) as page:
        assert page.locator("#shoot").is_visible() == bool(phone)
        choose(page, *files("large.jpg"), {**files("photo.jpg")[0], "name": "x" * 200 + ".jpg"}, *files("text.jpg"))
        assert page.evaluate("document.documentElement.scrollWidth") == width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark == ("rgb(18, 22, 28)" if scheme == "dark" else "rgb(246, 247, 249)")
        if phone:
            page.get_by_role("button", name="text.jpg").click()
            expect(page.locator("#one-name")).to_be_in_viewport()
            assert page.locator("#camera").get_attribute("capture") == "environment"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_grave_fault_of_accessibility(browser: Browser, port: int, scheme: Any) -> None:
    with opened(browser, port, color_scheme=scheme) as page:
        assert grave_faults(page) == []
        choose(page, *files("large.jpg", "photo.jpg", "text.jpg"))
        page.get_by_role("button", name="Show where it looks").click()
        expect(page.locator(".heat .lead")).to_be_visible()
        assert grave_faults(page) == []
        page.set_viewport_size({"width": 390, "height": 800})
        page.get_by_role("button", name="text.jpg").click()
        assert grave_faults(page) == []


def test_a_busy_server_is_asked_again_and_a_lost_one_on_request(page: Page) -> None:
    replies = iter([(429, {"retry-after": "0"}), (503, {"retry-after": "0"}), None, "abort"])

    def answer(route: Any) -> None:
        found = next(replies, None)
        if found is None:
            route.continue_()
        elif found == "abort":
            route.abort()
        else:
            route.fulfill(status=found[0], headers=found[1], body=json.dumps({"error": "busy"}))

    page.route("**/predict?*", answer)
    choose(page, *files("photo.jpg"))
    expect(page.locator(".answer")).to_be_visible()
    page.get_by_role("button", name="Clear").click() if page.locator("#clear").is_visible() else page.evaluate(
        "clear()"
    )
    choose(page, *files("photo.jpg"))
    expect(page.locator("#one .problem")).to_have_text("No answer: the server does not answer")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer")).to_be_visible()


def test_too_large_a_file_is_not_sent(browser: Browser, ensemble: Path) -> None:
    limits = ServeLimits(image_bytes=2**20, batch=2)
    large = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(2**20 + 1)}
    with listening(ensemble, limits) as port, opened(browser, port) as page:
        choose(page, large)
        expect(page.locator("#one .problem")).to_contain_text("larger than 1 MB")


def test_a_token(browser: Browser, ensemble: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_TOKEN", "open-sesame")
    with listening(ensemble) as port, opened(browser, port, token=True) as page:
        expect(page.locator("#secret")).to_be_focused()
        page.keyboard.type("wrong-word")
        page.keyboard.press("Enter")
        expect(page.locator("#wrong")).to_be_visible()
        page.keyboard.type("open-sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("both")
        choose(page, *files("photo.jpg"))
        expect(page.locator(".answer")).to_be_visible()
