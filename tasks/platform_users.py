"""Erases what a platform's user had connected, where the platform says that they ask for it."""

from __future__ import annotations

from clickpost.erasure import OPEN
from clickpost.errors import InvalidInput
from clickpost.people import ENGINE
from clickpost.requests import Door, Kind
from clickpost.requests import State as RequestState
from clickpost.store.erasures import Erasures
from clickpost.store.grants import Grants
from clickpost.store.tables import SubjectRequest
from tasks import doors, erasing
from tasks._wiring import House
from tasks.doors import Asked
from tasks.erasing import Ended, Wanted

#: The erasure policy that is about one connected account.
POLICY = "connection"


def is_one(asked: SubjectRequest) -> bool:
    """Say whether a request asks to erase accounts, and of nobody whom we know by name."""
    erases = asked.kind == Kind.ERASURE and asked.about == "person"
    return erases and bool(asked.connection_ids) and not (asked.member_id or asked.address_digest)


async def erase(house: House, asked: SubjectRequest) -> Ended:
    """Erase every account that the request names; it is certified once all of them are done.

    A second run carries on what the first one left. Whose person it may be, an operator is asked.
    """
    erasures = Erasures(house.store.engine, house.vault)
    await _plan(house, erasures, asked)
    if asked.state == RequestState.VERIFIED:
        await house.store.request_planned(asked.id)
    await _ask_whose(house, asked)
    ended: list[Ended] = []
    for row in await erasures.of_request(asked.id):
        if row.state in OPEN and row.state != "parked":
            ended.append(await erasing.carry_out(house, row.id))
        elif row.state == "planned":
            ended.append(Ended(row.id, row.state, f"waits: `clickpost privacy approve {row.id}`"))
        else:
            ended.append(Ended(row.id, row.state, f"is {row.state} already"))
    return _together(asked, ended)


async def _plan(house: House, erasures: Erasures, asked: SubjectRequest) -> None:
    """Plan all before the first is carried out: the last one that ends answers the request."""
    known = {one.subject for one in await erasures.of_request(asked.id)}
    for connection_id in asked.connection_ids:
        if connection_id in known:
            continue
        wanted = Wanted(POLICY, connection_id, request=asked.id)
        try:
            row, why = await erasing.plan(house.settings, house.store, wanted)
        except InvalidInput:
            if await erasures.connected(connection_id) is not None:
                raise
            continue  # It went with its workspace meanwhile.
        if row.state == "planned" and why is None:
            await erasures.approve(row.id, ENGINE)


async def _ask_whose(house: House, asked: SubjectRequest) -> None:
    """Open a request for an operator where an account is that of a business of one person.

    Who signed in at the platform may be that person, or not: nobody here can tell, so that somebody
    has to look before more is erased than the platform asked for.
    """
    grants = Grants(house.store.engine, house.vault)
    for member in await grants.sole_members(asked.connection_ids):
        said = (
            f"{asked.id} erases the account that a platform's user had connected in"
            f" {member.workspace_id}. Its only member is {member.id}: look whether they are the"
            " same person, and whether they want all of it erased."
        )
        once = f"whose:{asked.id}:{member.workspace_id}"
        whose = Asked(
            Kind.ERASURE,
            Door.PLATFORM,
            jurisdiction=asked.jurisdiction,
            details=said,
            workspace_id=member.workspace_id,
            once=once,
        )
        await doors.receive(house.settings, house.store, whose)


def _together(asked: SubjectRequest, ended: list[Ended]) -> Ended:
    if not ended:
        return Ended(asked.id, "blocked", "nothing of what it names is there; answer it by hand")
    bad = [one for one in ended if not one.is_well]
    open_ = [one for one in ended if one.state not in ("complete", "parked")]
    state = (bad or open_ or ended)[0].state
    proofs = ", ".join(one.certificate for one in ended if one.certificate)
    said = "; ".join(f"{one.erasure_id} {one.said}" for one in ended)
    return Ended(asked.id, state, said, proofs or None)
