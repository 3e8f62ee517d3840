"""What people read says where, why, who and how, and nothing of the post."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from clickpost import telling
from clickpost.telling import Event, Said

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SETTLE = "clickpost posts settle post_1 --to bluesky/studio --answer"
UI = "http://127.0.0.1:4200"
FACTS = {
    "where": "bluesky/studio",
    "reason": "the platform said no",
    "who_acts": "the writer",
    "post_id": "post_1",
    "delivery_id": "dlv_1",
    "run_id": "run-1",
}


def said(event: Event, subject: str = "dlv_1", **more: object) -> Said:
    return Said("note_1", event, subject, FACTS | more, NOW)


@pytest.mark.parametrize("event", Event)
def test_every_event_says_where_why_who_and_what_to_run(event: Event) -> None:
    text = telling.body(said(event), UI)
    assert "bluesky/studio" in text
    assert "Reason: the platform said no" in text
    assert "Who acts next: the writer" in text
    assert f"{UI}/runs/flow-run/run-1" in text
    assert event is Event.TEST or "Next: clickpost " in text


@pytest.mark.parametrize(
    ("event", "who", "command"),
    [
        (Event.FAILED, "the writer", "clickpost posts show post_1"),
        (Event.HELD, "the account's owner", "clickpost connect bluesky --name studio"),
        (Event.HELD, "an operator", f"{SETTLE} publish"),
        (Event.HELD, telling.PAYER, "clickpost workspaces show"),
        (Event.UNKNOWN, "the account's owner", "clickpost connect bluesky --name studio"),
        (Event.UNKNOWN, "an operator", f"{SETTLE} there"),
        (Event.AWAITING_APPROVAL, "an approver", "clickpost approve post_1"),
        (Event.NOT_REMOVED, "an operator", "clickpost posts takedown post_1"),
        (Event.PAUSED, "the account's owner", "clickpost connect bluesky --name studio"),
        (Event.STUCK, "an operator", "clickpost status"),
    ],
)
def test_the_next_command_is_the_one_that_helps(event: Event, who: str, command: str) -> None:
    assert telling.commands(said(event, who_acts=who))[0] == command


def test_a_digest_has_one_title_and_every_notice() -> None:
    title, text = telling.digest([said(Event.FAILED), said(Event.HELD)], UI)
    assert title == "[ClickPost] bluesky/studio: post_1 was not published (and 1 more)"
    assert text.count("Reason: ") == 2


def test_tries_come_less_and_less_often_and_at_least_hourly() -> None:
    waits = [telling.again_in(tries, 0.5) for tries in range(1, 40)]
    assert waits[:4] == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8)]
    assert waits == sorted(waits)
    assert waits[-1] == timedelta(hours=1)
    assert telling.again_in(1, 0.0) < telling.again_in(1, 1.0)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "no base64!"])
def test_a_short_or_broken_key_signs_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        telling.key_of(secret)
