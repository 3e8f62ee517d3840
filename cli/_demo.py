"""The demo: sample media, four sandbox accounts, one post with a variant for each platform."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from cli import _house
from cli._output import err, out, show_json
from cli._publishing import Follow, shown, started
from clickpost.draft import MediaItem, PostFile, Wording
from clickpost.media import Cache, samples
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Connection
from connectors._api import client
from deployments import runs
from tasks import connecting, intake

TEXT = (
    "Blue hour in the harbour 🌊⛵\n\n"
    "Three boats, one evening, and the whole sky for a ceiling. The story behind the picture:"
    " https://example.org/harbour_(evening) #harbour #bluehour"
)
LONGER = (
    TEXT + "\n\nFilmed on a phone, upright, in one take: the colours are those of the evening,"
    " and the only thing that we removed before it went out is what a phone writes down about"
    " place and device."
)


#: Where the demo posts.
PLATFORMS = ("bluesky", "instagram", "mastodon", "youtube")


def run(given: Settings, *, as_json: bool) -> int:
    """Publish the sample post, show its progress and its table; return the exit code."""
    post = sample(given)
    code, report = asyncio.run(_published(given, post, quiet=as_json))
    sandbox = f"http://127.0.0.1:{given.sandbox_port}"
    if as_json:
        show_json(report | {"prefect_ui": runs.ui_url(given), "timeline": sandbox})
        return code
    out.print()
    out.print(f"[bold]Prefect UI[/]       {runs.ui_url(given)}")
    out.print(f"[bold]This run[/]         {report['run']}")
    out.print(f"[bold]Sandbox timeline[/] {sandbox}")
    out.print("Everything stays up. Stop it with: make down  (or clickpost down)")
    return code


def sample(given: Settings) -> PostFile:
    """Make the sample media, once, and return the post."""
    folder = given.home / "demo"
    photo, clip = folder / "harbour.jpg", folder / "harbour-film.mov"
    with err.status("drawing a photo") as spinner:
        samples.photo(photo)
        spinner.update("filming a 4K clip as a phone does (once, about 10 s)")
        samples.clip(clip)
    return PostFile(
        text=TEXT,
        title="Blue hour in the harbour",
        media=[
            MediaItem(file=str(photo), alt="Three sailing boats before a low sun"),
            MediaItem(
                file=str(clip),
                alt="Three sailing boats cross a glittering bay while the sun sets, gulls above",
            ),
        ],
        tags=[],
        fit="shorten",
        variants={
            "mastodon": Wording(media=[str(clip)], text=LONGER),
            "instagram": Wording(text=LONGER),
            "youtube": Wording(text=LONGER, tags=["harbour", "blue hour"]),
        },
    )


async def _published(
    given: Settings, post: PostFile, *, quiet: bool
) -> tuple[int, dict[str, object]]:
    async with _house.opened(given) as store:
        with err.status("connecting the sandbox accounts"):
            to = await _connected(given, store)
        looked = await intake.look(post, Path())
        made = await intake.take_in(store, Cache(given.media_root), post, looked, to)
        run_url = await started(given, store, made.post_id, None)
        code, report = await Follow(store, made.post_id, given).to_the_end()
        report["run"] = run_url
        if not quiet:
            out.print(shown(await store.lines(made.post_id)))
        return code, report


async def _connected(given: Settings, store: Store) -> list[Connection]:
    """Connect the sandbox's accounts, or take them where they are connected already."""
    base = f"http://127.0.0.1:{given.sandbox_port}"
    known = {row.ref: row for row in await store.connections()}
    platforms = load_platforms(given.policies)
    rows = []
    async with client() as http:
        accounts = (await http.get(f"{base}/control/accounts")).json()
        for row in [one for one in accounts if _is_shown(one)]:
            ref = f"{row['platform']}/studio"
            there = known.get(ref)
            if there is not None and there.api_base == row["api_base"] and there.status == "active":
                rows.append(there)
                continue
            wish = connecting.Wish(
                platform=row["platform"],
                name="studio",
                api_base=row["api_base"],
                credentials=row["credentials"],
                options=row["options"],
            )
            rows.append(await connecting.connect(store, http, platforms[row["platform"]], wish))
    return rows


def _is_shown(account: dict[str, Any]) -> bool:
    """Say whether the demo posts there; X refuses a text that it had before."""
    return account["name"] == "studio" and account["platform"] in PLATFORMS
