"""Takes in what a platform says of people who removed our app: their connections end at once."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clickpost import signed_request
from clickpost.logs import logger
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.database import is_away

log = logger("revoking")


class Revocations:
    """The deauthorize callback of Meta's platforms."""

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
            await self._end(platform, said)
        except Exception as error:
            if not is_away(error):
                raise
            return PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
        return JSONResponse({})

    async def _end(self, platform: str, said: signed_request.SignedRequest) -> None:
        title = load_platforms(self._settings.policies)[platform].title
        reason = f"its owner removed ClickPost at {title}; connect it again, if that was a mistake"
        for row in await self._store.granted_by(platform, said.user_id, said.issued_at):
            await self._store.set_connection_status(row.id, "revoked", reason)
            log.info("revoked by its owner", connection_id=row.id)


async def heard(
    settings: Settings, store: Store, request: Request
) -> signed_request.SignedRequest | None:
    """Return what a platform's callback says, where a secret of our app there signed it."""
    platform = request.path_params["platform"]
    policy = load_platforms(settings.policies).get(platform)
    signs = policy is not None and policy.oauth is not None and policy.oauth.callbacks
    secrets = await store.app_secrets(platform) if signs else []
    given = (await request.form()).get("signed_request")
    return signed_request.read(given if isinstance(given, str) else "", secrets, datetime.now(UTC))
