"""A connector as one writes it in a hurry: it posts, and breaks every promise of the contract.

It speaks to the stand-in of Mastodon. Nobody may import it but the suite's own test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    Message,
    Prepared,
    Presence,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import PlatformRejected, Reauthorize, Transient
from clickpost.policy.shape import PlatformPolicy
from connectors._api import Api
from tests.contract.cases import Case

SPEAKS_TO = "mastodon"
CASE = Case(publish_step="status", refresh_step="other")

#: How each promise breaks: a piece of what is then said.
BREAKS: Mapping[str, str] = {
    "what_is_published_is_there_and_reads_as_it_was_written": "another text",
    "a_lost_answer_is_unknown_and_a_look_finds_the_post": "try again",
    "an_error_after_the_fact_is_unknown_and_a_look_finds_the_post": "try again",
    "nonsense_after_the_fact_is_unknown_and_a_look_finds_the_post": "DID NOT RAISE",
    "a_look_takes_no_post_of_other_media_for_ours": "takes another post for ours",
    "a_call_dropped_before_is_unknown_and_a_look_finds_nothing": "try again",
    "a_call_that_never_left_is_transient": "connect the account again",
    "a_rate_limit_names_the_time": "try again",
    "an_ended_token_is_told_from_a_revoked_one": "try again",
    "a_revoked_token_is_for_the_owner_or_for_a_refresh": "try again",
    "a_refresh_that_loses_its_answer_disconnects_nobody": "connect the account again",
    "only_what_vanished_is_absent": "takes trouble for absence",
    "another_text_is_noticed_and_the_same_is_not": "does not see the change",
    "deleting_twice_is_fine": "404",
    "preparing_again_from_what_is_known_uploads_nothing_twice": "uploaded again",
    "content_that_the_platform_refuses_is_for_the_writer": "tells the content",
    "nobody_reads_a_token_in_a_repr": "shows a secret",
    "a_picture_arrives_with_its_description": "A teal square",
    "capabilities_are_those_of_the_policy": "quota",
}


def policy_of(honest: PlatformPolicy) -> PlatformPolicy:
    """Return a policy that claims more than the connector can do."""
    claimed = ["whoami", "prepare", "publish", "find", "check", "delete", "refresh", "quota"]
    return honest.model_copy(update={"capabilities": claimed})


def connector(account: Account, policy: PlatformPolicy, client: httpx.AsyncClient) -> Connector:
    """Make it, as `connectors.connector` does for the others."""
    return Connector(Api(client, policy), account)


@dataclass(frozen=True)
class Connector:
    """Speaks for one account, carelessly."""

    api: Api
    account: Account
    token: str = field(init=False)  # Shown by every repr.

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", self.account.secrets["access_token"])

    async def whoami(self) -> Identity:
        """Return the account."""
        body = (await self._call("GET", "/api/v1/accounts/verify_credentials")).json()
        return Identity(remote_id=body["id"], handle=body["acct"])

    async def refresh(self) -> Tokens:
        """Take any failure for the end of the grant."""
        try:
            await self._call("GET", "/api/v1/accounts/verify_credentials")
        except Transient:
            raise Reauthorize("refresh failed, connect the account again") from None
        return Tokens({"access_token": ""})

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Upload everything, every time, without descriptions."""
        media = []
        for one in message.media:
            file = {"file": ("media", one.path.read_bytes(), one.mime)}
            media.append((await self._call("POST", "/api/v2/media", files=file)).json()["id"])
        return Prepared({"status": message.text, "media_ids": media})

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Post it in capitals under no key, and believe any answer."""
        said = {**prepared.state, "status": prepared.state["status"].upper()}
        response = await self._call("POST", "/api/v1/statuses", json=said)
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise PlatformRejected(f"refused: {said}")
        try:
            body = response.json()
        except ValueError:
            return Receipt(remote_id="?")
        return Receipt(remote_id=body["id"], url=body["url"])

    async def find(self, sought: Sought) -> Receipt:
        """Take the newest post for ours."""
        path = f"/api/v1/accounts/{self.account.remote_id}/statuses"
        return Receipt(remote_id=(await self._call("GET", path)).json()[0]["id"])

    async def check(self, receipt: Receipt) -> Presence | Absence:
        """Take whatever goes wrong for a post that is gone, and any answer for the same post."""
        try:
            await self._call("GET", f"/api/v1/statuses/{receipt.remote_id}")
        except Transient:
            return Absence.NOT_THERE
        return Presence()

    async def delete(self, receipt: Receipt) -> None:
        """Take `gone` for a failure."""
        response = await self._call("DELETE", f"/api/v1/statuses/{receipt.remote_id}")
        response.raise_for_status()

    async def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Call anything, and advise to try again whatever happened."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = self.account.api_base + path
        try:
            response = await self.api.client.request(method, url, headers=headers, **request)
        except httpx.ConnectError:
            raise Reauthorize("cannot reach it, connect the account again") from None
        except httpx.TransportError:
            raise Transient("no answer, try again") from None
        if response.status_code in (401, 403, 429) or response.status_code >= 500:
            raise Transient("failed, try again")
        return response
