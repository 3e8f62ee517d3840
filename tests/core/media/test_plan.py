"""Plans: the fewest renditions that satisfy everybody."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpost.contract import Kind
from clickpost.errors import ContentRejected
from clickpost.media import Probed, Target, faults_of, plan
from clickpost.media.plan import _solved, fewest
from clickpost.policy.shape import Within
from tests.core.media import _house as house

FILM = Probed(
    path=Path("in.mov"),
    kind=Kind.VIDEO,
    format="mov",
    mime="video/quicktime",
    bytes=40_000_000,
    width=1080,
    height=1920,
    sha256="0" * 64,
    duration=20.0,
    fps=30.0,
    frames=600,
    codec="h264",
    chroma="420",
    bitrate=15_000_000,
    audio="aac",
    audio_rate=48_000,
    audio_channels=2,
    audio_bitrate=128_000,
    edit_lists=True,
    metadata=True,
)
PICTURE = replace(
    FILM, kind=Kind.IMAGE, format="jpeg", mime="image/jpeg", duration=None, width=1080, height=1350
)


def test_a_phone_clip_with_words_needs_one_copy_for_all_four() -> None:
    made = plan(FILM, house.targets()).renditions
    assert len(made) == 1
    assert set(made[0].targets) == set(house.ALL)
    assert made[0].profile.how == "metadata removed"
    assert made[0].profile.format == "mp4"


def test_a_4k_clip_needs_one_encode_and_one_copy() -> None:
    wide = replace(FILM, width=2160, height=3840, codec="hevc", fps=60.0, bitrate=50_000_000)
    done = plan(wide, house.targets())
    assert not done.refusals
    how = {one.profile.how: set(one.targets) for one in done.renditions}
    assert how == {
        "encoded": {"bluesky", "mastodon", "instagram"},
        "metadata removed": {"youtube"},
    }


def test_what_complies_is_kept_even_where_others_need_more() -> None:
    clean = replace(FILM, metadata=False, format="mp4", edit_lists=True)
    done = plan(clean, house.targets())
    how = {name: done.of(name).profile.how for name in house.ALL}  # type: ignore[union-attr]
    assert how["mastodon"] == how["bluesky"] == how["youtube"] == "as it is"
    assert how["instagram"] == "metadata removed"
    assert len(done.renditions) == 2


def test_where_sound_waits_nobody_gets_a_copy_without_edit_lists() -> None:
    done = plan(replace(FILM, retimed=True), house.targets())
    assert done.of("instagram").profile.how == "encoded"  # type: ignore[union-attr]
    assert done.of("mastodon").profile.how == "metadata removed"  # type: ignore[union-attr]
    assert len(done.renditions) == 2


def test_a_picture_is_refused_where_none_may_be_and_made_once_for_the_rest() -> None:
    wide = replace(PICTURE, width=6000, height=4000, bytes=18_000_000)
    done = plan(wide, house.targets())
    assert set(done.refusals) == {"youtube"}
    fault = done.refusals["youtube"].faults[0]
    assert (fault.field, fault.limit, fault.found) == ("image", "none", "an image")
    assert len(done.renditions) == 1


def test_what_moves_is_not_stopped_for_the_sake_of_a_neighbour() -> None:
    moving = replace(
        PICTURE, format="gif", animated=True, frames=9, width=7000, height=6000, metadata=True
    )
    done = plan(moving, house.targets("bluesky", "mastodon"))
    assert done.of("mastodon").profile.animated  # type: ignore[union-attr]
    assert not done.of("bluesky").profile.animated  # type: ignore[union-attr]


def test_rules_without_anything_in_common_part_ways() -> None:
    tall = house.target("mastodon", aspect=Within(max=0.8))
    wide = replace(house.target("mastodon", aspect=Within(min=1.2)), name="wide")
    square = replace(FILM, width=1000, height=1000)
    assert len(plan(square, [tall, wide]).renditions) == 2


def test_the_same_rules_twice_are_one_rendition() -> None:
    many = [replace(house.target("mastodon", pixels=9_999), name=f"m{n}") for n in range(40)]
    made = plan(FILM, many).renditions
    assert len(made) == 1
    assert len(made[0].targets) == 40


def test_a_plan_says_why_a_file_cannot_go_as_it_is() -> None:
    wide = replace(FILM, width=2160, height=3840)
    why = plan(wide, house.targets()).why["instagram"]
    assert ("video.width", "at most 1920", "2160") in {(f.field, f.limit, f.found) for f in why}


LIMITS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([None, 25, 30]), st.sampled_from([None, 0.5, 2])),
    min_size=1,
    max_size=5,
)
BOUNDS = (Within(max=0.7), Within(min=0.7, max=1.0), Within(min=1.0, max=1.4), Within(min=1.4))


@settings(max_examples=60, deadline=None)
@given(LIMITS)
def test_no_smaller_partition_exists(limits: list[tuple[int, int | None, float | None]]) -> None:
    wanted = [
        replace(
            house.target("mastodon", aspect=BOUNDS[shape], fps=Within(max=fps), pixels=pixels),
            name=f"t{n}",
        )
        for n, (shape, fps, share) in enumerate(limits)
        for pixels in [None if share is None else int(share * 300_000)]
    ]
    groups = fewest(FILM, wanted)
    assert sorted(one.name for group in groups for one in group) == sorted(t.name for t in wanted)
    assert all(_fits(group) for group in groups)
    assert len(groups) == _least(wanted)


def _fits(group: list[Target] | tuple[Target, ...]) -> bool:
    try:
        _solved(FILM, group)
    except ContentRejected:
        return False
    return True


def _least(wanted: list[Target]) -> int:
    """Count by brute force: how few groups cover everybody."""
    size = range(1, len(wanted) + 1)
    sets = [
        set(one) for one in chain.from_iterable(combinations(range(len(wanted)), n) for n in size)
    ]
    good = [one for one in sets if _fits([wanted[n] for n in sorted(one)])]
    everybody = set(range(len(wanted)))
    return next(
        n for n in size if any(set().union(*some) == everybody for some in combinations(good, n))
    )


@settings(max_examples=200, deadline=None)
@given(
    st.integers(16, 8000),
    st.integers(16, 8000),
    st.floats(1, 240),
    st.floats(3, 590),
    st.sampled_from(["h264", "hevc", "vp9", "prores"]),
)
def test_what_is_planned_keeps_every_limit_of_everybody(
    width: int, height: int, fps: float, seconds: float, codec: str
) -> None:
    source = replace(
        FILM, width=width, height=height, fps=fps, duration=seconds, codec=codec, bytes=10**11
    )
    done = plan(source, house.targets())
    for target in house.targets():
        planned = done.of(target.name)
        if planned is None or planned.profile.how != "encoded":
            assert planned is not None or done.refusals[target.name].faults
            continue
        after = _as_made(source, planned.profile)
        assert not faults_of(after, target.images, target.video)


def _as_made(source: Probed, profile: object) -> Probed:
    fps = profile.fps or source.fps  # type: ignore[attr-defined]
    return replace(
        source,
        format=profile.format,  # type: ignore[attr-defined]
        width=profile.width,  # type: ignore[attr-defined]
        height=profile.height,  # type: ignore[attr-defined]
        fps=fps,
        frames=round(fps * (source.duration or 0)),
        codec="h264",
        bytes=profile.bytes or 0,  # type: ignore[attr-defined]
        bitrate=profile.bitrate,  # type: ignore[attr-defined]
        edit_lists=profile.edit_lists,  # type: ignore[attr-defined]
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 15_000), st.integers(1, 15_000))
def test_a_planned_picture_keeps_every_limit_of_everybody(width: int, height: int) -> None:
    source = replace(PICTURE, width=width, height=height, bytes=10**9)
    wanted = house.targets("bluesky", "mastodon", "instagram")
    done = plan(source, wanted)
    for target in wanted:
        planned = done.of(target.name)
        assert planned is not None
        profile = planned.profile
        after = replace(source, width=profile.width, height=profile.height, bytes=1)
        assert not faults_of(after, target.images, target.video)


@pytest.mark.parametrize("name", house.ALL)
def test_a_refusal_names_its_platform(name: str) -> None:
    long = replace(FILM, duration=23 * 3600.0)
    done = plan(long, house.targets(name))
    if refused := done.refusals.get(name):
        assert str(refused).startswith(f"{name}: ")
        assert refused.faults[0].found
