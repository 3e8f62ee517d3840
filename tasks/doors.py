"""Takes in what people ask about their data, at every door; nobody learns who is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from clickpost.errors import InvalidInput
from clickpost.policy import requesting
from clickpost.policy.requesting import DEFAULT
from clickpost.requests import Door, Kind
from clickpost.settings import Settings
from clickpost.store import NewRequest, Store
from clickpost.store.tables import SubjectRequest

#: The flow that takes a request further.
FLOW = "handle-request"
#: Characters of what somebody may tell us with a request.
LONGEST = 10_000


@dataclass(frozen=True)
class Asked:
    """What somebody asks, at whatever door."""

    kind: Kind
    door: Door
    jurisdiction: str = DEFAULT
    address: str | None = field(default=None, repr=False)
    details: str | None = field(default=None, repr=False)
    references: Mapping[str, str] = field(default_factory=dict, repr=False)
    workspace_id: str | None = None
    account: bool = False
    connection_ids: Sequence[str] = ()
    takedown: bool = False
    dkim: str | None = None
    once: str | None = None


async def receive(
    settings: Settings, store: Store, asked: Asked, actor: str = "engine"
) -> tuple[SubjectRequest, bool]:
    """Take a request in; return it, and whether it is new. Raises InvalidInput for what is none.

    Nobody looks whether the address is known: the answer and its time are the same for all.
    """
    if asked.address is not None and not is_address(asked.address):
        raise InvalidInput("needs one e-mail address, as ann@example.org")
    if asked.account and asked.workspace_id is None:
        raise InvalidInput("a request about a business account has to name its workspace")
    law = requesting.load(settings.policies).named(asked.jurisdiction)
    moment = datetime.now(UTC)
    new = NewRequest(
        kind=asked.kind,
        door=asked.door,
        jurisdiction=law.name,
        clocks=law.clocks(asked.kind, moment),
        address=asked.address.strip() if asked.address else None,
        details=(asked.details or "")[:LONGEST] or None,
        references=asked.references,
        about="account" if asked.account else "person",
        workspace_id=asked.workspace_id,
        connection_ids=asked.connection_ids,
        takedown=asked.takedown,
        dkim=asked.dkim,
        once=asked.once,
    )
    return await store.open_request(new, actor)


def is_address(text: str) -> bool:
    """Say whether a text is one e-mail address, and nothing that could write to others too."""
    text = text.strip()
    name, at, domain = text.rpartition("@")
    fine = bool(name and at and "." in domain.strip(".")) and len(text) <= 254
    return fine and not any(mark in text for mark in ' \r\n\t,;<>()[]"\\') and text.isprintable()


def status_url(settings: Settings, code: str) -> str:
    """Return where a person sees how far their request has come."""
    return f"{settings.gateway_url}/requests/{code}"


def parameters_of(request_id: str) -> dict[str, dict[str, str]]:
    """Return the parameters of `handle-request`."""
    return {"request": {"request_id": request_id}}


def key_of(row: SubjectRequest, moment: datetime) -> str:
    """Return the idempotency key of a run: one for each state, and another one an hour later."""
    return f"{FLOW} {row.id} {row.state} {moment:%Y-%m-%d %H}"
