"""Decides which addresses we may call for somebody else: the public ones, and those we allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from clickpost.errors import InvalidInput

Address = IPv4Address | IPv6Address

#: What translates to IPv4 hides another address inside (RFC 6052, RFC 8215).
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


@dataclass(frozen=True)
class Allowed:
    """What an operator allows beside the public addresses: networks, and hosts by their name."""

    networks: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, words: str) -> Allowed:
        """Read `10.1.0.0/16, ::1, hooks.corp.example`; raise InvalidInput for a wrong network."""
        networks, hosts = [], set()
        for word in words.replace(",", " ").split():
            if _looks_like_a_network(word):
                networks.append(_network(word))
            else:
                hosts.add(word.lower().rstrip("."))
        return cls(tuple(networks), frozenset(hosts))

    def permits(self, host: str, address: str) -> bool:
        """Say whether `host`, which means `address` just now, may be called."""
        if host.lower().rstrip(".") in self.hosts:
            return True
        found = ip_address(address.partition("%")[0])
        inside = _unwrapped(found)
        allowed = [ip_network(one) for one in self.networks]
        if any(one in net for net in allowed for one in {found, inside}):
            return True
        return _is_public(found) and _is_public(inside)


def host_of(url: str) -> str:
    """Return the host of a URL by HTTP; raise InvalidInput for one that is none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise InvalidInput("needs an address of the form https://host/path")
    return host


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches what listens on `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def from_here(host: str) -> str:
    """Return how this machine reaches what listens on `host`, as a part of a URL."""
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)  # noqa: S104
    return f"[{here}]" if ":" in here and not here.startswith("[") else here


def permitted(host: str, addresses: Iterable[str], allowed: Allowed) -> list[str]:
    """Return the addresses that may be called: all of them, or none.

    A name that means public and private addresses at once is somebody's trick, or a mistake.
    """
    found = list(dict.fromkeys(addresses))
    return found if all(allowed.permits(host, one) for one in found) else []


def _looks_like_a_network(word: str) -> bool:
    return "/" in word or ":" in word or word.replace(".", "").isdigit()


def _network(word: str) -> str:
    try:
        return str(ip_network(word))
    except ValueError:
        raise InvalidInput(
            f"CLICKPOST_RECEIVERS: {word} is no network; write 10.1.0.0/16, one address, or a host"
        ) from None


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one carries, as a router or the system reads it."""
    if isinstance(address, IPv4Address):
        return address
    if inner := address.ipv4_mapped or address.sixtofour:
        return inner
    if address.teredo:
        return address.teredo[1]
    if any(address in net for net in _NAT64) or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    wrapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    if wrapped or (isinstance(address, IPv6Address) and address in _NAT64[0]):
        return True  # What it carries decides.
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
