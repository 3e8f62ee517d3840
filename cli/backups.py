"""`clickpost backup | restore | replay`: the database, and that a restore brings nobody back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import typer

from cli import _house
from cli._actor import permitted, permitted_where_known
from cli._output import AsJson, err, guarded, out, show_json
from clickpost import logs
from clickpost.people import Right
from clickpost.settings import Settings
from clickpost.store import address
from clickpost.store.database import migrate
from clickpost.store.restores import refuse
from clickpost.store.tombstones import Tombstones
from clickpost.store.vault import Vault
from deployments import backups
from deployments.stack import Stack
from tasks import _wiring, replaying
from tasks.replaying import Replay


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(backup)
    app.command()(restore)
    app.command()(replay)


@guarded
def backup(
    file: Path = typer.Argument(..., help="Where to write it; nothing is overwritten."),
    as_json: bool = AsJson,
) -> None:
    """Write a backup of the database, while everything runs; no key is in it.

    Keep the keys and the tombstones (`master.key`, `signing.key`, `tombstones/` of the home) apart
    from it, and the folder of media by itself.
    """
    given = _house.settings()
    permitted(Right.MAINTAIN)
    _house.run(_is_there(given))
    refuse(address(given), Tombstones.of(given, Vault.of(given)))
    size = backups.dump(given, address(given), file.absolute())
    if as_json:
        show_json({"file": str(file), "bytes": size})
    else:
        out.print(f"{file}: {size} bytes. Keep the keys and the tombstones elsewhere, not with it")


async def _is_there(given: Settings) -> None:
    async with _house.opened(given) as store:
        await store.version()


@guarded
def restore(
    file: Path = typer.Argument(..., help="What `clickpost backup` wrote."),
    replace: bool = typer.Option(
        False, "--replace", help="Also where the database is not empty: what is in it is lost."
    ),
    as_json: bool = AsJson,
) -> None:
    """Bring a backup back, and do again what was erased since; the stack has to be down.

    What was due and is unsent in the backup is set aside as missed: it may have been sent since.
    """
    given = _house.settings()
    with _alone(given) as url:
        permitted_where_known(Right.MAINTAIN)
        Tombstones.of(given, Vault.of(given)).check()
        backups.load(given, url, file.absolute(), replace=replace)
        migrate(url)
        done = _house.run(_replayed(given))
    _show(done, as_json=as_json)


@guarded
def replay(as_json: bool = AsJson) -> None:
    """Do again what was erased, in a database that other tools restored; the stack is down."""
    given = _house.settings()
    with _alone(given) as url:
        permitted_where_known(Right.MAINTAIN)
        migrate(url)
        done = _house.run(_replayed(given))
    _show(done, as_json=as_json)


@contextmanager
def _alone(given: Settings) -> Iterator[str]:
    logs.configure(given.log_format, given.log_level)
    with (
        err.status("looking at what runs") as spinner,
        Stack(given).database_alone(spinner.update) as url,
    ):
        yield url


async def _replayed(given: Settings) -> Replay:
    try:
        return await replaying.replay(await _wiring.house())
    finally:
        await _wiring.close()


def _show(done: Replay, *, as_json: bool) -> None:
    if as_json:
        show_json(asdict(done))
        return
    if not done.was_restored:
        out.print("nothing was forgotten: the database is as far as the tombstones know")
        return
    out.print(
        f"{done.tombstones} tombstones, {done.erased} people or accounts erased again;"
        f" {done.set_aside} deliveries set aside: they may have been sent since the backup"
    )
    if done.set_aside:
        out.print("look at their accounts, then: clickpost posts retry, or cancel")
