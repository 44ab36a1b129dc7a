"""Addresses that may be fetched: http and https, and of hosts that are public unless the user allows others."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from tl_kit.errors import ImageError

__all__ = ["Address", "PrivateHostError", "Target", "is_address", "is_public", "target_of"]

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)  # pathlib turns two slashes into one
_PORTS = {"http": 80, "https": 443}
_KEPT = "%/:=&?~#+!$,;'@()*[]"  # of an address, as it is: everything else that is not ASCII is quoted
# IPv6 networks whose addresses end in the IPv4 address that they stand for.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")  # to the IPv4 addresses of one network (RFC 8215)


class PrivateHostError(ImageError):
    """A host that may not be connected to, since it is not public."""

    def __init__(self, host: str, ip: str) -> None:
        super().__init__(f"not fetched: {host} is in a private network ({ip}); --allow-private allows it")
        self.host = host


@dataclass(frozen=True)
class Address:
    """An address as the user gave it."""

    text: str


@dataclass(frozen=True)
class Target:
    """An address taken apart, and the IP addresses of its host that may be connected to."""

    text: str
    scheme: str
    host: str
    port: int
    path: str
    ips: tuple[str, ...]

    @property
    def host_header(self) -> str:
        """The value of the header ``Host``."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"

    def after(self, location: str) -> str:
        """The address that a redirection leads to, from its header: bytes, each of them one character (Latin-1)."""
        raw = location.encode("latin-1")
        try:
            return urljoin(self.text, raw.decode("utf-8"))
        except UnicodeDecodeError:
            return urljoin(self.text, quote(raw, safe=_KEPT))


def is_address(text: str) -> bool:
    """True for a text that begins like an address of any scheme."""
    return _ADDRESS.match(text) is not None


def target_of(text: str, *, allow_private: bool) -> Target:
    """Take an address apart and look its host up, once: what is checked is what is connected to.

    Raises ImageError with the reason for another scheme, a name that cannot be resolved, and a host none of whose
    addresses may be connected to.
    """
    try:
        parts = urlsplit(text)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError as error:
        raise ImageError(f"not an address ({error})") from error
    if not scheme:
        raise ImageError("not an address: it begins with neither http:// nor https://")
    if scheme not in _PORTS:
        raise ImageError(f"an address with {scheme}: only http and https are fetched")
    if parts.username is not None:
        raise ImageError("an address with a user's name in it: only public ones are fetched")
    host = _host(parts)
    port = _PORTS[scheme] if port is None else port
    path = quote(parts.path or "/", safe=_KEPT) + (f"?{quote(parts.query, safe=_KEPT)}" if parts.query else "")
    return Target(text, scheme, host, port, path, _resolved(host, port, allow_private=allow_private))


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not host:
        raise ImageError("an address without a host")
    return host


def _resolved(host: str, port: int, *, allow_private: bool) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError(f"cannot be fetched: no address of {host} is known ({_said(error)})") from error
    ips = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = tuple(ip for ip in ips if allow_private or is_public(ip))
    if not allowed:
        raise PrivateHostError(host, ips[0])
    return allowed


def is_public(ip: str) -> bool:
    """True for an address of the public internet: not private, loopback, link-local, multicast, reserved or none.

    Of an IPv6 address that stands for an IPv4 address (mapped, 6to4, Teredo, NAT64), that one counts too.
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local or address in _LOCAL_TRANSLATION:
            return False
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if any(address in network for network in _EMBEDDING):
            inner.append(ipaddress.IPv4Address(address.packed[-4:]))
        known = [each for each in inner if each is not None]
        if known:
            return all(map(_is_global, known))
    return _is_global(address)


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    special = address.is_private, address.is_loopback, address.is_link_local, address.is_multicast
    return address.is_global and not any((*special, address.is_reserved, address.is_unspecified))


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
