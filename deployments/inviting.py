"""The pages on which an account's owner lets ClickPost in: before the platform's, and after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import Response

from clickpost import invitation
from clickpost.errors import ClickPostError
from clickpost.invitation import Status, Verdict
from clickpost.logs import logger
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Connection, Invitation
from deployments.metrics import Counters
from deployments.pages import FIELD, Browser, message, page
from tasks import inviting
from tasks.inviting import Answered, Outcome

log = logger("inviting")

_LONGEST = 2048
_OVER = "This link does not work any more"
_ASK = "Ask whoever sent it to you for a new one."


class Invitations:
    """The pages; they remember nothing but what the store keeps."""

    def __init__(
        self, settings: Settings, store: Store, http: httpx.AsyncClient, counters: Counters
    ) -> None:
        self._settings, self._store, self._http = settings, store, http
        self._counters = counters
        secure = settings.gateway_url.startswith("https://")
        self._browser = Browser(store.vault.derived("forms"), secure=secure)

    async def show(self, request: Request) -> Response:
        """Say what will be asked, and why; nothing happens yet."""
        row = await self._invited(request)
        if row is None:
            return message(_OVER, "It was used, or a day has passed.", _ASK, status=404)
        if row.status == Status.DONE:
            return message("This account is connected already", "You can close this page.")
        who = self._browser.of(request)
        policy = load_platforms(self._settings.policies)[row.platform]
        rules = invitation.rules_of(policy)
        official = policy.api.base is not None
        return self._browser.remember(
            page(
                "connect.html",
                title=f"Connect {policy.title}",
                account=f"your {policy.title} account",
                platform=policy.title,
                handle=await self._expected(row),
                server=None if official else urlsplit(row.api_base).netloc,
                needed=[policy.scopes[one] for one in rules.scopes],
                optional=[policy.scopes[one] for one in rules.optional],
                until=f"{row.expires_at:%d %B, %H:%M} UTC",
                action=request.url.path,
                field=FIELD,
                mark=self._browser.mark(who, row.id),
            ),
            who,
        )

    async def begin(self, request: Request) -> Response:
        """Send the person to the platform, with a state that only this browser can bring back."""
        row = await self._invited(request)
        if row is None:
            return message(_OVER, "It was used, or a day has passed.", _ASK, status=404)
        if not await self._browser.may_send(request, row.id):
            return message(
                "Please press the button again",
                "This page was open for too long, or your browser keeps no cookies for it.",
                status=403,
                tone="bad",
                links=(("Open the page again", request.url.path),),
            )
        policy = load_platforms(self._settings.policies)[row.platform]
        who = self._browser.of(request)
        try:
            address = await inviting.begin(self._settings, self._store, self._http, row, who)
        except (ClickPostError, TimeoutError) as error:
            log.warning("sign-in not begun", invitation_id=row.id, error=type(error).__name__)
            reason = invitation.trouble(error, policy.title)
            return message(
                f"{policy.title} cannot be reached",
                reason,
                status=502,
                tone="bad",
                links=(("Try again", request.url.path),),
            )
        if address is None:
            return message(_OVER, "The account is connected already, or a day has passed.", _ASK)
        self._counters.sign_ins.labels("begun").inc()
        return page(
            "going.html", title=f"On to {policy.title}", platform=policy.title, address=address
        )

    async def come_back(self, request: Request) -> Response:
        """Take what the platform sent back with the person, once."""
        outcome = await inviting.come_back(
            self._settings,
            self._store,
            self._http,
            request.path_params["platform"],
            answered_of(request.query_params),
            self._browser.known(request),
        )
        self._counters.sign_ins.labels(_word_of(outcome)).inc()
        return _told(outcome)

    async def _invited(self, request: Request) -> Invitation | None:
        link = request.path_params["link"]
        return await self._store.invitation_of_link(link[:_LONGEST], datetime.now(UTC))

    async def _expected(self, row: Invitation) -> str | None:
        """Return as whom they have to sign in, where this connection was somebody's before."""
        ref = f"{row.platform}/{row.name}"
        rows = await self._store.connections()
        known = next((one for one in rows if one.ref == ref and one.remote_id), None)
        return (known.handle or known.remote_id) if known else None


def answered_of(query: Mapping[str, str]) -> Answered:
    """Read what a platform appends to the callback's address; what is too long is nothing."""
    said = {name: query.get(name, "") for name in ("state", "code", "error")}
    return Answered(
        **{name: value if len(value) <= _LONGEST else "" for name, value in said.items()}
    )


def _word_of(outcome: Outcome) -> str:
    if outcome.verdict is not Verdict.GOOD:
        return outcome.verdict.value
    return "connected" if outcome.connection is not None else "refused"


def _told(outcome: Outcome) -> Response:
    links = (("Try again", outcome.again),) if outcome.again else ()
    if outcome.connection is not None and outcome.policy is not None:
        return _connected(outcome.connection, outcome)
    match outcome.verdict:
        case Verdict.UNKNOWN:
            return message(
                "This sign-in is not known",
                "It was begun again elsewhere, or it was never begun here. Nothing was connected.",
                "Open the link that you were given once more.",
                status=400,
                tone="bad",
            )
        case Verdict.ELSEWHERE:
            return message(
                "This sign-in was begun in another browser",
                "Nothing was connected. Open the link that you were given in this browser, and"
                " sign in from there.",
                status=400,
                tone="bad",
            )
        case Verdict.EXPIRED:
            return message(
                "This took too long",
                "More than a quarter of an hour has passed since you left for the platform."
                " Nothing was connected.",
                status=400,
                tone="bad",
                links=links,
            )
        case Verdict.USED:
            reason = outcome.reason or "It has come to its end already."
            return message("This sign-in is over", reason, status=400, tone="bad", links=links)
        case Verdict.GOOD:
            reason = outcome.reason or ""
            return message("Not connected", reason, status=400, tone="bad", links=links)


def _connected(row: Connection, outcome: Outcome) -> Response:
    assert outcome.policy is not None
    said = [
        f"ClickPost may now publish as {row.handle or row.remote_id} on {outcome.policy.title}.",
        "You can close this page.",
    ]
    if outcome.lacks:
        purposes = "; ".join(outcome.policy.scopes[one] for one in outcome.lacks)
        said.insert(1, f"What you did not allow, it cannot do: {purposes}.")
    return message("Connected", *said, tone="good")
