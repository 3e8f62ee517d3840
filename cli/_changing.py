"""`clickpost posts reschedule | edit`: another time or content for what is not sent yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import typer

from cli import _house, _postfile
from cli._actor import As, actor
from cli._arguments import POST
from cli._output import AsJson, guarded, out, show_json
from cli._publishing import Again, note, report_of, scheduled, started
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput
from clickpost.media import Cache
from clickpost.settings import Settings
from clickpost.store import Store
from tasks import intake

#: What a run is for: the rest is a draft, or settled.
GOING = (State.PLANNED, State.PREPARING, State.READY, State.AWAITING_APPROVAL)


@guarded
def reschedule(
    post_id: str = POST,
    at: str = typer.Option(..., "--at", help="2026-12-01T09:00+01:00, next-slot, or now."),
    zone: str = typer.Option(None, "--zone", help="IANA zone of --at where it has no offset."),
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Give what is not sent another time; nothing of it is sent at the old one."""
    moment = _moment(at, zone)
    report = _house.run(_rescheduled(_house.settings(), post_id, moment, actor(name)))
    _say(report, as_json=as_json)


def _moment(at: str, zone: str | None) -> datetime | None:
    """Return the new time, None for the next slot; raise InvalidInput for one that is past."""
    now = datetime.now(UTC)
    if at == "now":
        return now
    moment = intake.moment(PostFile(at=_postfile.time_of(at), zone=zone))
    if moment is not None and moment <= now:
        raise InvalidInput("--at: is past; to send it at once: --at now")
    return moment


async def _rescheduled(
    given: Settings, post_id: str, moment: datetime | None, by: str
) -> dict[str, Any]:
    async with _house.opened(given) as store:
        await store.post(post_id)
        await store.reschedule(post_id, moment, actor=by)
        return await _going(given, store, post_id)


@guarded
def edit(
    post_id: str = POST,
    file: Path = typer.Argument(metavar="POST.yaml", help="The post as it shall be."),
    again: bool = Again,
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Give a post that is not sent another content; its preparation and approvals are void.

    Without `to` its targets stay, without `at` its time.
    """
    post, folder = _postfile.post_of(file, _postfile.NO_FLAGS)
    report = _house.run(_edited(_house.settings(), post_id, post, folder, actor(name), again=again))
    _say(report, as_json=as_json)


async def _edited(
    given: Settings, post_id: str, post: PostFile, folder: Path, by: str, *, again: bool = False
) -> dict[str, Any]:
    if post.repeat is not None:
        raise InvalidInput("repeat: one post cannot become a series; publish the file instead")
    async with _house.opened(given) as store:
        known = PostFile.model_validate((await store.post(post_id)).body["post"])
        kept: dict[str, Any] = {"key": known.key, "to": post.to or known.to}
        if post.at is None:
            kept |= {"at": known.at, "zone": known.zone}
        changed = post.model_copy(update=kept)
        to = await intake.targets(store, changed.to)
        looked = await intake.look(changed, folder)
        new = await intake.brought_in(
            store, Cache(given.media_root), changed, looked, to, partial(_house.policy_of, given)
        )
        if post.at is None:  # Each account keeps the time that it has.
            new = replace(new, due_at=None, next_slot=False)
        repeats = await store.edit_post(post_id, replace(new, again=again), actor=by)
        note(repeats)
        return await _going(given, store, post_id) | {"repeats": [str(said) for said in repeats]}


async def _going(given: Settings, store: Store, post_id: str) -> dict[str, Any]:
    """Start the runs of the post's new moments; a draft has none."""
    lines = await store.lines(post_id)
    report: dict[str, Any] = {}
    if any(line.state in GOING for line in lines):
        past = all(line.due_at is None for line in lines)
        run = started(given, store, post_id, None) if past else scheduled(given, store, post_id)
        report["run"] = await run
    return await report_of(store, post_id) | report


def _say(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(report)
        return
    for one in report["deliveries"]:
        out.print(f"{one['connection']} {one['state']}, due {one['due_at'] or 'at once'}")
    if "run" in report:
        out.print(f"run: {report['run']}")
