"""Every text is counted as its platform counts, and fits or is refused with a reason."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpost.draft import Fit
from clickpost.errors import ContentRejected
from clickpost.policy.load import load_platforms
from clickpost.policy.shape import PlatformPolicy, TextRules
from clickpost.settings import PROJECT
from clickpost.wording import Link, Mention, Tag, Wording, entities, fit, measure
from clickpost.wording.counting import units_of
from clickpost.wording.fitting import shorten, thread

POLICIES = load_platforms(PROJECT / "policies")
FAMILY = "👩‍👩‍👧‍👦"
ZALGO = "Z\u0351\u036b\u0343\u036a"
PIECES = (
    *("word", "ein", "Grüße", "e\u0301te\u0301", ZALGO, FAMILY, "🇩🇪", "1️⃣", "👍🏽", "שלום", "مرحبا"),
    *("\u2067", "\u2069", "\u200d", "港の夕暮れ。三艘の船", "end.", "!", "(", ")", "x" * 50),
    *("https://example.org/a_(b)", "https://münchen.de/straße?", "example.com/" + "p" * 30),
    *(
        "@bob.test",
        "(@alice@example.social)",
        "bob@example.com",
        "#tag_1",
        "＃港",
        "#123",
        "a \u0301",
    ),
)
TEXTS = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from(("", " ", " ", "\n", "\n\n", ", "))),
    max_size=60,
).map(lambda pairs: "".join(piece + gap for piece, gap in pairs).strip())
RULES = st.builds(
    TextRules,
    limit=st.integers(60, 200),
    bytes=st.none() | st.integers(300, 600),
    count=st.sampled_from(("graphemes", "mastodon", "code_points", "utf16", "x_weighted")),
    source=st.just("https://example.org/"),
    checked=st.just("2026-11-01"),
)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def rules(**said: Any) -> TextRules:
    return TextRules.model_validate(
        {"source": "https://example.org/", "checked": "2026-11-01", **said}
    )


def within(text: str, by: TextRules) -> bool:
    size = measure(text, by)
    return (by.limit is None or size.units <= by.limit) and (
        by.bytes is None or size.bytes <= by.bytes
    )


def kinds(text: str) -> list[tuple[str, str]]:
    return [(type(one).__name__, text[one.start : one.end]) for one in entities(text)]


def wholes(text: str) -> set[int]:
    """Return the places of `text` at which nothing is cut."""
    ends = {match.end() for match in regex.finditer(r"\X", text)} | {0}
    return {
        place for place in ends if not any(one.start < place < one.end for one in entities(text))
    }


def squeezed(text: str) -> str:
    """Return `text` without what a seam may lose or add."""
    return regex.sub(r"[\s\u2069]", "", text)


def fitted(text: str, name: str, how: Fit = "refuse", **said: Any) -> Wording:
    return fit(text, policy=POLICIES[name], how=how, media=1, **said)


@pytest.mark.parametrize(
    ("text", "count", "units"),
    [
        (FAMILY, "graphemes", 1),
        (FAMILY, "code_points", 7),
        (FAMILY, "utf16", 11),
        (FAMILY, "bytes", 25),
        (FAMILY, "x_weighted", 2),
        ("🇩🇪🇫🇷", "graphemes", 2),
        ("1️⃣", "graphemes", 1),
        (ZALGO, "graphemes", 1),
        ("e\u0301", "graphemes", 1),
        ("é", "bytes", 2),
        ("e\u0301", "bytes", 3),
        ("港の夕", "x_weighted", 6),
        ("a\r\nb", "graphemes", 3),
        ("𝒳", "utf16", 2),
        ("x https://example.org/" + "a" * 100, "mastodon", 25),
        ("港https://example.org/" + "a" * 100, "mastodon", 24),
        ("HTTP://A.example", "mastodon", 23),
        ("@alice@a.very.long.example.social hi", "mastodon", 9),
        ("(@alice@example.social.)", "mastodon", 9),
        ("@é@example.social", "mastodon", 17),
        ("example.org/abc", "mastodon", 15),
        ("x https://example.org/" + "a" * 100, "x_weighted", 25),
    ],
)
def test_a_text_counts_what_the_facts_say(text: str, count: Any, units: int) -> None:
    links = POLICIES["mastodon"].text.links if count == "mastodon" else None
    assert units_of(text, count, links) == units


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(@bob.test)", [("Mention", "@bob.test")]),
        ("hi.@bob.test", [("Mention", "@bob.test")]),
        ("hi,@bob.test.", [("Mention", "@bob.test")]),
        ("to @a@b.social.", [("Mention", "@a@b.social")]),
        ("bob@example.com e\u0301@x.com é@x.com", []),
        ("see https://en.wikipedia.org/wiki/Foo_(bar).", [("Link", "https://en.wikipedia.org/wiki/Foo_(bar)")]),
        ("(https://example.org/a)", [("Link", "https://example.org/a")]),
        ("https://münchen.de/ä?", [("Link", "https://münchen.de/ä")]),
        ("example.com.", [("Link", "example.com")]),
        ("The end.It was file.py 1.5.2026 e.g.", []),
        ("港https://example.org", [("Link", "https://example.org")]),
        ("#1 #2026 #a1 ＃港 #a_b, #️⃣", [("Tag", "#a1"), ("Tag", "＃港"), ("Tag", "#a_b")]),
        ("https://example.org/#part", [("Link", "https://example.org/#part")]),
        ("https://example.org/@bob", [("Link", "https://example.org/@bob")]),
        ("a#b &#39;", []),
        ("@@bob", []),
    ],
)  # fmt: skip
def test_links_mentions_and_tags_are_found_and_nothing_else(
    text: str, found: list[tuple[str, str]]
) -> None:
    assert kinds(text) == found


@QUICK
@given(TEXTS)
def test_byte_offsets_select_exactly_the_link_mention_or_tag(text: str) -> None:
    last = 0
    for one in entities(text):
        shown = text.encode()[one.byte_start : one.byte_end].decode()
        assert shown == text[one.start : one.end]
        assert one.byte_start >= last
        last = one.byte_end
        match one:
            case Link(url=url, bare=bare):
                assert url == (f"https://{shown}" if bare else shown)
            case Mention(name=name, host=host):
                assert shown == f"@{name}" + (f"@{host}" if host else "")
            case Tag(tag=tag):
                assert shown[1:] == tag


@QUICK
@given(TEXTS, RULES)
def test_a_shortened_text_is_within_both_limits_and_cuts_nothing(text: str, by: TextRules) -> None:
    short = shorten(text, by)
    assert within(short, by)
    if short in ("", text):
        return
    assert short.endswith("…")
    kept = regex.sub(r"\u2069* ?…$", "", short)
    bare = text[: len(kept)]
    assert bare == kept or bare.rstrip("\u2069") == kept
    assert {len(kept), len(bare.rstrip("\u2069")), len(short) - 1} & wholes(text)


@QUICK
@given(TEXTS, RULES)
def test_a_threads_parts_fit_and_together_say_everything(text: str, by: TextRules) -> None:
    parts = thread(text, by)
    if not parts:
        return
    assert all(within(part, by) and part for part in parts)
    assert squeezed("".join(parts)) == squeezed(text)
    # All of them, in their order. A cut may free a bare address that a mention clung to.
    said = iter([one for part in parts for one in kinds(part)])
    assert all(one in said for one in kinds(text))


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("how", ["refuse", "shorten", "thread"])
@pytest.mark.parametrize("word", ["harbour ", "港の夕暮れ。", "x", FAMILY, ZALGO, "مرحبا ", "🇩🇪"])
def test_ten_thousand_characters_fit_or_are_refused_with_a_reason(
    name: str, how: Fit, word: str
) -> None:
    policy: PlatformPolicy = POLICIES[name]
    text = word * (10_000 // len(word))
    try:
        worded = fitted(text, name, how, title="T")
    except ContentRejected as error:
        assert how == "refuse" or not policy.thread.supported
        assert all(fault.limit and fault.found for fault in error.faults)
        return
    assert all(within(part, policy.text) for part in worded.parts)
    size = sum(len(part) for part in worded.parts)
    least = (policy.text.limit or (policy.text.bytes or 0) // 25) // 2
    assert size >= (len(text.strip()) * 0.9 if how == "thread" else least)


def test_a_refusal_names_the_field_the_limit_and_what_was_found() -> None:
    with pytest.raises(ContentRejected) as caught:
        fitted("x" * 301, "bluesky")
    (fault,) = caught.value.faults
    assert (fault.field, fault.limit, fault.found) == ("text", "300 graphemes", "301 graphemes")


def test_every_broken_limit_is_told_at_once() -> None:
    with pytest.raises(ContentRejected) as caught:
        fitted("é" * 3000, "bluesky", alts=["a" * 2001], kinds=["image"])
    assert [fault.limit for fault in caught.value.faults] == [
        *("300 graphemes", "3000 bytes", "2000 graphemes")
    ]


@pytest.mark.parametrize("how", ["shorten", "thread"])
@pytest.mark.parametrize("text", ["https://example.org/" + "a" * 400, "Z" + "\u0351" * 2000])
def test_what_cannot_be_parted_and_does_not_fit_is_refused(text: str, how: Fit) -> None:
    with pytest.raises(ContentRejected, match="fits into no part"):
        fitted(text, "bluesky", how)


def test_a_shortened_text_keeps_its_hashtags() -> None:
    (text,) = fitted("word " * 100, "bluesky", "shorten", tags=["harbour", "Harbour", "#sea"]).parts
    assert text.endswith("…\n\n#harbour #sea")
    assert within(text, POLICIES["bluesky"].text)


def test_an_ellipsis_never_becomes_part_of_a_link() -> None:
    text = shorten("see https://example.org/a and more words", rules(limit=28))
    assert text == "see https://example.org/a …"


def test_a_hashtag_that_is_too_long_is_refused() -> None:
    with pytest.raises(ContentRejected, match="tags"):
        fitted("hello", "bluesky", tags=["x" * 65])


def test_a_text_with_an_early_space_is_not_cut_there() -> None:
    assert len(shorten("港 " + "夕" * 500, rules(limit=300))) == 300


def test_a_space_that_carries_an_accent_is_no_seam() -> None:
    parts = thread("ab \u0301cd ef", rules(limit=5))
    assert squeezed("".join(parts)) == squeezed("ab \u0301cd ef")
    assert not any(part.startswith("\u0301") for part in parts)


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("So long #2026!", ["#2026"]),
        ("#2026 #2026 and ＃١٢", ["#2026", "#١٢"]),
        ("#2026ers, #a1, C#, 5 #, issue#7", []),
        ("https://ex.org/-#7 and &#39;", []),
        ("1️⃣ #️⃣", []),
    ],
)
def test_a_hashtag_of_digits_only_is_noted_where_it_is_none(text: str, noted: list[str]) -> None:
    worded = fitted(text, "bluesky")
    assert [note.split()[1] for note in worded.notes] == noted
    assert not any(isinstance(one, Tag) and one.tag.isdecimal() for one in entities(text))
    assert fitted(text, "instagram").notes == ()


def test_a_tag_of_digits_only_is_noted_too() -> None:
    assert any("#2026" in note for note in fitted("t", "bluesky", tags=["2026"]).notes)


@pytest.mark.parametrize(
    ("alt", "kind", "found"),
    [
        ("a" * 2000, "image", None),
        ("a" * 2001, "image", "2001 graphemes"),
        ("a" * 1000, "video", None),
        ("a" * 1001, "video", "1001 graphemes"),
        ("👩‍👩‍👧‍👦" * 401, "video", "10025 bytes"),
    ],
)
def test_a_description_is_held_to_the_limit_of_its_kind_of_medium(
    alt: str, kind: str, found: str | None
) -> None:
    if found is None:
        assert fitted("t", "bluesky", alts=[alt], kinds=[kind]).alts == (alt,)
        return
    with pytest.raises(ContentRejected) as refused:
        fitted("t", "bluesky", alts=[alt], kinds=[kind])
    assert [one.found for one in refused.value.faults] == [found]
    (short,) = fitted("t", "bluesky", "shorten", alts=[alt], kinds=[kind]).alts
    assert alt.startswith(short.rstrip("…"))


def test_alt_text_is_carried_shortened_or_told_to_be_left_out() -> None:
    assert fitted("t", "mastodon", alts=["a boat"], kinds=["image"]).alts == ("a boat",)
    (alt,) = fitted("t", "mastodon", "shorten", alts=["boat " * 400], kinds=["image"]).alts
    assert len(alt) <= 1500
    assert alt.endswith("boat…")
    worded = fitted("t", "instagram", alts=["a boat"], kinds=["video"])
    assert worded.alts == ("",)
    assert any("alt of video 1" in note for note in worded.notes)


def test_a_spoiler_counts_with_mastodons_text() -> None:
    assert fitted("x" * 490, "mastodon", spoiler="y" * 10).parts
    with pytest.raises(ContentRejected, match="501 characters"):
        fitted("x" * 490, "mastodon", spoiler="y" * 11)


@pytest.mark.parametrize(("kind", "most"), [("#t{}", 30), ("@p{}", 20)])
def test_instagram_takes_so_many_hashtags_and_mentions(kind: str, most: int) -> None:
    def text(number: int) -> str:
        return " ".join(kind.format(f"x{one}") for one in range(number))

    assert fitted(text(most), "instagram").parts
    with pytest.raises(ContentRejected, match=f"at most {most}"):
        fitted(text(most + 1), "instagram")


def test_youtubes_tags_count_commas_and_quotes() -> None:
    tags = ["a b", *("x" * 99 for _ in range(1)), *(str(n) * 98 for n in range(1, 5))]
    assert sum(map(len, tags)) + 5 + 2 == 501
    with pytest.raises(ContentRejected, match="501 characters"):
        fitted("t", "youtube", title="T", tags=tags)
    assert fitted("t", "youtube", title="T", tags=tags[1:]).tags == tuple(tags[1:])


def test_line_ends_are_plain_and_control_characters_go_with_a_note() -> None:
    worded = fitted("a\r\nb\rc\x00", "bluesky")
    assert worded.parts == ("a\nb\nc",)
    assert worded.notes


@pytest.mark.parametrize("text", ["", " \n", "\u200b\u200d", "\u2066\u2069"])
def test_a_text_that_nobody_can_see_is_none(text: str) -> None:
    with pytest.raises(ContentRejected, match="visible"):
        fit(text, policy=POLICIES["bluesky"], how="refuse")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_forms_of_an_accent_count_alike_in_graphemes(form: Any) -> None:
    text = unicodedata.normalize(form, "é" * 300)
    assert fitted(text, "bluesky").parts == (text,)


def test_a_thread_of_many_parts_cuts_no_link() -> None:
    text = "x" * 40 + " https://example.org/" + "a" * 200
    parts = thread(" ".join([text] * 40), rules(limit=300))
    assert squeezed("".join(parts)) == squeezed(text * 40)
    assert sum(len(kinds(part)) for part in parts) == 40


def test_a_mark_of_direction_belongs_to_no_link_or_tag() -> None:
    text = "\u2067https://example.org/a\u2069 \u2067#tag\u2069"
    assert kinds(text) == [("Link", "https://example.org/a"), ("Tag", "#tag")]
