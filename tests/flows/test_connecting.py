"""Whoever connects an account is asked for what is needed, and told what is lacking."""

from __future__ import annotations

import pytest

from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT
from tasks import connecting

YOUTUBE = load_platforms(PROJECT / "policies")["youtube"]


@pytest.mark.parametrize(
    ("given", "missing", "lacks"),
    [
        ({}, ["client_id", "client_secret", "refresh_token"], False),
        ({"access-token": "a"}, [], True),
        ({"token": "a"}, [], True),
        ({"access_token": "a", "client_id": "c"}, ["client_secret", "refresh_token"], False),
        ({"access_token": "a", "client_id": "c", "client_secret": "s", "refresh_token": "r"},
         [], False),
        ({"access_token": " "}, ["client_id", "client_secret", "refresh_token"], False),
    ],
)  # fmt: skip
def test_an_access_token_stands_alone_and_the_owner_hears_what_that_means(
    given: dict[str, str], missing: list[str], lacks: bool
) -> None:
    assert connecting.missing(given, YOUTUBE) == missing
    said = connecting.warnings(given, YOUTUBE)
    assert bool(said) is lacks
    assert all("within the hour" in one for one in said)
