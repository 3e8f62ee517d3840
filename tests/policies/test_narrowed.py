"""What a server tells of itself wins over the policy, and nonsense changes nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from PIL import Image

from clickpost.media import Target, plan, probe
from clickpost.policy.load import load_platforms, narrowed
from clickpost.policy.shape import PlatformPolicy
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


def test_a_number_of_seconds_becomes_a_duration() -> None:
    told = narrowed(MASTODON, {"video": {"lasts": {"max": 900}}, "prepared": {"lives": 1e300}})
    assert told.video.lasts.max == timedelta(minutes=15)
    assert told.prepared.lives == timedelta.max


def test_a_number_never_takes_the_place_of_a_word() -> None:
    assert narrowed(MASTODON, {"text": {"count": 3, "source": 4, "required": 1}}) == MASTODON


def test_formats_that_a_server_does_not_take_are_left_out_and_none_are_added() -> None:
    told = narrowed(MASTODON, {"images": {"formats": ["heic", "png", "jpeg"]}})
    assert told.images.formats == ["jpeg", "png"]
    assert told.images.max == MASTODON.images.max


def target(policy: PlatformPolicy) -> Target:
    return Target("mastodon", policy.images, policy.video)


def test_a_server_that_takes_no_webp_gets_another_picture(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.webp")
    source = probe(tmp_path / "a.webp")
    told = narrowed(MASTODON, {"images": {"formats": ["png", "jpeg"]}})
    assert plan(source, [target(MASTODON)]).renditions[0].profile.format == "webp"
    assert plan(source, [target(told)]).renditions[0].profile.format == "jpeg"


def test_a_server_that_takes_no_pictures_refuses_them_before_they_are_sent(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    told = narrowed(MASTODON, {"images": {"formats": []}})
    refused = plan(probe(tmp_path / "a.png"), [target(told)]).refusals["mastodon"]
    assert [one.field for one in refused.faults] == ["image"]


def test_where_no_format_is_left_no_medium_of_the_kind_is_taken() -> None:
    told = narrowed(MASTODON, {"images": {"max": 9, "formats": ["heic"]}})
    assert (told.images.formats, told.images.max) == ([], 0)
