"""Starts flow runs and looks at them, over Prefect's REST API, without importing Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from clickpost.errors import Unavailable
from clickpost.settings import Settings

#: The work pool that our workers take runs from.
POOL = "clickpost"
#: These are over; nothing changes them but a retry.
ENDED = ("CANCELLED", "COMPLETED", "FAILED", "CRASHED")
#: A run in one of these states sends nothing any more.
_OVER = ("CANCELLING", *ENDED)


def api_url(settings: Settings) -> str:
    """Return the address of Prefect's API."""
    return settings.prefect_api


def ui_url(settings: Settings) -> str:
    """Return the address of Prefect's UI."""
    return settings.prefect_ui


def auth(settings: Settings) -> httpx.BasicAuth | None:
    """Return what Prefect's API asks of us, where it asks."""
    if settings.prefect_auth is None:
        return None
    user, _, password = settings.prefect_auth.get_secret_value().partition(":")
    return httpx.BasicAuth(user, password)


def _client(settings: Settings) -> httpx.Client:
    return httpx.Client(base_url=api_url(settings), timeout=30, auth=auth(settings))


def answers(settings: Settings) -> bool:
    """Say whether Prefect's server is well."""
    try:
        with _client(settings) as client:
            return client.get("/health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def silent(settings: Settings) -> Unavailable:
    """Return what to say, and who acts, where Prefect does not answer."""
    act = "Run: clickpost up"
    if settings.prefect_api_url:
        act = "It is the server that PREFECT_API_URL names: start it, or unset that"
    return Unavailable(f"Prefect does not answer at {api_url(settings)}. {act}")


def start(
    settings: Settings,
    flow: str,
    parameters: Mapping[str, Any],
    *,
    at: datetime | None = None,
    key: str | None = None,
    tags: Sequence[str] = (),
    name: str | None = None,
) -> str:
    """Create a run of `flow`'s deployment, now or `at` a moment, and return its id.

    It is named after the flow and the post that it is about, unless `name` says otherwise. The
    same idempotency `key` returns the run that exists, unless that one has ended (somebody
    cancelled it, say): then a new one is made. Raises Unavailable, with what to do,
    where Prefect cannot be reached or does not know the deployment.
    """
    body: dict[str, Any] = {
        "parameters": dict(parameters),
        "tags": list(tags),
        "state": {
            "type": "SCHEDULED",
            "state_details": {"scheduled_time": (at or datetime.now(UTC)).isoformat()},
        },
    }
    if key is not None:
        body["idempotency_key"] = key
    if name := name or _name_of(flow, parameters):
        body["name"] = name
    try:
        with _client(settings) as client:
            deployment = client.get(f"/deployments/name/{flow}/{flow}")
            if deployment.status_code == httpx.codes.NOT_FOUND:
                raise Unavailable(f"Prefect does not know the flow {flow}. Run: clickpost up")
            deployment.raise_for_status()
            address = f"/deployments/{deployment.json()['id']}/create_flow_run"
            made = client.post(address, json=body).raise_for_status()
            while key is not None and made.json()["state_type"] in _OVER:
                body["idempotency_key"] = f"{body['idempotency_key']} again"
                made = client.post(address, json=body).raise_for_status()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise Unavailable(f"Prefect refused to start {flow}: HTTP {status}") from None
    except httpx.TransportError:
        raise silent(settings) from None
    return str(made.json()["id"])


def _name_of(flow: str, parameters: Mapping[str, Any]) -> str | None:
    post_id = parameters.get("post", {}).get("post_id")
    return f"{flow} {post_id}" if post_id else None


@dataclass(frozen=True)
class RunState:
    """Where a run stands: Prefect's type, the name that the UI shows, and the message."""

    type: str
    name: str
    message: str | None


def state_of(settings: Settings, run_id: str) -> RunState | None:
    """Return where a run stands; None where Prefect does not answer or no longer has it."""
    try:
        with _client(settings) as client:
            answer = client.get(f"/flow_runs/{run_id}").raise_for_status()
    except httpx.HTTPError:
        return None
    state = answer.json()["state"] or {}
    return RunState(state.get("type", ""), state.get("name", ""), state.get("message"))


def complete(settings: Settings, run_id: str, message: str) -> bool:
    """End a run that waits, as done; say whether it is over, which Prefect may not tell now."""
    state = {"state": {"type": "COMPLETED", "message": message}, "force": True}
    try:
        with _client(settings) as client:
            answer = client.get(f"/flow_runs/{run_id}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                return True
            if answer.raise_for_status().json()["state_type"] not in _OVER:
                client.post(f"/flow_runs/{run_id}/set_state", json=state).raise_for_status()
    except httpx.HTTPError:
        return False
    return True


def heartbeat(settings: Settings) -> datetime | None:
    """Return when a worker was last heard of; None where none was, or nobody knows."""
    try:
        with _client(settings) as client:
            answer = client.post(f"/work_pools/{POOL}/workers/filter", json={})
            found = answer.raise_for_status().json()
    except httpx.HTTPError:
        return None
    beats = [one["last_heartbeat_time"] for one in found if one.get("last_heartbeat_time")]
    return max((datetime.fromisoformat(one) for one in beats), default=None)


def run_url(settings: Settings, run_id: str) -> str:
    """Return the page of one run in the Prefect UI."""
    return f"{ui_url(settings)}/runs/flow-run/{run_id}"
