"""Works people's requests: asks the address, starts what carries them out, tells the end.

Only a flow run pays for loading Prefect: the command line uses this module too.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from clickpost import exporting, letters, requests
from clickpost.errors import Conflict, InvalidInput, Transient, Unavailable
from clickpost.letters import Handed, Letter
from clickpost.logs import logger
from clickpost.policy import requesting
from clickpost.policy.requesting import Rules
from clickpost.requests import Kind, Standing, State, Step, Urgency
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.requests import Challenge, clocks_of, until_tomorrow
from clickpost.store.tables import SubjectRequest
from clickpost.telling import Event, Happening
from connectors._letters import send_letter
from tasks import _wiring, elsewhere
from tasks.doors import FLOW, key_of, parameters_of, status_url
from tasks.exporting import link_of

log = logger("requests")

_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Handled:
    """What one run of `handle-request` came to."""

    request_id: str
    step: Step
    state: str
    why: str = ""


async def handle(request_id: str) -> Handled:
    """Take a request as far as it goes by itself; raise Transient where a letter was not taken."""
    house = await _wiring.house()
    rules = requesting.load(house.settings.policies)
    done = Step.WAIT
    while True:
        row = await house.store.request(request_id)
        standing = await standing_of(house.settings, house.store, rules, row)
        step = requests.next_step(standing)
        match step:
            case Step.CHALLENGE:
                if not await _challenge(house.settings, house.store, rules, row):
                    return Handled(row.id, Step.WAIT, row.state)
            case Step.NOTHING_HELD:
                await house.store.answer_request(row.id, "nothing_held")
            case Step.ANSWER:
                await house.store.answer_request(row.id, row.outcome or "done")
            case Step.TELL:
                await _tell_the_end(house.settings, house.store, rules, row)
            case Step.CARRY_OUT:
                await _acknowledge(house.settings, house.store, rules, row)
                return await _carry_out(house.store, standing, row)
            case Step.ASK:
                await _acknowledge(house.settings, house.store, rules, row)
                await _ask(house.store, row, why := requests.why_ask(standing))
                return Handled(row.id, step, row.state, why)
            case Step.WAIT:
                return Handled(row.id, done, row.state)
        done = step


async def standing_of(
    settings: Settings, store: Store, rules: Rules, row: SubjectRequest
) -> Standing:
    """Return what decides a request's next step."""
    kind, state = Kind(row.kind), State(row.state)
    known = True if state is not State.VERIFIED else await store.holds_anything(row)
    if not known and row.address_digest is not None:
        known = await elsewhere.may_hold(settings, store, row.address_digest)
    return Standing(
        kind=kind,
        state=state,
        about="account" if row.about == "account" else "person",
        has_address=row.address_digest is not None,
        challenged=row.challenge_at is not None,
        authority=row.authority,
        known=known,
        flow=rules.everywhere.flows.get(kind),
        names_somebody=bool(row.member_id or row.address_digest or row.about == "account")
        or (kind is Kind.ERASURE and bool(row.connection_ids)),
        told=row.told_at is not None,
    )


def about(settings: Settings, rules: Rules, row: SubjectRequest) -> letters.About:
    """Return what letters say of a request."""
    complain = rules.named(row.jurisdiction).complain
    return letters.About(
        Kind(row.kind), row.code, row.due_at, status_url(settings, row.code), complain
    )


async def _challenge(settings: Settings, store: Store, rules: Rules, row: SubjectRequest) -> bool:
    """Ask the address whether it was them; False where too many asked that today.

    The digests are kept before the letter leaves; where that is not taken, the next try makes
    new ones.
    """
    everywhere, moment = rules.everywhere, datetime.now(UTC)
    sent = await store.challenges_since(row.address_digest or "", until_tomorrow(moment))
    if sent >= everywhere.letters:
        log.warning("no challenge yet: too many to one address", request_id=row.id)
        return False
    made = Challenge(secrets.token_urlsafe(32), _short(), moment + everywhere.link_lives)
    link = f"{settings.gateway_url}/requests/confirm/{made.link}"
    letter = letters.challenge(
        about(settings, rules, row), link, made.reply, made.until, by_reply=by_reply(settings)
    )
    await store.challenge_request(row.id, made)
    try:
        await _send(settings, store, row, letter, f"challenge-{secrets.token_hex(4)}")
    except Exception:
        await store.unchallenge_request(row.id)
        raise
    await store.acknowledge_request(row.id)
    return True


def by_reply(settings: Settings) -> bool:
    """Say whether an answer to our letters reaches us."""
    return settings.privacy_address is not None


def _short() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(8))


async def _acknowledge(settings: Settings, store: Store, rules: Rules, row: SubjectRequest) -> None:
    """Confirm receipt to whom no challenge did; no letter that fails holds the work itself up."""
    if row.acknowledged_at is not None or row.address_digest is None:
        return
    letter = letters.received(about(settings, rules, row))
    try:
        await _send(settings, store, row, letter, "received")
    except (Transient, Unavailable) as error:  # The alarm comes before the deadline for it.
        log.warning("receipt not confirmed", request_id=row.id, error=type(error).__name__)
        return
    await store.acknowledge_request(row.id)


async def _tell_the_end(
    settings: Settings, store: Store, rules: Rules, row: SubjectRequest
) -> None:
    """Tell a person the end, then forget their address; who was never verified is told nothing.

    Except that they were refused, which is all that this tells them.
    """
    if row.address_digest is not None:
        await _send(
            settings, store, row, ending(settings, rules, row, handed(settings, store, row)), "end"
        )
    await store.request_told(row.id)


def handed(settings: Settings, store: Store, row: SubjectRequest) -> Handed | None:
    """Return where the person fetches what they asked for; None where nothing was exported."""
    asks = row.kind in (Kind.ACCESS, Kind.PORTABILITY)
    if not asks or row.outcome != "done" or row.certificate_id is None:
        return None
    found = exporting.parcel(settings.media_root, row.id)
    if found is None or found.is_over(datetime.now(UTC)):
        return Handed(None)
    until = datetime.fromtimestamp(found.expires, UTC)
    return Handed(link_of(settings, store, found), until)


def ending(
    settings: Settings, rules: Rules, row: SubjectRequest, handed: Handed | None = None
) -> Letter:
    """Return the last letter of a request that is answered or refused."""
    said = about(settings, rules, row)
    if row.state == State.REFUSED:
        ground = rules.named(row.jurisdiction).ground(row.ground or "unverified", Kind(row.kind))
        return letters.refused(said, ground.says, ground.cite, row.note)
    return letters.answered(said, row.outcome or "done", row.note, row.certificate_id, handed)


async def extend(
    settings: Settings, store: Store, request_id: str, why: str, actor: str
) -> SubjectRequest:
    """Give a request more time, and tell the person why; raise InvalidInput where no law does.

    The letter goes first: without it the law gives no time.
    """
    rules, row = requesting.load(settings.policies), await store.request(request_id)
    due_at = rules.named(row.jurisdiction).extended(clocks_of(row), datetime.now(UTC))
    if row.address_digest is not None:
        said = about(settings, rules, row)
        later = letters.About(said.kind, said.code, due_at, said.status_url, said.complain)
        await _send(settings, store, row, letters.extended(later, why), "extended")
    return await store.extend_request(row.id, due_at, why, actor)


async def refuse(
    settings: Settings, store: Store, request_id: str, ground: str, note: str | None, actor: str
) -> SubjectRequest:
    """Refuse a request on a ground of its law; raise InvalidInput for one that it lacks."""
    row = await store.request(request_id)
    law = requesting.load(settings.policies).named(row.jurisdiction)
    law.ground(ground, Kind(row.kind))
    return await store.refuse_request(row.id, ground, note, actor)


async def pause(settings: Settings, store: Store, request_id: str, actor: str) -> SubjectRequest:
    """Stop a request's clock; raise InvalidInput where its law knows no such thing."""
    row = await store.request(request_id)
    law = requesting.load(settings.policies).named(row.jurisdiction)
    if law.stop is None:
        raise InvalidInput(f"{law.title}: its clock never stands still")
    return await store.pause_request(row.id, actor)


async def _send(
    settings: Settings, store: Store, row: SubjectRequest, letter: Letter, what: str
) -> None:
    address = store.request_secrets(row).get("address")
    if address:
        await send_letter(address, letter, f"{row.id}-{what}", settings)
        log.info("letter", request_id=row.id, what=what)


async def _ask(store: Store, row: SubjectRequest, why: str) -> None:
    """Tell the operators, once, that a request waits for them."""
    facts = {
        "where": f"request {row.id}",
        "reason": why,
        "who_acts": "an operator",
        "request_id": row.id,
        "due_at": row.due_at.isoformat(),
    }
    once = f"{Event.REQUEST_WAITING}:{row.id}:{row.state}"
    await store.notify(Happening(Event.REQUEST_WAITING, row.id, once, facts), row.workspace_id)


async def _carry_out(store: Store, standing: Standing, row: SubjectRequest) -> Handled:
    """Start the flow of the request's kind; a run that failed is started anew an hour later."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    flow = str(standing.flow)
    key = f"{flow} {row.id} {datetime.now(UTC):%Y-%m-%d %H}"
    try:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(f"{flow}/{flow}")
            await client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"request_id": row.id},
                idempotency_key=key,
                name=f"{flow} {row.id}",
            )
    except ObjectNotFound:
        why = f"Prefect does not know the flow {flow}, which policies/requests names"
        await _ask(store, row, why)
        return Handled(row.id, Step.ASK, row.state, why)
    return Handled(row.id, Step.CARRY_OUT, row.state, flow)


async def wake(request_id: str) -> bool:
    """Start `handle-request` for one request, once for each of its states and hour.

    Say whether Prefect took it; where not, the sweep does it.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    house = await _wiring.house()
    row = await house.store.request(request_id)
    try:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(f"{FLOW}/{FLOW}")
            await client.create_flow_run_from_deployment(
                deployment.id,
                parameters=parameters_of(row.id),
                idempotency_key=key_of(row, datetime.now(UTC)),
                name=f"{FLOW} {row.id}",
            )
    except (ObjectNotFound, httpx.HTTPError) as error:
        log.info("not woken", error=type(error).__name__)
        return False
    return True


@dataclass(frozen=True)
class Swept:
    """What a look at all requests came to."""

    started: int
    soon: int
    overdue: int
    rows: tuple[dict[str, object], ...]


async def sweep() -> Swept:
    """Start what waits for nobody, and raise an alarm before a request is overdue, and after."""
    house = await _wiring.house()
    rules, moment = requesting.load(house.settings.policies), datetime.now(UTC)
    started = [await wake(one) for one in await house.store.requests_to_handle()]
    rows, found = [], []
    for row in await house.store.subject_requests():
        if row.state == State.RECEIVED and clocks_of(row).due(moment) < moment:
            await _lapse(house.store, row)
            continue
        near = urgency(rules, row, moment)
        found.append(near)
        if near is not Urgency.FINE:
            await alarm(house.store, row, near)
        rows.append(line_of(row, near, moment))
    return Swept(sum(started), found.count(Urgency.SOON), found.count(Urgency.OVERDUE), tuple(rows))


async def _lapse(store: Store, row: SubjectRequest) -> None:
    """Refuse what nobody confirmed in all its time: it could be anybody's."""
    with suppress(Conflict):  # It was confirmed this moment.
        await store.refuse_request(row.id, "unverified", None, "engine")


def urgency(rules: Rules, row: SubjectRequest, moment: datetime) -> Urgency:
    """Say how near a request's next deadline is; one that is not ours to move on has none."""
    asked = row.state == State.RECEIVED and row.challenge_at is not None
    if asked or State(row.state) in requests.CLOSED:
        return Urgency.FINE
    acknowledged = row.acknowledged_at is not None
    return requests.urgency(clocks_of(row), acknowledged, rules.everywhere.warn, moment)


async def alarm(store: Store, row: SubjectRequest, near: Urgency) -> None:
    """Tell that a request is due soon, or overdue; each of its deadlines is told once."""
    says = "is overdue" if near is Urgency.OVERDUE else "is due soon"
    late = row.acknowledged_at is None and row.acknowledge_by is not None
    what = "receipt has to be confirmed" if late else "the answer"
    facts = {
        "where": f"request {row.id}",
        "reason": f"{row.kind}, {row.state}: {what} {says}",
        "who_acts": "an operator",
        "request_id": row.id,
        "due_at": row.due_at.isoformat(),
    }
    # Another deadline, after more time was given, is another alarm.
    once = f"{Event.REQUEST_DUE_SOON}:{row.id}:{near}:{late}:{row.due_at.isoformat()}"
    await store.notify(Happening(Event.REQUEST_DUE_SOON, row.id, once, facts), row.workspace_id)


def line_of(row: SubjectRequest, near: Urgency, moment: datetime) -> dict[str, object]:
    """Return one line of the report: ids, words and times of ours."""
    due = clocks_of(row).due(moment)
    return {
        "request": row.id,
        "kind": row.kind,
        "state": row.state,
        "door": row.door,
        "law": row.jurisdiction,
        "received": f"{row.received_at:%Y-%m-%d}",
        "confirm receipt by": _by(row.acknowledge_by, row.acknowledged_at),
        "due": f"{due:%Y-%m-%d %H:%M}" + (" (clock stopped)" if row.paused_at else ""),
        "extended": "yes" if row.extended_at else "",
        "urgency": {"fine": "🟢 fine", "soon": "🟡 soon", "overdue": "🔴 overdue"}[near],
    }


def _by(limit: datetime | None, done: datetime | None) -> str:
    if done is not None:
        return "confirmed"
    return f"{limit:%Y-%m-%d}" if limit else ""


async def report(swept: Swept) -> None:
    """Write the table of open requests that operators see, the one that is due first on top."""
    from prefect.artifacts import acreate_table_artifact

    await acreate_table_artifact(
        key="requests",
        table=list(swept.rows) or [{"request": "no request is open"}],
        description="People's requests about their data that are open, and when they are due.",
    )


async def confirm_by_operator(
    store: Store, request_id: str, actor: str, authority: str | None
) -> SubjectRequest:
    """Verify a request by other means than a letter; raise Conflict where it waits for none."""
    row = await store.request(request_id)
    if row.state != State.RECEIVED and authority is not None:
        return await store.grant_authority(row.id, authority, actor)
    if row.state != State.RECEIVED:
        raise Conflict(f"{row.id} is {row.state}, and waits for no proof")
    return await store.verify_request(row.id, "operator", actor, authority=authority)
