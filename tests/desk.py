"""A house at one desk: real store, real connectors, a sandbox of its own, and no Prefect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.media import Cache
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from connectors._api import client
from sandbox.testing import serve
from tasks import _wiring, connecting, intake, preparing, sending
from tasks._wiring import House


@asynccontextmanager
async def desk_at(
    store: Store,
    settings: Settings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *platforms: str,
) -> AsyncIterator[Desk]:
    """Yield a desk in `folder` with accounts of `platforms` connected."""
    made = House(settings, store, store.vault, client(), Cache(folder), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    with serve(folder / "sandbox") as base:
        desk = Desk(made, base)
        for platform in platforms:
            await desk.connect(platform)
        yield desk
    await made.client.aclose()


class Desk:
    """A house with a sandbox of its own, without Prefect; `tasks._wiring.house` has to give it."""

    def __init__(self, house: House, sandbox: str) -> None:
        self.house, self.store, self.sandbox = house, house.store, sandbox

    async def connect(self, platform: str) -> None:
        rows = (await self.house.client.get(f"{self.sandbox}/control/accounts")).json()
        row = next(one for one in rows if one["platform"] == platform)
        options = row["options"]
        wish = connecting.Wish(platform, "studio", row["credentials"], row["api_base"], options)
        policy = load_platforms(self.house.settings.policies)[platform]
        await connecting.connect(self.store, self.house.client, policy, wish)

    async def order(self, platform: str, what: str, step: str = "*", **more: Any) -> None:
        said = {"platform": platform, "what": what, "step": step, **more}
        done = await self.house.client.post(f"{self.sandbox}/control/misbehave", json=said)
        done.raise_for_status()

    async def calm(self) -> None:
        await self.house.client.delete(f"{self.sandbox}/control/misbehave")

    async def there(self, text: str) -> int:
        rows = (await self.house.client.get(f"{self.sandbox}/control/posts")).json()
        return sum(row["text"].startswith(text) for row in rows)

    async def post(self, platform: str, text: str, **more: Any) -> str:
        """Take a post in, prepare it, and return its delivery's id."""
        post = PostFile(text=text, to=[f"{platform}/studio"], **more)
        to = await intake.targets(self.store, post.to)
        looked = await intake.look(post, Path())
        made = await intake.take_in(self.store, self.house.cache, post, looked, to)
        await preparing.compose(made.post_id)
        return (await self.store.deliveries_of(made.post_id))[0].id

    async def state(self, delivery_id: str) -> State:
        return (await self.store.delivery(delivery_id)).state

    async def aged(self, delivery_id: str, by: timedelta = timedelta(minutes=2)) -> None:
        """Let the send be longer ago, past the platform's settle time."""
        async with self.store.engine.begin() as db:
            for table, column in (("delivery", "sent_at"), ("attempt", "started_at")):
                where = "id" if table == "delivery" else "delivery_id"
                await db.exec_driver_sql(
                    f"UPDATE {table} SET {column} = {column} - %s WHERE {where} = %s",
                    (by, delivery_id),
                )

    async def unknown(self, platform: str, what: str, text: str, **more: Any) -> str:
        """Send a post whose outcome gets lost, long enough ago to look for it."""
        step = {"bluesky": "put_record", "mastodon": "status"}[platform]
        delivery_id = await self.post(platform, text, **more)
        await self.order(platform, what, step)
        assert (await sending.send(delivery_id)).state is State.UNKNOWN
        await self.calm()
        await self.aged(delivery_id)
        return delivery_id
