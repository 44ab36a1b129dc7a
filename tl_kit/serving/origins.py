"""Origins: whether a page belongs to the server, by the name that its browser called, also through a proxy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from tl_kit.errors import ConfigError

__all__ = ["Called", "Networks", "called", "is_among", "name_of", "networks_of", "own_name", "same_origin"]

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PORTS = {"http": "80", "https": "443"}

Networks: TypeAlias = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
"""Networks of proxies whose word counts."""


@dataclass(frozen=True)
class Called:
    """The names by which a request calls the server, with their ports: that of the connection, then the browser's.

    ``scheme``: http or https, that of the browser's connection; None where nobody says it.
    """

    hosts: tuple[str, ...]
    scheme: str | None


def called(headers: Mapping[bytes, bytes], *, by_proxy: bool) -> Called:
    """The names in a request's headers; with ``by_proxy`` those in X-Forwarded-Host too, and X-Forwarded-Proto.

    A chain of proxies writes a list: its first entry is what the browser called. Every name in it must be ours.
    """
    hosts = [headers.get(b"host", b"").decode("latin-1")]
    forwarded = _list(headers, b"x-forwarded-host") if by_proxy else []
    schemes = _list(headers, b"x-forwarded-proto") if by_proxy else []
    return Called((*hosts, *reversed(forwarded)), schemes[0].lower() if schemes else None)


def _list(headers: Mapping[bytes, bytes], name: bytes) -> list[str]:
    entries = headers.get(name, b"").decode("latin-1").split(",")
    return [entry.strip() for entry in entries if entry.strip()]


def same_origin(origin: str, by: Called) -> bool:
    """True if a page of ``origin`` (SCHEME://NAME[:PORT], RFC 6454) belongs to the server that was called so.

    Name and port must be equal. A port that is left out is the default of the page's scheme: a proxy that speaks https
    for the server is called NAME, or NAME:443, by pages of https://NAME. The schemes are compared where a proxy says
    which it was.
    """
    scheme, separator, place = origin.lower().partition("://")
    if not separator or scheme not in _PORTS or by.scheme not in (None, scheme):
        return False
    return _with_port(place, _PORTS[scheme]) == _with_port(by.hosts[-1].lower(), _PORTS[scheme])


def _with_port(place: str, default: str) -> tuple[str, str]:
    name, port = _divided(place)
    return name, port or default


def _divided(place: str) -> tuple[str, str]:
    """The name in NAME[:PORT], and the port, "" without one; brackets stay around an IPv6 address."""
    name, colon, port = place.rpartition(":")
    return (name, port) if colon and port.isdecimal() and (name.endswith("]") or ":" not in name) else (place, "")


def name_of(place: str) -> str:
    """The name in NAME[:PORT], in lower case, without the brackets of IPv6 and the dot that may end it."""
    name = _divided(place)[0].lower()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name.rstrip(".")


def own_name(text: str, option: str) -> str:
    """The name in an option's text, NAME[:PORT], as browsers send it: in lower case, and in ASCII (IDNA).

    Raises ConfigError for anything that no browser sends in its place: an address with http://, a wildcard, nothing.
    """
    name = name_of(text.strip())
    with suppress(ValueError):
        return str(ipaddress.ip_address(name))
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError:
        encoded = ""
    if not _NAME.fullmatch(encoded):
        raise ConfigError(f"{option} {text or repr(text)}: must be a name, such as pets.example")
    return encoded


def networks_of(texts: Sequence[str], option: str) -> Networks:
    """The networks in an option's texts: addresses, or networks as 10.0.0.0/8. Raises ConfigError for any other."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise ConfigError(f"{option} {text}: must be an IP address, or a network such as 10.0.0.0/8") from error
    return tuple(found)


def is_among(client: str | None, networks: Networks) -> bool:
    """True if a client's IP address is in one of the networks."""
    if client is None or not networks:
        return False
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:  # of a test client, or of a socket that is a file
        return False
    plain = getattr(address, "ipv4_mapped", None) or address  # as a server for both kinds of addresses sees IPv4
    return any(plain in network for network in networks)
