"""Takes in what a platform says of people who removed our app: grants and tokens end at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clickpost import signed_event, signed_request
from clickpost.logs import logger
from clickpost.policy.load import load_platforms
from clickpost.requests import Door, Kind
from clickpost.settings import Settings
from clickpost.signed_event import Reason, SignedEvent
from clickpost.signed_request import SignedRequest
from clickpost.store import Store
from clickpost.store.database import is_away
from clickpost.store.grants import Grants
from deployments._guard import GENUINE
from tasks.doors import Asked

log = logger("revoking")


class Revocations:
    """The callbacks by which platforms say that somebody took a grant back."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store

    async def take(self, request: Request) -> Response:
        """End what a person granted who removed our app; what was granted since then stays.

        A platform without such a callback and a signature of nobody get the same 404. One that
        comes again changes nothing; 503 asks the platform to come again.
        """
        platform = request.path_params["platform"]
        try:
            said = await heard(self._settings, self._store, request)
            if said is None:
                return PlainTextResponse("Not found.\n", 404)
            await end_grants(self._settings, self._store, platform, said.user_id, said.issued_at)
        except Exception as error:
            if not is_away(error):
                raise
            return PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
        return JSONResponse({})

    async def hear(self, request: Request) -> SignedEvent | None:
        """Return the event that a platform's webhook tells, and end the grants that it says ended.

        None where nobody of whom we know signed it. Events about anything else change nothing.
        """
        platform = request.path_params["platform"]
        secrets = await _secrets(self._settings, self._store, platform, "signed_event")
        given = request.headers.get(signed_event.HEADER, "")
        said = signed_event.read(given, await request.body(), secrets, datetime.now(UTC))
        if said is not None:
            request.scope[GENUINE] = True
            if said.event == signed_event.REMOVED:
                await end_grants(self._settings, self._store, platform, said.user_id, said.at)
        return said


async def end_grants(
    settings: Settings, store: Store, platform: str, user_id: str, at: datetime | None
) -> list[str]:
    """End what a platform's user granted until `at`, tokens too; return the ids of all of it."""
    title = load_platforms(settings.policies)[platform].title
    reason = f"its owner removed ClickPost at {title}; connect it again, if that was a mistake"
    grants = Grants(store.engine, store.vault)
    rows = await grants.of_user(platform, user_id, at)
    for row in rows:
        if await grants.end(row.id, reason, at):
            log.info("revoked by its owner", connection_id=row.id)
    return [row.id for row in rows]


async def asked_by(
    settings: Settings, store: Store, platform: str, user_id: str, at: datetime | None
) -> Asked:
    """Return the request of a platform's user that we erase what they connected; its grants end.

    The same word again is the same request.
    """
    return Asked(
        Kind.ERASURE,
        Door.PLATFORM,
        connection_ids=await end_grants(settings, store, platform, user_id, at),
        once=f"{platform}:{user_id}:{at}",
    )


async def heard(settings: Settings, store: Store, request: Request) -> SignedRequest | None:
    """Return what a platform's callback says, where a secret of our app there signed it."""
    platform = request.path_params["platform"]
    secrets = await _secrets(settings, store, platform, "signed_request")
    given = (await request.form()).get("signed_request")
    return signed_request.read(given if isinstance(given, str) else "", secrets, datetime.now(UTC))


async def _secrets(
    settings: Settings, store: Store, platform: str, how: Literal["signed_request", "signed_event"]
) -> list[str]:
    """Return with what a platform signs, none where it tells us nothing in this way."""
    policy = load_platforms(settings.policies).get(platform)
    signs = policy is not None and policy.oauth is not None and policy.oauth.callbacks == how
    return await store.app_secrets(platform) if signs else []


def wants_erasure(said: SignedEvent) -> bool:
    """Say whether an event means that nothing of its user may stay: their account is no more."""
    return said.event == signed_event.REMOVED and said.reason is Reason.ACCOUNT_DELETED
