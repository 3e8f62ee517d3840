"""Which workspace a command is about."""

from __future__ import annotations

import typer

from clickpost.errors import InvalidInput
from clickpost.store import Store
from clickpost.store.tables import Workspace

Which = typer.Option(None, "--workspace", metavar="NAME", help="Its name or id; else the only one.")


async def chosen(store: Store, name: str | None) -> Workspace:
    """Return the workspace of that name or id; None is the only one. InvalidInput for no such."""
    rows = await store.workspaces()
    found = [row for row in rows if name in (None, row.id, row.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(row.name for row in rows)
    if name is None:
        raise InvalidInput(f"--workspace: say which one of {known}")
    raise InvalidInput(f"--workspace: there is no {name} (known: {known})")
