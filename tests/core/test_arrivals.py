"""What is new, complete and meant is decided without looking anywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from clickpost import arrivals
from clickpost.arrivals import File
from clickpost.policy.arriving import Template
from connectors import _feeds

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "headers",
    [
        {"auto-submitted": "auto-replied; owner-email=x"},
        {"precedence": "bulk"},
        {"x-autoreply": "yes"},
        {"list-id": "<news.example.org>"},
        {"return-path": "<>"},
        {"content-type": "multipart/report; report-type=delivery-status"},
        {"from": "Mail Delivery <MAILER-DAEMON@example.org>"},
        {"from": "no-reply@example.org"},
    ],
)
def test_what_a_machine_wrote_is_no_mail_for_us(headers: dict[str, str]) -> None:
    assert arrivals.machine_made(headers)


def test_what_a_person_wrote_is() -> None:
    headers = {"from": "Ann <ann@example.org>", "auto-submitted": "no", "subject": "bulk list"}
    assert arrivals.machine_made(headers) is None


@pytest.mark.parametrize(
    "name", [".hidden", "~lock.jpg", "sea.jpg.part", "sea.crdownload", "sea.jpg~", "x.TMP"]
)
def test_a_file_that_is_on_its_way_is_not_meant(name: str) -> None:
    assert not arrivals.is_meant(name)


def test_a_file_is_complete_once_nobody_has_written_to_it_for_a_while() -> None:
    span = timedelta(seconds=10)
    for age, complete in ((9, False), (10, True)):
        file = File("sea.jpg", 1, 1, NOW - timedelta(seconds=age), 0)
        assert arrivals.is_settled(file, span, NOW) is complete


def test_the_same_file_put_there_again_is_new_where_files_are_moved_away() -> None:
    first, again = (File("sea.jpg", 1, inode, NOW, 5) for inode in (1, 2))
    assert arrivals.key_of(first, moves=True) != arrivals.key_of(again, moves=True)
    assert arrivals.key_of(first, moves=False) == arrivals.key_of(again, moves=False)


def test_a_post_file_is_found_beside_its_medium() -> None:
    assert arrivals.beside("sea.jpg", ["sea.yaml", "lake.yaml"]) == "sea.yaml"
    assert arrivals.beside("sea.jpg", ["sea.jpg", "sea.jpg.json", "sea.yaml"]) == "sea.jpg.json"
    assert arrivals.beside("sea.jpg", ["seaside.yaml", "sea.png"]) is None


def test_words_of_an_entry_are_taken_as_they_are() -> None:
    template = Template(to=["x"], text="{title} {link} {nobody}", fit="shorten")
    words = {"title": "{link} {0} %s", "link": "https://a.example"}
    post = arrivals.post_of(template, words, "arr_1")
    assert post.text == "{link} {0} %s https://a.example {nobody}"
    assert (post.key, post.fit) == ("arr_1", "shorten")
    assert arrivals.asked(template) == {"title", "link", "nobody"}


def test_another_address_or_a_long_pause_makes_a_look_the_first_one() -> None:
    assert arrivals.is_first(None, "here", NOW)
    assert arrivals.is_first(("there", NOW), "here", NOW)
    assert arrivals.is_first(("here", NOW - timedelta(days=31)), "here", NOW)
    assert not arrivals.is_first(("here", NOW - timedelta(days=29)), "here", NOW)


ATOM = b"""<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>t</title>
<entry><id>urn:1</id><title type="html">Fish &amp;amp; &lt;b&gt;chips&lt;/b&gt;</title>
<link href="https://a.example/1"/><updated>2026-11-24T10:00:00Z</updated></entry>
<entry><id>urn:2</id><title>2 &lt; 3</title><link href="javascript:alert(1)"/></entry></feed>"""


def test_an_entry_is_plain_words_and_a_link_that_people_may_follow() -> None:
    first, second = _feeds.parsed(ATOM, {"content-type": "application/atom+xml"})
    assert (first.facts["title"], first.facts["link"]) == ("Fish & chips", "https://a.example/1")
    assert first.at == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert (second.facts["title"], second.facts["link"]) == ("2 < 3", "")
    assert first.key != second.key
