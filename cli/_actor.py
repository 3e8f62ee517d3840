"""Who acts, for the ledger: a declared person who proves it, else the operating system's user."""

from __future__ import annotations

import getpass
import sys
from contextlib import suppress

import typer

from cli import _house
from cli._house import NotStarted
from clickpost.errors import InvalidInput, NotAllowed
from clickpost.people import Right, actor_of
from clickpost.settings import Settings
from clickpost.store import Store

As = typer.Option(
    None,
    "--as",
    metavar="NAME",
    help="Who you are, for the ledger; else your user. Not where people are declared: there your"
    " personal secret says it.",
)


def actor(name: str | None = None) -> str:
    """Return the actor as the ledger writes it; NotAllowed for a secret that is nobody's."""
    given = _house.settings()
    return _house.run(_acting(given, name))


async def _acting(given: Settings, name: str | None) -> str:
    async with _house.opened(given) as store:
        return await _proven(given, store, name)


async def _proven(given: Settings, store: Store, name: str | None) -> str:
    if not await store.anybody():
        return f"operator:{_named(name)}"
    if name is not None:
        raise InvalidInput("--as: people are declared here; your personal secret says who acts")
    return actor_of((await store.prove(_secret(given))).id)


def permitted(right: Right) -> str:
    """Return the actor, who has the right now; NotAllowed for who has not.

    For what is no act of the store's own, which asks for itself, within the act's transaction.
    """
    given = _house.settings()
    return _house.run(_permitted(given, right))


async def _permitted(given: Settings, right: Right) -> str:
    async with _house.opened(given) as store:
        by = await _proven(given, store, None)
        await store.require(by, right)
        return by


def permitted_where_known(right: Right) -> None:
    """Raise NotAllowed for who has not the right; where there are no tables nobody is declared."""
    with suppress(NotStarted):
        permitted(right)


def _named(name: str | None) -> str:
    if name is not None and (not name.strip() or len(name) > 100):
        raise InvalidInput("--as: a name of 1 to 100 characters")
    try:
        return name.strip() if name else getpass.getuser()
    except (OSError, KeyError):  # A container's user may have no name.
        raise InvalidInput("--as: name yourself; your user has no name here") from None


def _secret(given: Settings) -> str:
    """Return the personal secret: from the environment, a file, or whoever sits there."""
    if given.person_secret is not None:
        return given.person_secret.get_secret_value()
    if given.person_secret_file is not None:
        return _read(given)
    if sys.stdin.isatty():
        return getpass.getpass("Your personal secret: ")
    raise NotAllowed(
        "people are declared here: name the file with your personal secret in"
        " CLICKPOST_PERSON_SECRET_FILE"
    )


def _read(given: Settings) -> str:
    path = given.person_secret_file
    assert path is not None
    try:
        if path.stat().st_mode & 0o077:
            raise InvalidInput(
                f"{path}: others may read your secret there; first run: chmod 600 {path}"
            )
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
