"""What each target would get: wording, renditions, cost; or why it would refuse."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.text import Text

from cli import _house
from cli._output import out
from clickpost import publishing
from clickpost.draft import Enclosed, PostFile, Wish, wish_of
from clickpost.errors import ContentRejected, InvalidInput
from clickpost.media import plan
from clickpost.policy.load import load_platforms
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Connection
from clickpost.wording import measure
from tasks import budgeting, intake, preparing


async def previews(given: Settings, post: PostFile, folder: Path) -> list[dict[str, Any]]:
    """Return for each target what it would get, or refuse."""
    looked = await intake.look(post, folder)
    moment = intake.moment(post)
    media = tuple(
        Enclosed(asset_id=str(number), kind=one.probed.kind.value, file=one.file, alt=one.alt)
        for number, one in enumerate(looked)
    )
    if not post.to:
        raise InvalidInput("to: name at least one target, e.g. bluesky or bluesky/studio")
    platforms = load_platforms(given.policies)
    answers = [
        _preview(name, wish_of(post, media, name, name), platforms[name], looked)
        for name in post.to
        if name in platforms
    ]
    # Only an account needs the database; a plain platform has no budget.
    if rest := [name for name in post.to if name not in platforms]:
        async with _house.opened(given) as store:
            for row in await intake.targets(store, rest):
                policy = _house.policy_of(given, row)
                wish = wish_of(post, media, policy.name, row.ref)
                answers.append(_preview(row.ref, wish, policy, looked))
                answers[-1]["notes"] += await _waits(store, row, policy, answers[-1], moment)
    return answers


async def _waits(
    store: Store,
    row: Connection,
    policy: PlatformPolicy,
    answer: dict[str, Any],
    due_at: datetime | None,
) -> list[str]:
    """Say where the account's budgets would not suffice when the post is due."""
    posts, uploads = len(answer["parts"]), len(answer["media"])
    pots = budgeting.pots_of(store, row, policy)
    linked = sum(budgeting.has_link(part["text"]) for part in answer["parts"])
    short = (
        await store.foresee(pots, posts=posts, linked=linked, uploads=uploads) if posts else None
    )
    if short is None or (due_at is not None and short.until <= due_at):
        return []
    return [f"it would wait: {short.reason}"]


def _preview(
    name: str, wish: Wish, policy: PlatformPolicy, looked: list[intake.Looked]
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "target": name,
        "refused": [],
        "notes": [],
        "parts": [],
        "media": [],
        "cost": policy.cost,
    }
    try:
        media, notes = publishing.choose_media(wish, policy)
        answer["notes"] += notes
        answer["media"] = [_medium(item, policy, looked, len(media)) for item in media]
        answer["refused"] += [fault for one in answer["media"] for fault in one["refused"]]
        wording = preparing.worded(wish, media, policy)
    except ContentRejected as error:
        answer["refused"] += [str(fault) for fault in error.faults]
        return answer
    answer["notes"] += wording.notes
    answer["title"] = wording.title
    answer["tags"] = list(wording.tags)
    answer["parts"] = [
        {"text": part, "units": measure(part, policy.text).units, "limit": policy.text.limit}
        for part in wording.parts
    ]
    return answer


def _medium(
    item: Enclosed, policy: PlatformPolicy, looked: list[intake.Looked], items: int
) -> dict[str, Any]:
    probed = looked[int(item.asset_id)].probed
    target = preparing.target_of("it", policy, items)
    planned = plan(probed, [target])
    made = planned.of("it")
    refusal = planned.refusals.get("it")
    return {
        "file": item.file,
        "alt": item.alt,
        "rendition": made.profile.label if made else None,
        "how": made.profile.how if made else None,
        "because": [str(fault) for fault in planned.why["it"]],
        "refused": [str(fault) for fault in refusal.faults] if refusal else [],
    }


def show(answers: list[dict[str, Any]]) -> None:
    """Print a panel for each target."""
    for answer in answers:
        body = Text()
        for fault in answer["refused"]:
            body.append(f"refused: {fault}\n", "bold red")
        if answer.get("title"):
            body.append(f"{answer['title']}\n", "bold")
        for number, part in enumerate(answer["parts"], 1):
            limit = f" of {part['limit']}" if part["limit"] else ""
            count = f"[{number}] " if len(answer["parts"]) > 1 else ""
            body.append(f"{part['text']}\n")
            body.append(f"{count}{part['units']}{limit}\n", "dim")
        for one in answer["media"]:
            body.append(f"{Path(one['file']).name}: {one['rendition'] or 'refused'}\n", "cyan")
            for fault in one["because"]:
                body.append(f"    {fault}\n", "dim")
        for note in answer["notes"]:
            body.append(f"note: {note}\n", "yellow")
        body.append(f"cost: {answer['cost']}", "dim")
        border = "red" if answer["refused"] else "green"
        out.print(Panel(body, title=answer["target"], border_style=border, title_align="left"))
