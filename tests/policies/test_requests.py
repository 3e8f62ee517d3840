"""Request policies: every clock is cited, and what is wrong is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from clickpost.errors import InvalidInput
from clickpost.policy import requesting
from clickpost.policy.requesting import Cited
from clickpost.requests import Kind
from clickpost.settings import PROJECT
from tests.policies.test_shipped import sections

RULES = requesting.load(PROJECT / "policies")


def test_what_we_ship_is_sound_and_cited() -> None:
    assert [str(one) for one in requesting.check(PROJECT / "policies").problems] == []
    for law in RULES.laws.values():
        cited = [one for _, one in sections(law) if isinstance(one, Cited)]
        assert len(cited) >= 2
        assert all(one.cite for one in [*cited, *law.refuse.values(), *law.expedite.values()])


def test_no_place_belongs_to_two_laws() -> None:
    places = [place for law in RULES.laws.values() for place in law.places]
    assert len(places) == len(set(places))
    assert "NO" in places  # Norway, and no boolean.


def test_every_law_can_refuse_who_is_not_verified_and_hastens_for_children() -> None:
    for law in RULES.laws.values():
        assert law.ground("unverified", Kind.ERASURE).says
        assert Kind.CHILD in law.expedite


def test_no_clock_without_a_law_is_longer_than_that_of_a_law() -> None:
    from datetime import UTC, datetime

    moment = datetime(2026, 3, 1, tzinfo=UTC)
    least = min(law.clocks(Kind.ACCESS, moment).due_at for law in RULES.laws.values())
    assert RULES.named("default").clocks(Kind.ACCESS, moment).due_at == least


@pytest.mark.parametrize(
    ("name", "said"), [("gpdr", "did you mean gdpr"), ("Atlantis", "unknown jurisdiction")]
)
def test_an_unknown_law_is_told_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        RULES.named(name)


def test_a_ground_holds_only_against_what_it_says() -> None:
    law = RULES.named("gdpr")
    with pytest.raises(InvalidInput, match="no ground 'legal_obligation' for access"):
        law.ground("legal_obligation", Kind.ACCESS)
    with pytest.raises(InvalidInput, match="did you mean legal_claims"):
        law.ground("legal_claim", Kind.ERASURE)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("within: 1 month", "within: soon", "needs a number"),
        ("within: 1 month", "withing: 1 month", "did you mean"),
        ("kinds: [access, portability]", "kinds: [axess]", "must be one of"),
        ("checked: 2026-11-24", "checked: lately", "YYYY-MM-DD"),
        ("places: [AT, ", "places: [AT, AT, ", "AT is there already"),
        ("name: gdpr", "name: gpdr", "must be the file's name"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    text = (PROJECT / "policies" / "requests" / "gdpr.yaml").read_text()
    (folder / "gdpr.yaml").write_text(text.replace(before, after, 1))
    problems = [str(one) for one in requesting.check(tmp_path).problems]
    assert problems
    assert any(said in one for one in problems), problems
    assert all("gdpr.yaml:" in one for one in problems)


def test_what_holds_everywhere_is_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    text = (PROJECT / "policies" / "requests" / "default.yaml").read_text()
    (folder / "default.yaml").write_text(text.partition("everywhere:")[0])
    assert "only there" in str(requesting.check(tmp_path).problems[0])
