"""What accounts may still send is shown before anybody sends it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.draft import PostFile
from clickpost.settings import Settings
from clickpost.store import NewConnection, NewPost, Store
from clickpost.store.budgets import Taking
from clickpost.store.tables import Connection
from tasks import budgeting

runner = CliRunner(env={"COLUMNS": "250"})


@pytest.fixture(autouse=True)
def own_house(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command meet the test's database."""
    monkeypatch.setattr(_house, "settings", lambda: settings)


async def connected(store: Store, platform: str, secrets: dict[str, str]) -> Connection:
    new = NewConnection(platform, "studio", "http://127.0.0.1:1", secrets, "them", "4711")
    return await store.add_connection(new)


async def spent(store: Store, settings: Settings, row: Connection, posts: int) -> None:
    """Take for as many posts from the account's budgets."""
    pots = budgeting.pots_of(store, row, _house.policy_of(settings, row))
    for _ in range(posts):
        made = await store.create_post(NewPost(PostFile(text="hello"), (), (row.id,)))
        delivery = (await store.deliveries_of(made.post_id))[0]
        assert await store.reserve(Taking(delivery.id, pots)) is None


async def called(*words: str) -> str:
    """Run a command as a shell would, beside the test's own loop."""
    answer = await asyncio.to_thread(runner.invoke, app, list(words))
    assert answer.exit_code == 0, answer.output
    return answer.output


async def shown(*words: str) -> Any:
    return json.loads(await called(*words, "--json"))


async def previewed(file: Path) -> dict[str, Any]:
    found = await shown("preview", str(file))
    (answer,) = found["targets"]
    return dict(answer)


async def test_connections_show_their_tightest_budget_and_daily_quotas(
    store: Store, settings: Settings
) -> None:
    row = await connected(store, "youtube", {"client_id": "an-app"})
    await spent(store, settings, row, 3)
    (found,) = await shown("connections")
    assert found["budgets"][0] | {"free_again_at": ""} == {
        "per": "account",
        "what": "burst",
        "guard": True,
        "used": 3,
        "total": 25,
        "window_seconds": 3600,
        "free_again_at": "",
    }
    daily = {one["what"]: (one["used"], one["total"], one["per"]) for one in found["budgets"][1:]}
    assert daily == {"uploads": (3, 100, "app"), "units": (3, 10000, "app")}
    table = await called("connections")
    assert "3 of 25 posts (burst guard) in 1 h, free again at " in table
    assert "3 of 100 uploads of the app a day, free again at " in table
    assert "3 of 10000 units of the app a day, free again at " in table


async def test_the_preview_names_a_budget_that_would_not_suffice(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    row = await connected(store, "mastodon", {"access_token": "x"})
    file = tmp_path / "post.yaml"
    file.write_text("kind: post\ntext: hello\nto: [mastodon/studio]\n")
    answer = await previewed(file)
    assert answer["notes"] == []
    await spent(store, settings, row, 25)
    answer = await previewed(file)
    (note,) = answer["notes"]
    assert note.startswith("it would wait: burst guard: 25 posts in 1 h were sent; next at ")
    file.write_text("kind: post\ntext: hello\nto: [mastodon/studio]\nat: 2031-01-01T09:00+01:00\n")
    answer = await previewed(file)
    assert answer["notes"] == []


async def test_an_operator_changes_the_burst_guard_of_an_account(
    store: Store, settings: Settings
) -> None:
    row = await connected(store, "mastodon", {"access_token": "x"})
    assert (await shown("connections", "burst", row.ref))["total"] == 25
    set_ = ("connections", "burst", row.ref, "--posts", "3")
    assert (await shown(*set_))["total"] == 3
    assert (await store.connection(row.id)).burst == 3
    assert (await shown("connections", "burst", row.ref, "--reset"))["total"] == 25
