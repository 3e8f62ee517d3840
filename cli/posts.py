"""`clickpost publish | preview | posts`: the main job, looked at beforehand and afterwards."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from cli import _changing, _house, _postfile, _preview, series
from cli._actor import actor
from cli._arguments import POST
from cli._output import DONE, FAILED, AsJson, guarded, out, show_json
from cli._publishing import Again, Follow, note, report_of, scheduled, shown, started, tags_of
from cli._settling import settle
from clickpost import repeats
from clickpost.delivery import CANCELLABLE, State
from clickpost.draft import PostFile
from clickpost.errors import Conflict, InvalidInput
from clickpost.media import Cache
from clickpost.people import Right
from clickpost.recurrence import occurrences, recurrence
from clickpost.settings import Settings
from clickpost.store import Store
from deployments import runs
from tasks import intake

app = typer.Typer(no_args_is_help=True, help="Look at posts, and act on them.")

FileArgument = typer.Argument(None, metavar="[POST.yaml]", help="The post as YAML or JSON.")
Text = typer.Option(None, "--text", help="The text.")
TextFile = typer.Option(None, "--text-file", help="A file with the text; - for standard input.")
Title = typer.Option(None, "--title", help="The title, where the platform has one.")
Media = typer.Option([], "--media", help="A photo or clip; again for more.")
Alt = typer.Option([], "--alt", help="What the medium shows; in the order of --media.")
To = typer.Option([], "--to", help="A target, PLATFORM/NAME; again for more.")
At = typer.Option(None, "--at", help="When it is due: 2026-12-01T09:00+01:00, or next-slot.")
Zone = typer.Option(None, "--zone", help="IANA zone of --at where it has no offset.")
FitOption = typer.Option(None, "--fit", help="Too long a text: refuse, shorten or thread.")
LateOption = typer.Option(None, "--late", help="Too late: publish, skip or ask.")
Key = typer.Option(None, "--key", help="Your own key: the same key is the same post.")
Seen = typer.Option(None, "--visibility", help="public, unlisted, private or direct.")
TagOption = typer.Option([], "--tag", help="A hashtag; again for more.")
RepeatOption = typer.Option(
    None, "--repeat", help="An RRULE, e.g. FREQ=WEEKLY;BYDAY=MO;BYHOUR=9; needs --zone."
)


def add_to(main: typer.Typer) -> None:
    """Add the commands to the command line."""
    main.command()(publish)
    main.command()(preview)
    main.add_typer(app, name="posts")


@guarded
def publish(
    file: Path = FileArgument,
    text: str = Text,
    text_file: Path = TextFile,
    title: str = Title,
    media: list[str] = Media,
    alt: list[str] = Alt,
    to: list[str] = To,
    at: str = At,
    zone: str = Zone,
    fit: str = FitOption,
    late: str = LateOption,
    key: str = Key,
    visibility: str = Seen,
    tag: list[str] = TagOption,
    repeat: str = RepeatOption,
    again: bool = Again,
    draft: bool = typer.Option(False, "--draft", help="Keep it; publish it later."),
    wait: bool = typer.Option(False, "--wait", help="Wait until every delivery has ended."),
    as_json: bool = AsJson,
) -> None:
    """Publish a post on its targets: now, at a moment, at the next slot, or again and again."""
    given = _house.settings()
    flags = _postfile.Flags(
        text, text_file, title, media, alt, to, at, zone, fit, late, key, visibility, tag, repeat
    )
    post, folder = _postfile.post_of(file, flags)
    how = _How(draft=draft, wait=wait, quiet=as_json, again=again, by=actor())
    work = _publish if post.repeat is None else _repeat
    code, report = _house.run(work(given, post, folder, how))
    if as_json:
        show_json(report)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _How:
    """What the flags of `publish` say beside the post."""

    draft: bool
    wait: bool
    quiet: bool
    again: bool
    by: str


async def _repeat(
    given: Settings, post: PostFile, folder: Path, how: _How
) -> tuple[int, dict[str, Any]]:
    """Begin a series: its posts are made from the file as it is now."""
    now = datetime.now(UTC)
    if how.draft or how.wait or post.repeat is None or post.at == "next-slot":
        raise InvalidInput("repeat: goes with neither --draft nor --wait nor next-slot")
    rule = recurrence(post.repeat, intake.moment(post), post.zone, now)
    async with _house.opened(given) as store:
        to = await intake.targets(store, post.to)
        looked = await intake.look(post, folder)
        new = await intake.brought_in(store, Cache(given.media_root), post, looked, to)
        first = next(occurrences(rule, now))
        begun = await store.create_series(replace(new, by=how.by), rule, first)
        if not begun.existing:
            await series.extended(given, store, begun.series_id)
        report = await series.told(store, await store.series(begun.series_id))
    if not how.quiet:
        series.print_one(report)
    return DONE, report | {"existing": begun.existing}


async def _publish(
    given: Settings, post: PostFile, folder: Path, how: _How
) -> tuple[int, dict[str, Any]]:
    draft, policy_of = how.draft, partial(_house.policy_of, given)
    async with _house.opened(given) as store:
        to = await intake.targets(store, post.to)
        looked = await intake.look(post, folder)
        moment = intake.moment(post)
        cache = Cache(given.media_root)
        made = await intake.take_in(
            store, cache, post, looked, to, policy_of, draft=draft, again=how.again, by=how.by
        )
        note(made.repeats)
        report: dict[str, Any] = {"repeats": [str(said) for said in made.repeats]}
        if not made.existing and not draft:
            report["run"] = (
                await scheduled(given, store, made.post_id)
                if post.at == "next-slot"
                else await started(given, store, made.post_id, moment)
            )
            moment = (await store.post(made.post_id)).due_at
        waits = how.wait and not draft and not made.existing and not _far(moment)
        follow = Follow(store, made.post_id, given)
        code, found = (
            await follow.to_the_end() if waits else (DONE, await report_of(store, made.post_id))
        )
        report = found | report | {"existing": made.existing}
        if not how.quiet:
            await _say(store, made.post_id, report, moment)
    return code, report


def _far(moment: datetime | None) -> bool:
    return moment is not None and moment - datetime.now(UTC) > timedelta(minutes=10)


async def _say(store: Store, post_id: str, report: dict[str, Any], moment: datetime | None) -> None:
    if report["existing"]:
        out.print(f"[bold]{post_id}[/] has this key already; nothing was sent again")
    elif moment is not None:
        out.print(f"[bold]{post_id}[/] is due {moment:%Y-%m-%d %H:%M:%S} UTC")
    else:
        out.print(f"[bold]{post_id}[/]")
    out.print(shown(await store.lines(post_id)))
    if "run" in report:
        out.print(f"run: {report['run']}")


@guarded
def preview(
    file: Path = FileArgument,
    text: str = Text,
    text_file: Path = TextFile,
    title: str = Title,
    media: list[str] = Media,
    alt: list[str] = Alt,
    to: list[str] = To,
    at: str = At,
    zone: str = Zone,
    fit: str = FitOption,
    late: str = LateOption,
    key: str = Key,
    visibility: str = Seen,
    tag: list[str] = TagOption,
    as_json: bool = AsJson,
) -> None:
    """Show what each platform would get, or refuse and why; send nothing.

    Targets may be accounts (PLATFORM/NAME) or plain platforms, which need no account.
    """
    flags = _postfile.Flags(
        text, text_file, title, media, alt, to, at, zone, fit, late, key, visibility, tag
    )
    post, folder = _postfile.post_of(file, flags)
    previews = _house.run(_preview.previews(_house.settings(), post, folder))
    if as_json:
        show_json({"targets": previews})
    else:
        _preview.show(previews)
    raise typer.Exit(FAILED if any(one["refused"] for one in previews) else DONE)


@app.command("list")
@guarded
def list_posts(
    limit: int = typer.Option(20, help="How many of the newest."),
    state: State = typer.Option(None, "--state", help="Only with a delivery that stands so."),
    as_json: bool = AsJson,
) -> None:
    """List the newest posts."""
    rows = _house.run(_newest(_house.settings(), limit, state))
    if as_json:
        show_json(rows)
        return
    table = Table("post", "made (UTC)", "due (UTC)", "deliveries", box=None, header_style="dim")
    for row in rows:
        table.add_row(row["post"], row["created_at"], row["due_at"] or "at once", row["states"])
    out.print(table if rows else "no posts yet")


async def _newest(given: Settings, limit: int, state: State | None) -> list[dict[str, Any]]:
    async with _house.opened(given) as store:
        return [
            {
                "post": post.id,
                "created_at": f"{post.created_at:%Y-%m-%d %H:%M}",
                "due_at": f"{post.due_at:%Y-%m-%d %H:%M}" if post.due_at else None,
                "states": ", ".join(
                    f"{line.ref} {line.state.value}" for line in await store.lines(post.id)
                ),
            }
            for post in await store.posts(limit, state)
        ]


@app.command()
@guarded
def show(post_id: str = POST, as_json: bool = AsJson) -> None:
    """Show where a post is, and who must act."""
    report = _house.run(_shown(_house.settings(), post_id, quiet=as_json))
    if as_json:
        show_json(report)


async def _shown(given: Settings, post_id: str, *, quiet: bool) -> dict[str, Any]:
    async with _house.opened(given) as store:
        post = await store.post(post_id)
        if not quiet:
            out.print(f"[bold]{post.id}[/]")
            out.print(shown(await store.lines(post_id)))
            if post.flow_run_id:
                out.print(f"run: {runs.run_url(given, post.flow_run_id)}")
        return await report_of(store, post_id)


@app.command()
@guarded
def retry(
    post_id: str = POST,
    wait: bool = typer.Option(False, "--wait", help="Wait until every delivery has ended."),
    as_json: bool = AsJson,
) -> None:
    """Try again what failed, was missed or kept as a draft; what is live stays as it is."""
    states = (State.FAILED, State.MISSED, State.DRAFTED, State.HELD)
    given, by = _house.settings(), actor()
    code, report = _house.run(_again(given, post_id, states, by, wait=wait, quiet=as_json))
    if as_json:
        show_json(report)
    raise typer.Exit(code)


async def _again(
    given: Settings,
    post_id: str,
    states: tuple[State, ...],
    by: str,
    *,
    wait: bool,
    quiet: bool,
) -> tuple[int, dict[str, Any]]:
    async with _house.opened(given) as store:
        await store.post(post_id)
        await store.require(by, Right.PUBLISH)
        going = (State.PLANNED, State.PREPARING, State.READY, State.PROCESSING, State.UNKNOWN)
        moved = 0
        for line in await store.lines(post_id):
            moved += line.state in going and State.FAILED in states  # A run takes it further.
            if line.state in states:
                fresh: dict[str, Any] = {"attempts": 0, "not_before": None, "due_at": None}
                await store.move(line.id, line.state, State.PLANNED, actor=by, **fresh)
                moved += 1
        if not moved:
            raise InvalidInput(
                f"{post_id}: nothing to try again; see: clickpost posts show {post_id}"
            )
        run_url = await started(given, store, post_id, None)
        code = DONE
        if wait:
            code, report = await Follow(store, post_id, given).to_the_end()
        else:
            report = await report_of(store, post_id)
        if not quiet:
            out.print(shown(await store.lines(post_id)))
            out.print(f"run: {run_url}")
        return code, report | {"run": run_url}


@app.command("publish")
@guarded
def publish_draft(
    post_id: str = POST,
    again: bool = Again,
    wait: bool = typer.Option(False, "--wait", help="Wait until every delivery has ended."),
    as_json: bool = AsJson,
) -> None:
    """Publish a draft now."""
    given, by = _house.settings(), actor()
    _house.run(_repeats(given, post_id, again=again))
    drafts = (State.DRAFTED,)
    code, report = _house.run(_again(given, post_id, drafts, by, wait=wait, quiet=as_json))
    if as_json:
        show_json(report)
    raise typer.Exit(code)


async def _repeats(given: Settings, post_id: str, *, again: bool) -> None:
    """Tell where an account got lately what the draft says; raise where its policy blocks that."""
    async with _house.opened(given) as store:
        guards = {}
        for row in await store.deliveries_of(post_id):
            if row.state is State.DRAFTED and row.fingerprint:
                policy = _house.policy_of(given, await store.connection(row.connection_id))
                guards[row.connection_id] = repeats.guard(row.fingerprint, policy.repeat_guard)
        note(await store.repeats_of(post_id, guards, again=again))


@app.command()
@guarded
def cancel(post_id: str = POST, as_json: bool = AsJson) -> None:
    """Cancel what has not been sent; what is live stays (see takedown)."""
    report = _house.run(_cancelled(_house.settings(), post_id, actor()))
    if as_json:
        show_json(report)
    else:
        done = [one["connection"] for one in report["deliveries"] if one["state"] == "cancelled"]
        out.print(f"cancelled: {', '.join(done) if done else 'nothing was left to cancel'}")


async def _cancelled(given: Settings, post_id: str, by: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        await store.post(post_id)
        await store.require(by, Right.CANCEL)
        for line in await store.lines(post_id):
            await _stopped(store, line.id, by)
        return await report_of(store, post_id)


async def _stopped(store: Store, delivery_id: str, by: str) -> None:
    """Cancel it, whatever a worker makes of it meanwhile, unless it is on its way by then."""
    while (state := (await store.delivery(delivery_id)).state) in CANCELLABLE:
        with suppress(Conflict):  # It moved in this very moment: look again.
            await store.move(delivery_id, state, State.CANCELLED, actor=by)


app.command()(settle)
app.command()(_changing.reschedule)
app.command()(_changing.edit)


@app.command()
@guarded
def takedown(post_id: str = POST, as_json: bool = AsJson) -> None:
    """Delete a post on every platform that can, and say where it cannot be done."""
    code, report = _house.run(_taken(_house.settings(), post_id, actor(), quiet=as_json))
    if as_json:
        show_json(report)
    raise typer.Exit(code)


async def _taken(
    given: Settings, post_id: str, by: str, *, quiet: bool
) -> tuple[int, dict[str, Any]]:
    async with _house.opened(given) as store:
        await store.post(post_id)
        wanted = await store.want_down(post_id, actor=by)  # Kept, whatever comes.
        about = {"post": {"post_id": post_id}}
        run_id = runs.start(given, "takedown", about, tags=await tags_of(store, post_id))
        for _ in range(240):
            state = runs.state_of(given, run_id)
            if state is not None and state.type in runs.ENDED:
                break
            await asyncio.sleep(0.5)
        lines = await store.lines(post_id)
        if not quiet:
            out.print(shown(lines))
            out.print(f"run: {runs.run_url(given, run_id)}")
        down = {State.REMOVED, State.CANCELLED}
        left = any(line.id in wanted and line.state not in down for line in lines)
        return FAILED if left else DONE, await report_of(store, post_id)
