"""Where others reach our machine, Prefect asks for a password, or nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from clickpost.errors import InvalidInput
from clickpost.reach import from_here, is_loopback
from clickpost.settings import Settings
from deployments import runs
from deployments.stack import Stack, refuse_open

GOOD = "admin:0123456789abcdef"


def settings(host: str, auth: str | None = None, **more: object) -> Settings:
    secret = SecretStr(auth) if auth else None
    return Settings(home=Path("nowhere")).model_copy(
        update={"host": host, "prefect_auth": secret, **more}
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_on_loopback_no_password_is_needed(host: str) -> None:
    refuse_open(settings(host))
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "post.example.com", ""])
@pytest.mark.parametrize("auth", [None, "0123456789abcdef0", ":0123456789abcdef", "admin:short"])
def test_elsewhere_it_is_and_the_refusal_says_how(host: str, auth: str | None) -> None:
    with pytest.raises(InvalidInput, match="PREFECT_API_AUTH_STRING=USER:PASSWORD") as caught:
        Stack(settings(host, auth)).up()
    assert "0123456789" not in str(caught.value)
    refuse_open(settings(host, GOOD))
    refuse_open(settings(host, None, prefect_api_url="https://prefect.example/api"))


def test_server_and_clients_get_the_password_and_browsers_elsewhere_find_the_api() -> None:
    stack = Stack(settings("0.0.0.0", GOOD))
    parts = {part.name: part for part in stack.parts(sandbox=True)}
    prefect = parts["prefect"].environment
    assert prefect["PREFECT_SERVER_API_AUTH_STRING"] == GOOD
    assert prefect["PREFECT_UI_API_URL"] == "/api"
    assert parts["worker"].environment["PREFECT_API_AUTH_STRING"] == GOOD
    assert parts["worker"].environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert parts["gateway"].environment["CLICKPOST_PREFECT_AUTH"] == GOOD
    assert GOOD not in str(parts["sandbox"].environment)
    assert GOOD not in str([part.command for part in parts.values()])
    assert runs.auth(stack.settings) is not None
    assert runs.auth(settings("127.0.0.1")) is None


def test_a_wildcard_is_reached_from_here() -> None:
    hosts = ("0.0.0.0", "::", "", "::1", "10.0.0.1", "x.example")
    here = ["127.0.0.1", "[::1]", "127.0.0.1", "[::1]", "10.0.0.1", "x.example"]
    assert [from_here(one) for one in hosts] == here
    assert settings("0.0.0.0").is_public
    assert not settings("127.0.0.1").is_public
    assert settings("127.0.0.1", public_url="https://x.example").is_public
