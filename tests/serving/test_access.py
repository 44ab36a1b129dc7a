"""Who may ask: names of the server, pages of elsewhere, tokens, and a network that was not meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.cli.helpers import tlkit
from tests.serving.conftest import client_of, make_app
from tests.serving.test_answers import GOOD, form
from tl_kit.config import ServeConfig
from tl_kit.errors import ConfigError
from tl_kit.serving.access import access_of
from tl_kit.serving.refusal import RefusedError


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "LOCALHOST."}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1.nip.io:8000"}, 421),
        ({"host": "192.168.1.2"}, 421),
        ({"host": ""}, 421),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:9000"}, 403),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_hosts_and_pages_of_elsewhere(client: TestClient, headers: dict[str, str], status: int) -> None:
    reply = client.get("/metadata", headers=headers)
    assert reply.status_code == status
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert client.options("/predict", headers={"origin": "https://evil.example"}).status_code == 403


# Origins. Of each: the headers, whether they come from a proxy that is trusted, and the status of the answer.
NAME = "pets.example"
ORIGINS: list[tuple[dict[str, str], bool, int]] = [
    # a proxy that speaks TLS and passes the name on
    ({"host": NAME, "origin": f"https://{NAME}"}, False, 200),
    ({"host": f"{NAME}:443", "origin": f"https://{NAME}"}, False, 200),
    ({"host": NAME, "origin": f"https://{NAME}:443"}, False, 200),
    ({"host": f"{NAME}:8443", "origin": f"https://{NAME}:8443"}, False, 200),
    ({"host": f"{NAME.upper()}", "origin": f"https://{NAME}"}, False, 200),
    # without TLS
    ({"host": NAME, "origin": f"http://{NAME}"}, False, 200),
    ({"host": f"{NAME}:80", "origin": f"http://{NAME}"}, False, 200),
    ({"host": "[::1]", "origin": "http://[::1]"}, False, 200),
    ({"host": "[::1]:80", "origin": "http://[::1]"}, False, 200),
    ({"host": "[::1]:81", "origin": "http://[::1]"}, False, 403),
    # another port is another server
    ({"host": NAME, "origin": f"https://{NAME}:8443"}, False, 403),
    ({"host": f"{NAME}:8443", "origin": f"https://{NAME}"}, False, 403),
    ({"host": f"{NAME}:80", "origin": f"https://{NAME}"}, False, 403),
    ({"host": f"{NAME}:443", "origin": f"http://{NAME}"}, False, 403),
    # so is another name, and what is no origin
    ({"host": NAME, "origin": f"https://www.{NAME}"}, False, 403),
    ({"host": NAME, "origin": "https://"}, False, 403),
    ({"host": NAME, "origin": NAME}, False, 403),
    ({"host": NAME, "origin": ""}, False, 403),
    ({"host": NAME, "origin": f"ftp://{NAME}"}, False, 403),
    ({"host": NAME, "origin": f"chrome-extension://{NAME}"}, False, 403),
    ({"host": NAME, "origin": f"https://user@{NAME}"}, False, 403),
    ({"host": NAME, "origin": f"https://{NAME}/"}, False, 403),
    # a proxy that calls the server by its address
    ({"host": "localhost:8000", "origin": f"https://{NAME}"}, False, 403),
    ({"host": "localhost:8000", "origin": f"https://{NAME}", "x-forwarded-host": NAME}, False, 403),
    ({"host": "localhost:8000", "origin": f"https://{NAME}", "x-forwarded-host": NAME}, True, 200),
    ({"host": "localhost:8000", "origin": f"https://{NAME}", "x-forwarded-host": f"{NAME}:443"}, True, 200),
    ({"host": "localhost:8000", "origin": f"https://{NAME}:9", "x-forwarded-host": f"{NAME}:9"}, True, 200),
    ({"host": "localhost:8000", "origin": f"https://{NAME}:9", "x-forwarded-host": NAME}, True, 403),
    ({"host": "localhost:8000", "origin": "http://localhost:8000", "x-forwarded-host": NAME}, True, 403),
    ({"host": "localhost:8000", "origin": "http://localhost:8000", "x-forwarded-host": NAME}, False, 200),
    ({"host": "localhost:8000", "origin": f"https://{NAME}", "x-forwarded-host": f"{NAME}, localhost"}, True, 200),
    # the scheme, where it is said
    ({"host": NAME, "origin": f"https://{NAME}", "x-forwarded-proto": "https"}, True, 200),
    ({"host": NAME, "origin": f"https://{NAME}", "x-forwarded-proto": "HTTPS, http"}, True, 200),
    ({"host": NAME, "origin": f"http://{NAME}", "x-forwarded-proto": "https"}, True, 403),
    ({"host": NAME, "origin": f"http://{NAME}", "x-forwarded-proto": "https"}, False, 200),
    # DNS rebinding: a page of elsewhere may set these headers, and the name of its connection is looked at all the same
    ({"host": "evil.example", "x-forwarded-host": NAME}, True, 421),
    ({"host": "evil.example:8000", "origin": "http://evil.example:8000", "x-forwarded-host": NAME}, True, 421),
    ({"host": "localhost", "x-forwarded-host": "evil.example"}, True, 421),
    ({"host": "localhost", "x-forwarded-host": f"{NAME}, evil.example"}, True, 421),
    ({"host": "localhost", "x-forwarded-host": f"evil.example, {NAME}"}, True, 421),
    ({"host": "localhost", "x-forwarded-host": "evil.example"}, False, 200),
]


@pytest.mark.parametrize(("headers", "by_proxy", "status"), ORIGINS)
def test_origins_through_proxies(headers: dict[str, str], by_proxy: bool, status: int) -> None:
    access = access_of(config(allow_host=(NAME,), trust_proxy=("10.1.0.0/16", "::1")))
    given = {name.encode(): value.encode() for name, value in headers.items()}
    for client in ("10.1.2.3", "::ffff:10.1.2.3", "::1") if by_proxy else ("10.2.0.1", "127.0.0.1", "", None):
        if status == 200:
            access.check("/predict", given, client)
            continue
        with pytest.raises(RefusedError) as caught:
            access.check("/predict", given, client)
        assert caught.value.status == status, client


def test_the_clients_address_decides_whether_a_proxy_is_believed(checkpoint: Path) -> None:
    headers = {"origin": f"https://{NAME}", "x-forwarded-host": NAME}
    for proxies, status in (((), 403), (("10.0.0.0/8",), 403), (("127.0.0.1",), 200)):
        app = make_app(checkpoint, allow_host=(NAME,), trust_proxy=proxies)
        with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
            assert client.get("/metadata", headers=headers).status_code == status


def test_proxies_that_are_none() -> None:
    for bad in ("proxy.example", "10.0.0.0/33", "", "127.0.0.1:80"):
        with pytest.raises(ConfigError, match=r"--trust-proxy .*: must be an IP address, or a network"):
            access_of(config(trust_proxy=(bad,)))


def test_the_token(ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("open sesame\n".replace(" ", "-"))
    with client_of(ensemble, token_file=tmp_path / "token") as client:
        assert [client.get(path).status_code for path in ("/", "/health")] == [200, 200]
        for path in ("/metadata", "/openapi.json", "/nothing"):
            reply = client.get(path)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/predict", files=form(GOOD)).status_code == 401
        for given, status in (("open-sesame", 200), ("open-sesamé", 401), ("open-sesam", 401), ("", 401)):
            header = {"authorization": f"Bearer {given}".encode()}
            assert client.get("/metadata", headers=header).status_code == status  # type: ignore[arg-type]
        assert client.get("/metadata", headers={"authorization": "Basic open-sesame"}).status_code == 401
    monkeypatch.setenv("TLKIT_TOKEN", "from-the-environment")
    with client_of(ensemble) as client:
        assert client.get("/metadata").status_code == 401
        assert client.get("/metadata", headers={"authorization": "bearer from-the-environment"}).status_code == 200


def config(**options: Any) -> ServeConfig:
    return ServeConfig(checkpoint=Path("x"), **options)


def test_the_network_needs_a_token_or_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(ConfigError, match=r"--host .*: everybody who can reach this machine"):
            access_of(config(host=host))
        assert access_of(config(host=host, without_token=True)).token is None
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert access_of(config(host=host)).any_address is False
    monkeypatch.setenv("TLKIT_TOKEN", "long-enough")
    access = access_of(config(host="0.0.0.0", allow_host=("Pets.Example",)))
    token = {b"authorization": b"Bearer long-enough"}
    for host in (b"192.168.1.2:8000", b"[fe80::1]", b"pets.example:80"):  # an address cannot be another's name
        access.check("/metadata", {**token, b"host": host})
    with pytest.raises(RefusedError, match="--allow-host"):
        access.check("/metadata", {**token, b"host": b"evil.example"})
    for bad in ("short", "with a space", "ü" * 10, ""):
        (tmp_path / "token").write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"--token-file .*: a token has 8 or more"):
            access_of(config(token_file=tmp_path / "token"))
    with pytest.raises(ConfigError, match=r"--token-file .*nowhere: cannot be read"):
        access_of(config(token_file=tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["https://pets.example", "pets.example/", "*.example", "", " ", "a..b", "two words"])
def test_names_that_no_browser_sends_are_refused_at_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--allow-host .*: must be a name, such as pets\.example"):
        access_of(config(allow_host=(name,)))


def test_names_are_as_browsers_send_them() -> None:
    given = ("Pets.Example:8443", "m\u00fcnchen.example", "[2001:DB8::1]:80", "10.0.0.1", "cat_2")
    names = access_of(config(allow_host=given)).names
    assert {"pets.example", "xn--mnchen-3ya.example", "2001:db8::1", "10.0.0.1", "cat_2"} < names


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--host", "0.0.0.0"), "error: --host 0.0.0.0: everybody who can reach this machine could use the server"),
        (("--host", "no.such.invalid", "--without-token"), "error: --host no.such.invalid: no such address"),
        (("--port", "70000"), "error: --port 70000: must be from 0 (any free one) to 65535"),
        (("--files", "0"), "error: --files 0: must be at least 1"),
    ],
)
def test_mistakes_are_a_line(checkpoint: Path, options: tuple[str, ...], text: str) -> None:
    done = tlkit("serve", checkpoint, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(text), done.err
