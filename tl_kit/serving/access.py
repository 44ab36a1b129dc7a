"""Access: who may talk to the server, by address, name and token."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tl_kit.config import ServeConfig
from tl_kit.errors import ConfigError
from tl_kit.serving.origins import Networks, called, is_among, name_of, networks_of, own_name, same_origin
from tl_kit.serving.refusal import RefusedError

__all__ = ["TOKEN", "Access", "access_of"]

TOKEN = "TLKIT_TOKEN"
"""The environment variable that may hold the token."""

_SHORTEST, _LONGEST = 8, 4096
_OPEN = ("/", "/health")  # the page asks for the token itself


@dataclass(frozen=True)
class Access:
    """The names by which the server may be called, and its token. ``any_address``: every numeric address is one.

    ``proxies``: networks whose headers X-Forwarded-Host and X-Forwarded-Proto are believed.
    """

    names: frozenset[str]
    any_address: bool
    token: bytes | None = None
    proxies: Networks = ()

    def check(self, path: str, headers: Mapping[bytes, bytes], client: str | None = None) -> None:
        """Raises RefusedError: 421 for a name that is not ours, 403 for a page of elsewhere, 401 without the token.

        ``client``: the IP address of the connection's other end.
        """
        by = called(headers, by_proxy=is_among(client, self.proxies))
        if not all(self._known(name_of(host)) for host in by.hosts):
            raise RefusedError(
                421, "this name is not one of the server's; call it by its address, or start it with --allow-host NAME"
            )
        origin = headers.get(b"origin")
        if origin is not None and not same_origin(origin.decode("latin-1"), by):
            raise RefusedError(403, "pages of other addresses may not use this server")
        if headers.get(b"sec-fetch-site", b"same-origin") in (b"cross-site", b"same-site") and path != "/":
            raise RefusedError(403, "pages of other addresses may not use this server")
        if self.token is not None and path not in _OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token):
                raise RefusedError(401, "a token is needed: send the header Authorization: Bearer TOKEN")

    def _known(self, name: str) -> bool:
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address


def access_of(config: ServeConfig) -> Access:
    """The access that a configuration asks for.

    Raises ConfigError for a server that everybody on the network could use unasked, and for a token or a name that is
    none.
    """
    token = _token(config)
    loopback = _is_loopback(config.host)
    if not loopback and token is None and not config.without_token:
        raise ConfigError(
            f"--host {config.host}: everybody who can reach this machine could use the server; give --token-file FILE "
            f"(or the variable {TOKEN}), or say --without-token"
        )
    names = {"localhost", config.host.lower(), *(own_name(each, "--allow-host") for each in config.allow_host)}
    names |= {"127.0.0.1", "::1"} if loopback else {socket.gethostname().lower()}
    proxies = networks_of(config.trust_proxy, "--trust-proxy")
    return Access(frozenset(names), any_address=not loopback, token=token, proxies=proxies)


def _token(config: ServeConfig) -> bytes | None:
    """The token in the file, or else in the environment; None without one."""
    source, text = TOKEN, os.environ.get(TOKEN)
    if config.token_file is not None:
        source, text = f"--token-file {config.token_file}", _text(config.token_file)
    if text is None:
        return None
    text = text.strip()
    if not _SHORTEST <= len(text) <= _LONGEST or not text.isascii() or any(c <= " " for c in text):
        raise ConfigError(f"{source}: a token has {_SHORTEST} or more letters, digits and signs, and no spaces")
    return text.encode("ascii")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(_LONGEST + 2).decode("ascii", errors="replace")
    except OSError as error:
        raise ConfigError(f"--token-file {file}: cannot be read ({error.strerror})") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
