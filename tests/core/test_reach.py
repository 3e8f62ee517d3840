"""Whoever gives us an address gets the public world, and of ours what an operator allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.errors import InvalidInput
from clickpost.reach import Allowed, host_of, permitted

NOBODY = Allowed()

INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.1", "198.18.0.1", "203.0.113.7", "224.0.0.1",
    "233.252.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
    "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "2002:7f00:1::1",
    "2002:a9fe:a9fe::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside_is_not_called(address: str) -> None:
    assert not NOBODY.permits("hooks.example.com", address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public_is_called(address: str) -> None:
    assert NOBODY.permits("hooks.example.com", address)


@given(st.ip_addresses(v=4))
def test_whatever_carries_an_address_hides_it_from_nobody(address: object) -> None:
    plain = NOBODY.permits("x", str(address))
    assert NOBODY.permits("x", f"::ffff:{address}") == plain
    assert NOBODY.permits("x", f"64:ff9b::{address}") == plain


def test_an_operator_allows_networks_addresses_and_hosts() -> None:
    allowed = Allowed.of("10.1.0.0/16, ::1 127.0.0.1,Hooks.Corp.Example.")
    assert allowed.permits("x", "10.1.2.3")
    assert allowed.permits("x", "::ffff:10.1.2.3")
    assert allowed.permits("x", "::1")
    assert allowed.permits("hooks.corp.example.", "192.168.7.7")
    assert not allowed.permits("x", "10.2.0.1")
    assert not allowed.permits("evil.hooks.corp.example", "192.168.7.7")


@pytest.mark.parametrize("word", ["10.1.0.1/16", "300.1.1.1", "10.0.0.0/99", "::g"])
def test_a_network_that_is_none_is_said_at_once(word: str) -> None:
    with pytest.raises(InvalidInput, match="CLICKPOST_RECEIVERS"):
        Allowed.of(word)


def test_a_name_that_is_inside_and_outside_at_once_is_not_called_at_all() -> None:
    assert permitted("x", ["8.8.8.8", "127.0.0.1"], NOBODY) == []
    assert permitted("x", ["8.8.8.8", "8.8.8.8"], NOBODY) == ["8.8.8.8"]


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "file:///etc/passwd", "gopher://x", "https://", "//x", "x", "http://[::1", ""],
)
def test_only_http_has_a_host(url: str) -> None:
    with pytest.raises(InvalidInput):
        host_of(url)
