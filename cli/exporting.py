"""`clickpost privacy export`: all that is held about a person or an account, as one archive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.text import Text

from cli import _house
from cli._actor import As, actor
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.store import Store
from tasks import exporting
from tasks.exporting import Exported


@guarded
def export(
    subject: str = typer.Argument(..., help="The id of the member, or of the workspace."),
    account: bool = typer.Option(False, "--account", help="A whole workspace, not a person."),
    target: Path = typer.Option(
        None, "--out", help="Write the archive there (.zip); else it waits behind a link."
    ),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Write all that is held about somebody into one archive, for programs and for people.

    Tokens and what is about other people stay out; the page in it says so. Without --out a link
    is shown that gives it to whoever has it, until it expires.
    """
    if target is not None and (target.suffix != ".zip" or not target.absolute().parent.is_dir()):
        raise InvalidInput("--out: a file that ends in .zip, in a folder that is there")
    given = _house.settings()
    policy = "account" if account else "person"
    done, link = _house.run(_exported(given, subject, policy, target, actor(name)))
    until = datetime.fromtimestamp(done.parcel.expires, UTC)
    if as_json:
        told = {"export": done.export_id, "rows": dict(done.rows), "files": done.files}
        where = {"file": str(target)} if target else {"link": link, "until": until.isoformat()}
        show_json({**told, "files_missing": done.missing, **where})
        return
    out.print(Text(done.said), soft_wrap=True)
    if target is not None:
        out.print(Text(f"it is in {target}"), soft_wrap=True)
    else:
        out.print(Text(f"until {until:%Y-%m-%d %H:%M} UTC it is at {link}"), soft_wrap=True)


async def _exported(
    given: Settings, subject: str, policy: str, target: Path | None, by: str
) -> tuple[Exported, str]:
    async with _house.opened(given) as store:
        store.policies = given.policies
        done = await exporting.of_subject(given, store, subject, policy, target=target, actor=by)
        return done, _link(given, store, done)


def _link(given: Settings, store: Store, done: Exported) -> str:
    return exporting.link_of(given, store, done.parcel)
