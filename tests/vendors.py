"""Stand-ins for the vendors whose processors we ship: strict, and able to misbehave.

They answer as the vendors' documents say, and refuse what these do not know.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

KEY = "rk_test_canary"


@dataclass
class Vendors:
    """What the three hold, what they were asked, and how they misbehave."""

    base: str = ""
    customers: dict[str, str] = field(default_factory=dict)
    """Stripe: id and address."""
    deleted: set[str] = field(default_factory=set)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[int, dict[str, str]] = field(default_factory=dict)
    """Zendesk: id, with `email`, `role` and how it stands: active, deleted, gone."""
    erasing: int = 0
    """How many looks Zendesk takes until it is complete."""
    members: dict[str, set[str]] = field(default_factory=dict)
    """Mailchimp: by list, the digests of its members."""
    calls: list[str] = field(default_factory=list)
    fail: dict[str, list[int]] = field(default_factory=dict)
    """By method and path, the statuses that the next calls get."""
    lose: set[str] = field(default_factory=set)
    """Methods and paths that are done, and whose answer says that they were not."""

    def failing(self, request: Request) -> Response | None:
        """Count a call, and return the failure that was asked for."""
        call = f"{request.method} {request.url.path}"
        self.calls.append(call)
        if self.fail.get(call):
            status = self.fail[call].pop(0)
            wait = {"Retry-After": "7"} if status == 429 else {}
            return JSONResponse({"error": {"message": "no"}}, status, headers=wait)
        return None

    def app(self) -> Starlette:
        """Return the three, each under its name."""
        return Starlette(
            routes=[
                Mount("/stripe", routes=_stripe(self)),
                Mount("/zendesk", routes=_zendesk(self)),
                Mount("/mailchimp", routes=_mailchimp(self)),
            ]
        )


def _missing(what: str) -> JSONResponse:
    error = {"code": "resource_missing", "message": f"No such {what}", "param": "id"}
    return JSONResponse({"error": {**error, "type": "invalid_request_error"}}, 404)


def _stripe(vendors: Vendors) -> list[Route]:
    def refused(request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": {"message": "Invalid API Key provided"}}, 401)
        if not request.headers.get("stripe-version"):
            return JSONResponse({"error": {"message": "no version"}}, 400)
        return vendors.failing(request)

    async def list_(request: Request) -> Response:
        if no := refused(request):
            return no
        if set(request.query_params) != {"email", "limit"}:
            return JSONResponse({"error": {"code": "parameter_unknown"}}, 400)
        wanted = request.query_params["email"]  # The case counts.
        found = [
            {"id": one, "object": "customer", "email": address}
            for one, address in vendors.customers.items()
            if address == wanted and one not in vendors.deleted
        ]
        return JSONResponse({"object": "list", "data": found, "has_more": False})

    async def customer(request: Request) -> Response:
        if no := refused(request):
            return no
        one = request.path_params["id"]
        if one not in vendors.customers:
            return _missing("customer")
        if request.method == "DELETE":
            vendors.deleted.add(one)
        if one in vendors.deleted:
            return JSONResponse({"id": one, "object": "customer", "deleted": True})
        return JSONResponse({"id": one, "object": "customer", "email": vendors.customers[one]})

    async def jobs(request: Request) -> Response:
        if no := refused(request):
            return no
        form = await request.form()
        if set(form) != {"objects[customers][]", "validation_behavior"}:
            return JSONResponse({"error": {"code": "parameter_unknown"}}, 400)
        once = request.headers.get("idempotency-key", "")
        known = next((job for job in vendors.jobs.values() if job["once"] == once), None)
        if known is None:
            job_id = f"prj_{len(vendors.jobs)}"
            customer = str(form["objects[customers][]"])
            known = {"id": job_id, "once": once, "status": "validating", "customer": customer}
            vendors.jobs[job_id] = known
        return _job(known)

    async def job(request: Request) -> Response:
        if no := refused(request):
            return no
        known = vendors.jobs.get(request.path_params["id"])
        return _missing("job") if known is None else _job(known)

    async def run(request: Request) -> Response:
        if no := refused(request):
            return no
        known = vendors.jobs.get(request.path_params["id"])
        if known is None:
            return _missing("job")
        if known["status"] != "ready":
            return JSONResponse({"error": {"message": "the job is not ready"}}, 400)
        known["status"] = "redacting"
        vendors.customers.pop(known["customer"], None)
        if "run" in vendors.lose:
            return JSONResponse({}, 500)
        return _job(known)

    return [
        Route("/v1/customers", list_, methods=["GET"]),
        Route("/v1/customers/{id}", customer, methods=["GET", "DELETE"]),
        Route("/v1/privacy/redaction_jobs", jobs, methods=["POST"]),
        Route("/v1/privacy/redaction_jobs/{id}", job, methods=["GET"]),
        Route("/v1/privacy/redaction_jobs/{id}/run", run, methods=["POST"]),
    ]


def _job(job: dict[str, Any]) -> JSONResponse:
    return JSONResponse(
        {"id": job["id"], "object": "privacy.redaction_job", "status": job["status"]}
    )


def _basic(request: Request) -> str:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return base64.b64decode(value).decode() if kind == "Basic" else ""


def _zendesk(vendors: Vendors) -> list[Route]:
    def refused(request: Request) -> Response | None:
        if _basic(request) != f"desk@example.com/token:{KEY}":
            return JSONResponse({"error": "Couldn't authenticate you"}, 401)
        return vendors.failing(request)

    def user(request: Request, *stands: str) -> dict[str, str] | None:
        one = vendors.users.get(int(request.path_params["id"]))
        return one if one is not None and one["stands"] in stands else None

    none = JSONResponse({"error": "RecordNotFound", "description": "Not found"}, 404)

    async def search(request: Request) -> Response:
        if no := refused(request):
            return no
        # It finds a part of an address, too.
        wanted = request.query_params["query"].removeprefix("email:").lower()
        found = [
            {"id": number, "email": one["email"], "role": one["role"]}
            for number, one in vendors.users.items()
            if one["stands"] == "active" and wanted in one["email"].lower()
        ]
        return JSONResponse({"users": found, "count": len(found)})

    async def delete(request: Request) -> Response:
        if no := refused(request):
            return no
        if (one := user(request, "active")) is None:
            return none
        one["stands"] = "deleted"
        return JSONResponse({"user": {"id": int(request.path_params["id"]), "active": False}})

    async def purge(request: Request) -> Response:
        if no := refused(request):
            return no
        if (one := user(request, "deleted")) is None:
            return none
        one |= {"stands": "gone", "email": ""}
        return JSONResponse({"deleted_user": {"id": int(request.path_params["id"])}})

    async def statuses(request: Request) -> Response:
        if no := refused(request):
            return no
        assert request.query_params["application"] == "support"
        vendors.erasing -= 1
        actions = ["started"] if vendors.erasing >= 0 else ["started", "complete"]
        said = [{"action": one, "application": "support"} for one in actions]
        return JSONResponse({"compliance_deletion_statuses": said})

    return [
        Route("/api/v2/users/search", search, methods=["GET"]),
        Route("/api/v2/users/{id:int}", delete, methods=["DELETE"]),
        Route("/api/v2/deleted_users/{id:int}", purge, methods=["DELETE"]),
        Route("/api/v2/users/{id:int}/compliance_deletion_statuses", statuses, methods=["GET"]),
    ]


def _mailchimp(vendors: Vendors) -> list[Route]:
    def refused(request: Request) -> Response | None:
        if _basic(request).partition(":")[2] != KEY:
            return JSONResponse({"title": "API Key Invalid", "status": 401}, 401)
        return vendors.failing(request)

    async def member(request: Request) -> Response:
        if no := refused(request):
            return no
        there = vendors.members.get(request.path_params["list"], set())
        digest = request.path_params["digest"]
        if digest not in there:
            return JSONResponse({"title": "Resource Not Found", "status": 404}, 404)
        if request.method == "POST":
            there.discard(digest)
            return Response(status_code=204)
        return JSONResponse({"id": digest, "status": "subscribed"})

    place = "/3.0/lists/{list}/members/{digest}"
    return [
        Route(place, member, methods=["GET"]),
        Route(f"{place}/actions/delete-permanent", member, methods=["POST"]),
    ]


def digest_of(address: str) -> str:
    """Return the name of an address at Mailchimp."""
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


@contextmanager
def serve() -> Iterator[Vendors]:
    """Serve the stand-ins on a free port of loopback."""
    vendors = Vendors()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    vendors.base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(vendors.app(), log_level="error", http="h11"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield vendors
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
