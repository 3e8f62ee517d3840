"""What a server tells of itself wins over the policy, and nonsense changes nothing."""

from __future__ import annotations

from clickpost.policy.load import load_platforms, narrowed
from clickpost.settings import PROJECT
from clickpost.wording import measure

MASTODON = load_platforms(PROJECT / "policies")["mastodon"]
LINK = "https://example.org/" + "a" * 80


def test_a_server_that_reserves_nothing_for_links_counts_them_as_written() -> None:
    told = narrowed(MASTODON, {"text": {"links": 0}})
    assert measure(LINK, MASTODON.text).units == 23
    assert measure(LINK, told.text).units == len(LINK)


def test_a_server_that_allows_more_is_believed() -> None:
    told = narrowed(MASTODON, {"text": {"limit": 5000}, "images": {"max": 16}})
    assert (told.text.limit, told.images.max) == (5000, 16)


def test_nonsense_and_unknown_words_change_nothing() -> None:
    told = {"text": {"limit": -1, "bytes": "many", "colour": 3}, "images": {"max": None}, "x": {}}
    assert narrowed(MASTODON, told) == MASTODON
