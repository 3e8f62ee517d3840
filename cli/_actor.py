"""Who acts, for the ledger: the operating system's user, or who `--as` names."""

from __future__ import annotations

import getpass

import typer

from clickpost.errors import InvalidInput

As = typer.Option(None, "--as", metavar="NAME", help="Who you are, for the ledger; else your user.")


def actor(name: str | None) -> str:
    """Return the actor as the ledger writes it."""
    if name is not None and (not name.strip() or len(name) > 100):
        raise InvalidInput("--as: a name of 1 to 100 characters")
    try:
        return f"operator:{name.strip() if name else getpass.getuser()}"
    except (OSError, KeyError):  # A container's user may have no name.
        raise InvalidInput("--as: name yourself; your user has no name here") from None
