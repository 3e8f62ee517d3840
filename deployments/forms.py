"""Fills the choices of forms: what is connected and which policies there are, by name.

A flow's parameter says with `x-choices` whose names it takes. Prefect's own schemas know only the
code; so the choices are filled in by `policy apply`, and again when an account is connected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx

from clickpost.errors import ClickPostError
from clickpost.policy import keeping
from clickpost.policy.history import NAME as HISTORY
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.database import AWAY
from deployments import runs

#: In a schema, names the choices that a field takes.
KEY = "x-choices"
#: The flows whose forms have choices; a test holds this against the code.
FLOWS = ("pause-platform", "resume-platform", "purge-retention")

Choices = Mapping[str, Sequence[str]]


async def choices(settings: Settings) -> Choices | None:
    """Return what there is to choose; None where the database is not at hand."""
    try:
        store = await Store.of(settings)
    except OSError:  # Nothing was ever started here.
        return None
    try:
        return await choices_in(settings, store)
    except AWAY:
        return None
    finally:
        await store.close()


async def choices_in(settings: Settings, store: Store) -> Choices:
    """Return what there is to choose: platforms with an account, policies of retention."""
    found = {"platforms": sorted({one.platform for one in await store.connections()})}
    with suppress(ClickPostError):  # Broken policies are told elsewhere.
        names = sorted(keeping.load(settings.policies).retention)
        found["retention"] = ["", *names, HISTORY]
    return found


def filled(schema: Any, given: Choices | None) -> Any:
    """Return a parameter schema with its choices; where nothing is known, any name is taken."""
    if isinstance(schema, list):
        return [filled(one, given) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: filled(one, given) for name, one in schema.items()}
    if KEY in made:
        made.pop("enum", None)
        if known := list((given or {}).get(made[KEY], ())):
            made["enum"] = known
    return made


def offered(schemas: Iterable[Any]) -> Choices:
    """Return the choices that these schemas offer already."""
    found: dict[str, list[str]] = {}
    for schema in schemas:
        for name, known in _offered(schema):
            found.setdefault(name, known)
    return found


def _offered(schema: Any) -> Iterator[tuple[str, list[str]]]:
    if isinstance(schema, dict) and KEY in schema and "enum" in schema:
        yield schema[KEY], schema["enum"]
    inner = schema.values() if isinstance(schema, dict) else schema
    for one in inner if isinstance(schema, dict | list) else ():
        yield from _offered(one)


def refresh(settings: Settings, given: Choices) -> int:
    """Fill in the choices of all forms that Prefect has; return how many changed.

    Raises httpx.HTTPError where Prefect does not answer, or refuses.
    """
    changed = 0
    with httpx.Client(
        base_url=runs.api_url(settings), timeout=10, auth=runs.auth(settings)
    ) as client:
        body = {"limit": 200, "flows": {"name": {"any_": list(FLOWS)}}}
        answer = client.post("/deployments/filter", json=body).raise_for_status()
        for one in answer.json():
            schema = one["parameter_openapi_schema"] or {}
            if (made := filled(schema, given)) != schema:
                said = {"parameter_openapi_schema": made}
                client.patch(f"/deployments/{one['id']}", json=said).raise_for_status()
                changed += 1
    return changed
