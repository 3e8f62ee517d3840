"""People's requests at the gateway: confirmed by a link, seen by a code, brought by clients."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clickpost import letters, requests
from clickpost.errors import ClickPostError, InvalidInput
from clickpost.hooks import Call, Verdict, judge
from clickpost.logs import logger
from clickpost.policy import requesting
from clickpost.policy.requesting import DEFAULT
from clickpost.requests import Door, Kind, State
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.certificates import Certificates
from clickpost.store.database import is_away
from clickpost.store.requests import clocks_of
from clickpost.store.tables import Certificate, SubjectRequest
from deployments._guard import GENUINE
from deployments.hooks import Doorkeeper
from deployments.pages import FIELD, Browser, message, page
from deployments.revoking import Revocations, asked_by, heard, wants_erasure
from tasks import doors
from tasks.doors import Asked

log = logger("requests")

#: A client of the API signs with the secret of the hook of this name before its own.
CLIENT = "requests-"
_LONGEST = 128
_OVER = (
    "This link does not work any more",
    "It was used, or its time is over. If you still want us to act, ask again.",
)


class Brought(BaseModel):
    """A request as a client of the API brings it."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal[
        "access", "erasure", "rectification", "restriction", "objection", "portability", "child"
    ]
    address: Annotated[str, Field(max_length=254)]
    law: Annotated[str, Field(max_length=40)] = DEFAULT
    details: Annotated[str, Field(max_length=doors.LONGEST)] | None = None
    references: dict[str, str] = Field(default_factory=dict, max_length=20)
    workspace_id: str | None = None
    takedown: bool = False


class Requests:
    """The pages, the API and the platforms' callback; they remember nothing but the store."""

    def __init__(self, settings: Settings, store: Store, prefect: httpx.AsyncClient) -> None:
        self._settings, self._store, self._prefect = settings, store, prefect
        secure = settings.gateway_url.startswith("https://")
        self._browser = Browser(store.vault.derived("forms"), secure=secure)
        self._doorkeeper = Doorkeeper(store)
        self._revocations = Revocations(settings, store)

    async def show(self, request: Request) -> Response:
        """Show how far the request of a confirmation code has come; nothing about whom it is."""
        row = await self._of_code(request.path_params["code"])
        if row is None:
            return message(
                "This code is not known",
                "Look at the letter again: a code has twenty letters and digits.",
                status=404,
            )
        proofs = await self._proofs(row)
        return page("request.html", **self._told(row), proofs=range(1, len(proofs) + 1))

    async def _proofs(self, row: SubjectRequest) -> Sequence[Certificate]:
        """Return the certificates of a request that is done: one for each account it named."""
        if row.certificate_id is None:
            return ()
        return await Certificates(self._store.engine, self._store.vault).certificates_of(row.id)

    def _told(self, row: SubjectRequest) -> dict[str, Any]:
        rules = requesting.load(self._settings.policies)
        law, state = rules.named(row.jurisdiction), State(row.state)
        refused = state is State.REFUSED
        ground = law.ground(row.ground or "unverified", Kind(row.kind)) if refused else None
        closed = state in requests.CLOSED
        due = clocks_of(row).due(datetime.now(UTC))
        return {
            "title": letters.stands(state, row.outcome),
            "asks": letters.asks(Kind(row.kind)),
            "code": letters.shown(row.code),
            "received": f"{row.received_at:%d %B %Y}",
            "due": None if closed else f"{due:%d %B %Y}",
            "says": f"{ground.says} ({ground.cite})" if ground else None,
            "note": row.note if closed else None,
            "complain": law.complain if closed else None,
            "certificate": f"/requests/{row.code}/certificate",
        }

    async def certificate(self, request: Request) -> Response:
        """Give the signed certificate of a request to whoever has its code.

        Of several the one whose `number` is asked for, else the newest.
        """
        row = await self._of_code(request.path_params["code"])
        proofs = await self._proofs(row) if row else ()
        number = request.query_params.get("number", str(len(proofs)))
        known = {str(place): one for place, one in enumerate(proofs, 1)}
        if number not in known:
            return PlainTextResponse("Not found.\n", 404)
        found = known[number]
        name = f"attachment; filename={found.id}.json"
        return Response(
            found.document, media_type="application/json", headers={"Content-Disposition": name}
        )

    async def _of_code(self, typed: str) -> SubjectRequest | None:
        code = requests.code_of(typed[:_LONGEST])
        if code is None:
            return None
        try:
            return await self._store.request(code)
        except InvalidInput:
            return None

    async def ask(self, request: Request) -> Response:
        """Show what a link would confirm; nothing happens yet, for mail programs follow links."""
        link = request.path_params["link"][:_LONGEST]
        row = await self._store.request_of_link(link, datetime.now(UTC))
        if row is None:
            return message(*_OVER, status=404)
        who = self._browser.of(request)
        made = page(
            "confirm.html",
            title="Is this your request?",
            asks=letters.asks(Kind(row.kind)),
            about_account=row.about == "account",
            final=row.kind in (Kind.ERASURE, Kind.CHILD),
            action=request.url.path,
            field=FIELD,
            mark=self._browser.mark(who, row.id),
        )
        return self._browser.remember(made, who)

    async def confirm(self, request: Request) -> Response:
        """Confirm a request, once."""
        link = request.path_params["link"][:_LONGEST]
        row = await self._store.request_of_link(link, datetime.now(UTC))
        if row is None:
            return message(*_OVER, status=404)
        if not await self._browser.may_send(request, row.id):
            return message(
                "Please press the button again",
                "This page was open for too long, or your browser keeps no cookies for it.",
                status=403,
                tone="bad",
                links=(("Open the page again", request.url.path),),
            )
        confirmed = await self._store.confirm_by_link(link)
        if confirmed is None:
            return message(*_OVER, status=404)
        await self._go_on(confirmed)
        due = clocks_of(confirmed).due(datetime.now(UTC))
        return message(
            "Thank you, your request is confirmed",
            f"You will have our answer by {due:%d %B %Y}.",
            tone="good",
            links=(("See how far it has come", f"/requests/{confirmed.code}"),),
        )

    async def bring(self, request: Request) -> Response:
        """Take a request from a client that signs it as a webhook; the person is asked by letter.

        202 says that it is kept, 200 that it was so before; both say nothing about the person.
        """
        call = Call.of(request.headers, await request.body())
        try:
            name = CLIENT + request.path_params["code"]
            hook, secret = await self._doorkeeper.hook(name)
            verdict = judge(call, secret, datetime.now(UTC))
            if hook is None or verdict is Verdict.FORGED:
                return PlainTextResponse("Not found.\n", 404)
            if verdict is Verdict.STALE:
                return PlainTextResponse("The timestamp is not of these five minutes.\n", 400)
            request.scope[GENUINE] = True
            asked = _asked(call.body, f"{hook.id}:{call.id}")
            row, is_new = await doors.receive(
                self._settings, self._store, asked, f"client:{hook.id}"
            )
        except ValidationError as error:
            return JSONResponse({"errors": _faults(error)}, 422)
        except ClickPostError as error:
            return JSONResponse({"errors": [str(error)]}, 422)
        except Exception as error:
            if not is_away(error):
                raise
            return PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
        await self._go_on(row)
        return JSONResponse(self._kept(row), 202 if is_new else 200)

    def _kept(self, row: SubjectRequest) -> dict[str, str]:
        return {
            "id": row.id,
            "confirmation_code": row.code,
            "url": doors.status_url(self._settings, row.code),
            "due_at": row.due_at.isoformat(),
        }

    async def delete(self, request: Request) -> Response:
        """Take Meta's data deletion callback: what its user connected is erased.

        Grants and tokens end before we answer. Answers a page that says how far it has come, and
        a code; the same callback again gets the same ones. A signature of nobody gets a 404.
        """
        platform = request.path_params["platform"]
        try:
            said = await heard(self._settings, self._store, request)
            if said is None:
                return PlainTextResponse("Not found.\n", 404)
            row = await self._wanted_at(platform, said.user_id, said.issued_at)
        except Exception as error:
            if not is_away(error):
                raise
            return PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
        kept = self._kept(row)
        return JSONResponse({name: kept[name] for name in ("url", "confirmation_code")})

    async def event(self, request: Request) -> Response:
        """Take an event of a platform's webhook; 200 says that nobody has to send it again.

        A signature of nobody, and a platform without such events, get a 404.
        """
        platform = request.path_params["platform"]
        try:
            said = await self._revocations.hear(request)
            if said is None:
                return PlainTextResponse("Not found.\n", 404)
            if wants_erasure(said):
                await self._wanted_at(platform, said.user_id, said.at)
        except Exception as error:
            if not is_away(error):
                raise
            return PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
        return JSONResponse({})

    async def _wanted_at(self, platform: str, user_id: str, at: datetime | None) -> SubjectRequest:
        """Take in that a platform's user wants their data erased, once; the platform proves it."""
        asked = await asked_by(self._settings, self._store, platform, user_id, at)
        row, is_new = await doors.receive(self._settings, self._store, asked, platform)
        if is_new or row.state == State.RECEIVED:
            row = await self._store.verify_request(row.id, "platform", platform)
        await self._go_on(row)
        return row

    async def _go_on(self, row: SubjectRequest) -> None:
        """Start `handle-request`; where Prefect is away the sweep `check-requests` does it."""
        body = {
            "parameters": doors.parameters_of(row.id),
            "idempotency_key": doors.key_of(row, datetime.now(UTC)),
            "name": f"{doors.FLOW} {row.id}",
            "state": {"type": "SCHEDULED"},
        }
        try:
            found = await self._prefect.get(f"/deployments/name/{doors.FLOW}/{doors.FLOW}")
            address = f"/deployments/{found.raise_for_status().json()['id']}/create_flow_run"
            (await self._prefect.post(address, json=body)).raise_for_status()
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.info("not woken", request_id=row.id, error=type(error).__name__)


def _asked(body: bytes, once: str) -> Asked:
    """Return what a client asks; raise ValidationError for what is no request."""
    said = Brought.model_validate_json(body)
    return Asked(
        kind=Kind(said.kind),
        door=Door.API,
        jurisdiction=said.law,
        address=said.address,
        details=said.details,
        references=said.references,
        workspace_id=said.workspace_id,
        account=said.workspace_id is not None,
        takedown=said.takedown,
        once=once,
    )


def _faults(error: ValidationError) -> list[str]:
    """Return what is wrong by place, without what was given: it may be personal."""
    return [
        f"{'.'.join(str(step) for step in one['loc']) or 'body'}: {one['msg']}"
        for one in error.errors(include_input=False, include_url=False, include_context=False)
    ]
