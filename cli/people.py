"""`clickpost people`: who may do what, the secret that proves it, codes for forms in the UI."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table

from cli import _house
from cli._actor import actor
from cli._output import AsJson, guarded, out, show_json
from clickpost.people import person_of
from clickpost.settings import Settings
from clickpost.store import Named
from clickpost.store.tables import Person
from tasks import signing_off
from tasks.signing_off import Signed

app = typer.Typer(
    no_args_is_help=True,
    help="Who may publish, approve, answer, take down, erase and see personal data. While nobody"
    " is declared, everybody may do everything.",
)
NAME = typer.Argument(metavar="NAME", help="The person's name, as the list shows it.")
ROLES = typer.Option(
    [], "--role", help="A role of policies/roles/clickpost.yaml; again for more of them."
)


@app.command()
@guarded
def add(name: str = NAME, role: list[str] = ROLES, as_json: bool = AsJson) -> None:
    """Declare a person and print their secret, once. The first has to be an `admin`.

    From the first one on everybody has to prove who they are, and may do what their roles allow.
    """
    made = _house.run(_added(_house.settings(), name, role, actor()))
    _told(made, name, as_json=as_json)


async def _added(given: Settings, name: str, role: list[str], by: str) -> Named:
    async with _house.opened(given) as store:
        return await store.add_person(name, role, by)


def _told(made: Named, name: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"person": made.person_id, "secret": made.secret})
        return
    out.print(f"{name}: {made.person_id}", markup=False)
    out.print("Their secret, which nobody can read again:")
    out.print(f"  {made.secret}", markup=False, soft_wrap=True)
    out.print(
        "They keep it in a file that only they can read, and name that file in"
        " CLICKPOST_PERSON_SECRET_FILE."
    )


@app.command("list")
@guarded
def list_(as_json: bool = AsJson) -> None:
    """List who is declared, and their roles."""
    rows = [_row(one) for one in _house.run(_listed(_house.settings()))]
    if as_json:
        show_json(rows)
        return
    if not rows:
        out.print("nobody is declared: everybody may do everything. See: clickpost people add")
        return
    table = Table("name", "roles", "id", "since (UTC)", box=None, header_style="dim")
    for row in rows:
        table.add_row(row["name"], ", ".join(row["roles"]), row["id"], row["since"][:16])
    out.print(table)


async def _listed(given: Settings) -> list[Person]:
    async with _house.opened(given) as store:
        return await store.people()


def _row(one: Person) -> dict[str, Any]:
    return {
        "name": one.name or "",
        "roles": one.roles,
        "id": one.id,
        "since": one.created_at.isoformat(sep=" "),
    }


@app.command()
@guarded
def roles(name: str = NAME, role: list[str] = ROLES, as_json: bool = AsJson) -> None:
    """Give a person these roles instead of those they had."""
    _house.run(_changed(_house.settings(), name, role, actor()))
    if as_json:
        show_json({"name": name, "roles": sorted(set(role))})
    else:
        out.print(f"{name}: {', '.join(sorted(set(role)))}", markup=False)


async def _changed(given: Settings, name: str, role: list[str], by: str) -> None:
    async with _house.opened(given) as store:
        await store.set_roles(name, role, by)


@app.command()
@guarded
def secret(name: str = NAME, as_json: bool = AsJson) -> None:
    """Give a person a new secret: an administrator for anybody, everybody for themselves."""
    made = _house.run(_renewed(_house.settings(), name, actor()))
    _told(made, name, as_json=as_json)


async def _renewed(given: Settings, name: str, by: str) -> Named:
    async with _house.opened(given) as store:
        return await store.new_secret(name, by)


@app.command()
@guarded
def remove(name: str = NAME, as_json: bool = AsJson) -> None:
    """Take all rights from a person who leaves; what they did stays in the ledger, by id."""
    _house.run(_removed(_house.settings(), name, actor()))
    if as_json:
        show_json({"name": name, "left": True})
    else:
        out.print(f"{name} may do nothing any more", markup=False)


async def _removed(given: Settings, name: str, by: str) -> None:
    async with _house.opened(given) as store:
        await store.remove_person(name, by)


@app.command()
@guarded
def whoami(as_json: bool = AsJson) -> None:
    """Prove who you are, and say what you may do."""
    given = _house.settings()
    row = _house.run(_myself(given, actor()))
    if as_json:
        show_json(row)
    else:
        said = f"{row['name']}: {', '.join(row['roles'])}; may {', '.join(row['may'])}"
        out.print(said, markup=False)


async def _myself(given: Settings, by: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        rights = store.rules.roles
        for one in await store.people():
            if one.id == person_of(by):
                may = sorted({right.value for role in one.roles for right in rights.get(role, ())})
                return {"name": one.name, "id": one.id, "roles": one.roles, "may": may}
    return {"name": by, "id": None, "roles": [], "may": ["everything: nobody is declared"]}


@app.command()
@guarded
def code(
    subject: str = typer.Argument(
        metavar="DELIVERY|POST|PLATFORM",
        help="dlv_… for what waits for you; post_… for a post's form; a platform to pause it.",
    ),
    takedown: bool = typer.Option(
        False, "--takedown", help="For a post: to take it down, not to publish it."
    ),
    as_json: bool = AsJson,
) -> None:
    """Print a code with which you sign off one decision in a form of the Prefect UI.

    It is good once, for this decision as it stands now, and only for some minutes.
    """
    made = _house.run(_coded(_house.settings(), subject, actor(), takedown=takedown))
    if as_json:
        show_json({"code": made.code, "about": subject, "right": made.right.value})
        return
    out.print(f"[bold]{made.code}[/]  to {made.right.value}, within {made.minutes} minutes, once")


async def _coded(given: Settings, subject: str, by: str, *, takedown: bool) -> Signed:
    async with _house.opened(given) as store:
        return await signing_off.code(store, by, subject, takedown=takedown)
