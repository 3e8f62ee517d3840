"""A target gets what its account's variant says, else its platform's, else the post's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clickpost.draft import Enclosed, PostFile, Wish, wish_of
from clickpost.draft import strangers as strangers_of

FILES = ("a.jpg", "b.jpg")
MEDIA = tuple(
    Enclosed(asset_id=file, kind="image", file=file, alt=f"base {file}") for file in FILES
)
SIMPLE: dict[str, tuple[Any, ...]] = {
    "text": ("", "one", "two"),
    "title": ("", "one", "two"),
    "fit": ("refuse", "shorten", "thread"),
    "media_fit": ("choose", "refuse"),
    "visibility": ("public", "unlisted", "private"),
    "language": ("de", "en"),
    "sensitive": (True, False),
    "spoiler": ("", "loud"),
    "tags": ([], ["a"], ["b", "c"]),
}
SAID = st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in SIMPLE.items()})


def wish(variants: dict[str, Any], **said: Any) -> Wish:
    post = PostFile.model_validate(
        {"media": [{"file": file} for file in FILES], **said, "variants": variants}
    )
    return wish_of(post, MEDIA, "bluesky", "bluesky/me")


@given(SAID, SAID, SAID)
def test_the_account_beats_the_platform_and_the_platform_beats_the_post(
    base: dict[str, Any], platform: dict[str, Any], account: dict[str, Any]
) -> None:
    got = wish({"bluesky": platform, "bluesky/me": account, "mastodon": {"text": "no"}}, **base)
    for name, value in {**base, **platform, **account}.items():
        found = getattr(got, name)
        assert (list(found) if name == "tags" else found) == value


def test_alts_of_the_platforms_variant_stay_where_the_accounts_chooses_media() -> None:
    got = wish({"bluesky": {"alts": {"a.jpg": "theirs"}}, "bluesky/me": {"media": ["a.jpg"]}})
    assert [(one.file, one.alt) for one in got.media] == [("a.jpg", "theirs")]


def test_an_account_may_take_files_that_its_platform_left_out() -> None:
    got = wish({"bluesky": {"media": []}, "bluesky/me": {"media": ["b.jpg", "a.jpg"]}})
    assert [one.alt for one in got.media] == ["base b.jpg", "base a.jpg"]


def test_options_add_up_and_the_account_wins() -> None:
    variants = {"bluesky": {"options": {"x": 2, "y": 2}}, "bluesky/me": {"options": {"y": 3}}}
    assert wish(variants, options={"w": 1, "x": 1}).options == {"w": 1, "x": 2, "y": 3}


def test_files_that_only_a_variant_knows_are_named() -> None:
    variants = {"bluesky": {"media": ["c.jpg"], "alts": {"d.jpg": "d"}}}
    post = PostFile.model_validate({"media": [{"file": "a.jpg"}], "variants": variants})
    assert strangers_of(post) == [
        *("variants.bluesky.media: c.jpg", "variants.bluesky.alts: d.jpg")
    ]
