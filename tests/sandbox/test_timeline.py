"""The timeline shows what each platform got, as that would show it, and trusts none of it."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import pytest
from PIL import Image
from starlette.applications import Starlette

from sandbox.state import State
from sandbox.timeline import Timeline, body_of, frame_of, notes_of

DIGEST = "a" * 64


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "sandbox")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, the first of them black, the second white."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"),
        *("-f", "lavfi", "-i", "color=black:size=64x128:rate=10:duration=1"),
        *("-f", "lavfi", "-i", "color=white:size=64x128:rate=10:duration=1"),
        *("-filter_complex", "concat=n=2", "-pix_fmt", "yuv420p", str(path)),
    ]
    subprocess.run(command, check=True)
    return path


async def page(state: State, path: str = "/", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=Timeline(state).routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
        return await http.get(path, headers=headers)


def video(**more: Any) -> dict[str, Any]:
    facts = {"kind": "video", "sha256": DIGEST, "mime": "video/mp4", "alt": "", "bytes": 1000}
    facts |= {"width": 64, "height": 128, "duration": 2.0, "fps": 10.0, "codec": "h264"}
    return {**facts, **more}


def tube(state: State, **more: Any) -> dict[str, Any]:
    said = {"title": "Boats", "text": "Hi", "tags": ["blue hour"], "privacy": "public"}
    said |= {"media": [video()], "handle": "studio", "failure": None}
    return state.add_post("youtube", "UC1", "vid1", **{**said, **more})


async def test_an_empty_timeline_says_how_to_fill_it(state: State) -> None:
    told = await page(state)
    assert told.status_code == 200
    assert "clickpost demo" in told.text


async def test_a_post_that_is_not_there_leads_back(state: State) -> None:
    told = await page(state, "/p/youtube/nope")
    assert told.status_code == 404
    assert 'href="/">Back to the timeline' in told.text


async def test_a_video_stands_with_its_poster_title_tags_and_permalink(state: State) -> None:
    tube(state)
    told = (await page(state, "/?platform=youtube")).text
    assert f'poster="/poster/{DIGEST}"' in told
    assert f'src="/media/{DIGEST}"' in told
    assert 'aria-label="Boats"' in told
    assert "<h3>Boats</h3>" in told
    assert "<li>blue hour</li>" in told
    assert 'href="/p/youtube/vid1"' in told


async def test_pictures_lead_on_youtube_and_words_lead_on_mastodon(state: State) -> None:
    tube(state, text="the words")
    told = (await page(state, "/p/youtube/vid1")).text
    assert told.index("<video") < told.index("the words")
    state.add_post(
        "mastodon", "1", "2", text="the words", media=[video()], handle="s", visibility="public"
    )
    told = (await page(state, "/p/mastodon/2")).text
    assert told.index("the words") < told.index("<video")


def test_what_is_not_usual_is_written_beside_a_post(state: State) -> None:
    odd = tube(state, privacy="private", publish_at="2026-09-01T10:00:00Z", failure="conversion")
    assert notes_of(odd) == [
        "private",
        "public from 2026-09-01T10:00:00Z",
        "processing failed: conversion",
        "Short",
    ]
    assert notes_of(tube(state, media=[video(width=256)])) == []


def test_addresses_tags_and_mentions_read_as_the_platform_shows_them(state: State) -> None:
    text = "See https://ex.org/a_(b)?q=#x. #blue @studio."
    assert body_of(tube(state, text=text)) == (
        'See <a href="https://ex.org/a_(b)?q=#x" rel="noopener noreferrer">'
        'https://ex.org/a_(b)?q=#x</a>. <span class="tag">#blue</span> '
        '<span class="tag">@studio</span>.'
    )
    gram = {"platform": "instagram", "text": text}
    assert "<a " not in body_of(gram)


@pytest.mark.parametrize("text", ["<script>x</script>", 'https://e.org/"onx=1', "a & <b>b</b>"])
async def test_nothing_that_somebody_wrote_runs(state: State, text: str) -> None:
    tube(state, text=text, title=text, tags=[text])
    told = (await page(state)).text
    assert "<script>x" not in told
    assert "<b>b" not in told
    assert 'href="https://e.org/"onx' not in told


def test_a_facet_that_cuts_a_character_breaks_no_page() -> None:
    facet = {"index": {"byteStart": 1, "byteEnd": 3}, "features": [{"tag": "x"}]}
    post = {"platform": "bluesky", "record": {"text": "éé", "facets": [facet]}}
    assert '<span class="tag">' in body_of(post)


async def test_a_video_plays_from_any_place(state: State, film: Path) -> None:
    tube(state)
    (state.folder / "media" / DIGEST).write_bytes(film.read_bytes())
    told = await page(state, f"/media/{DIGEST}", Range="bytes=4-7")
    assert (told.status_code, told.content) == (206, b"ftyp")
    assert told.headers["content-type"] == "video/mp4"


async def test_a_poster_is_a_frame_from_after_the_dark(state: State, film: Path) -> None:
    (state.folder / "media" / DIGEST).write_bytes(film.read_bytes())
    told = await page(state, f"/poster/{DIGEST}")
    assert told.headers["content-type"] == "image/jpeg"
    picture = Image.open(BytesIO(told.content)).convert("L")
    assert picture.size == (64, 128)
    assert picture.getpixel((32, 64)) > 200


async def test_what_is_no_video_has_no_poster(state: State, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"no film")
    assert frame_of(broken) is None
    assert (await page(state, "/poster/..%2Fstate.json")).status_code == 404
