"""A personal data server and a video service of the AT Protocol, as strict as their lexicons."""

from __future__ import annotations

import hashlib
import html
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import regex
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.inspect import inspect
from sandbox.marks import escaped
from sandbox.misbehaviour import Orders
from sandbox.stand_ins import StandIn
from sandbox.state import State, iso

TID = re.compile(r"^[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}$")
POST_KEYS = {"$type", "text", "createdAt", "facets", "langs", "embed", "reply", "labels", "tags"}
PEOPLE = {
    "bob.test": "did:plc:bobbobbobbobbobbobbobbob",
    "alice.test": "did:plc:alicealicealicealicealic",
}
IMAGE_LIMIT, VIDEO_LIMIT, BLOB_LIMIT = 2_000_000, 300_000_000, 52_428_800
#: The name by which the server knows itself; from outside it may be reached by another.
HOST = "pds.sandbox.test"
FEATURES = {"link": "uri", "mention": "did", "tag": "tag"}
MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,20})?(Z|[+-]\d\d:\d\d)$")
LANGUAGE = re.compile(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")
STEPS = {
    "com.atproto.server.createSession": "session",
    "com.atproto.server.refreshSession": "refresh",
    "com.atproto.repo.uploadBlob": "upload_blob",
    "app.bsky.video.uploadVideo": "upload_video",
    "app.bsky.video.getJobStatus": "video_status",
    "com.atproto.repo.putRecord": "put_record",
    "com.atproto.repo.createRecord": "create_record",
    "com.atproto.repo.getRecord": "get_record",
    "com.atproto.repo.listRecords": "list_records",
    "com.atproto.repo.deleteRecord": "delete_record",
    "com.atproto.server.getServiceAuth": "service_auth",
    "com.atproto.server.getSession": "get_session",
    "com.atproto.identity.resolveHandle": "resolve_handle",
}


def step_of(method: str, path: str) -> str:
    """Name a call for the control endpoint."""
    return STEPS.get(path.rsplit("/", 1)[-1], "other")


class Refused(Exception):
    """An XRPC error."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(error)
        self.response = JSONResponse({"error": error, "message": message}, status)


def invalid(message: str) -> Refused:
    """Return a refusal of the schema."""
    return Refused(400, "InvalidRequest", message)


class Bluesky:
    """The server's methods."""

    def __init__(self, state: State, orders: Orders) -> None:
        self.state, self.orders = state, orders
        self.handles = dict(PEOPLE)

    def routes(self) -> list[Route]:
        """Return the routes of the server."""
        return [
            Route("/xrpc/{name}", self.call, methods=["GET", "POST"]),
            Route("/profile/{who}/post/{rkey}", self.permalink),
        ]

    async def permalink(self, request: Request) -> Response:
        """Lead from a client's permalink to the timeline."""
        return RedirectResponse(f"/p/bluesky/{request.path_params['rkey']}")

    async def call(self, request: Request) -> Response:
        """Answer one XRPC call."""
        name = request.path_params["name"]
        handler = getattr(self, "do_" + name.rsplit(".", 1)[-1], None)
        if handler is None or (name not in STEPS and name != "com.atproto.server.deleteSession"):
            return JSONResponse(
                {"error": "MethodNotImplemented", "message": "Method Not Implemented"}, 501
            )
        try:
            answer = await handler(request)
        except Refused as refused:
            return refused.response
        response = answer if isinstance(answer, Response) else JSONResponse(answer)
        response.headers.update({"RateLimit-Limit": "3000", "RateLimit-Remaining": "2990"})
        response.headers.update({"RateLimit-Reset": str(int(time.time()) + 300)})
        return response

    def account(self, request: Request, kind: str = "access") -> dict[str, Any]:
        """Return whose token it is; refuse what is missing, ended or wrong."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise Refused(401, "AuthMissing", "Authentication Required")
        parts = token.split(".")
        found = self.state.accounts["bluesky"].get(parts[1]) if len(parts) == 4 else None
        if found is None or parts[0] != kind:
            raise Refused(400, "InvalidToken", "Token could not be verified")
        if found["revoked"]:
            code = "ExpiredToken" if kind == "refresh" else "InvalidToken"
            raise Refused(400, code, "Token has been revoked")
        if kind == "access" and (found["expired"] or int(parts[2]) < found["generation"]):
            raise Refused(400, "ExpiredToken", "Token has expired")
        return found

    def session(self, account: dict[str, Any]) -> dict[str, Any]:
        """Open a session: tokens of a new generation, and where the account lives."""
        account["generation"] += 1
        account["expired"] = False
        self.state.touch()
        tail = f"{account['id']}.{account['generation']}.{secrets.token_hex(8)}"
        return {
            "accessJwt": f"access.{tail}",
            "refreshJwt": f"refresh.{tail}",
            "did": account["id"],
            "handle": account["handle"],
            "didDoc": did_document(account),
            "email": "somebody@example.org",
            "emailConfirmed": True,
            "emailAuthFactor": False,
            "active": True,
        }

    async def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON body."""
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise invalid("Request encoding (Content-Type) required but not provided")
        raw = await request.body()
        if len(raw) > 1_000_000:
            raise Refused(413, "PayloadTooLarge", "request entity too large")
        try:
            said = json.loads(raw)
        except ValueError:
            raise invalid("Input is not valid JSON") from None
        if not isinstance(said, dict):
            raise invalid("Input must be an object")
        return said

    async def do_createSession(self, request: Request) -> Any:  # noqa: N802
        said = await self.body(request)
        who = str(said.get("identifier"))
        account = self.state.by_credential("bluesky", "identifier", who)
        account = account or self.state.accounts["bluesky"].get(who)
        if account is None or account["credentials"]["app_password"] != said.get("password"):
            raise Refused(401, "AuthenticationRequired", "Invalid identifier or password")
        account["revoked"] = False
        return self.session(account)

    async def do_refreshSession(self, request: Request) -> Any:  # noqa: N802
        if await request.body():
            raise invalid("A request body was provided when none was expected")
        return self.session(self.account(request, "refresh"))

    async def do_deleteSession(self, request: Request) -> Any:  # noqa: N802
        self.account(request, "refresh")["revoked"] = True
        return Response()

    async def do_getSession(self, request: Request) -> Any:  # noqa: N802
        account = self.account(request)
        return {"did": account["id"], "handle": account["handle"], "active": True}

    async def do_resolveHandle(self, request: Request) -> Any:  # noqa: N802
        handle = request.query_params.get("handle", "").lower()
        known = {row["handle"]: row["id"] for row in self.state.accounts["bluesky"].values()}
        did = (self.handles | known).get(handle)
        if did is None:
            raise invalid("Unable to resolve handle")
        return {"did": did}

    async def do_uploadBlob(self, request: Request) -> Any:  # noqa: N802
        self.account(request)
        mime = request.headers.get("content-type")
        if not mime:
            raise invalid("Request encoding (Content-Type) required but not provided")
        path, digest, size = await self.state.receive(request.stream())
        if size > BLOB_LIMIT:
            raise Refused(413, "PayloadTooLarge", "request entity too large")
        facts = await inspect(path)
        return {"blob": self.blob(digest, facts.get("mime", mime), size, facts)}

    def blob(self, digest: str, mime: str, size: int, facts: dict[str, Any]) -> dict[str, Any]:
        """Remember a blob and return its reference."""
        cid = f"bafkrei{digest[:52]}"
        self.state.things[cid] = {"sha256": digest, "mime": mime, **facts}
        self.state.touch()
        return {"$type": "blob", "ref": {"$link": cid}, "mimeType": mime, "size": size}

    async def do_getServiceAuth(self, request: Request) -> Any:  # noqa: N802
        account = self.account(request)
        if request.query_params.get("aud") != f"did:web:{HOST}":
            raise invalid("aud is not this server, on which the video service shall put a blob")
        left = int(request.query_params.get("exp", "0")) - time.time()
        if "exp" in request.query_params and not 0 < left <= 3600:
            raise Refused(400, "BadExpiration", "expiration is in past or past an hour")
        return {"token": f"service.{account['id']}.{request.query_params.get('lxm')}"}

    async def do_uploadVideo(self, request: Request) -> Any:  # noqa: N802
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        did = request.query_params.get("did")
        if token != f"service.{did}.com.atproto.repo.uploadBlob":
            raise Refused(401, "unauthorized", "missing or wrong service token")
        if request.headers.get("content-type") != "video/mp4" or not request.query_params.get(
            "name"
        ):
            raise Refused(400, "UnsupportedContentType", "needs video/mp4 and a name")
        path, digest, size = await self.state.receive(request.stream())
        if str(size) != request.headers.get("content-length"):
            raise invalid("Content-Length does not match")
        job = f"job{digest[:16]}"
        if job in self.state.things and "blob" in self.state.things[job]:
            said = {"error": "already_exists", "jobId": job, "did": did}
            said |= {"state": "JOB_STATE_COMPLETED", "message": "Video already processed"}
            return JSONResponse(said, 409)
        facts = await inspect(path)
        failure = None
        usable = facts["kind"] == "video" and "mp4" in facts["format"] and size <= VIDEO_LIMIT
        if not usable or facts["duration"] > 600:
            failure = "validation_failure"
        if self.orders.take("bluesky", "upload_video", "fail_processing"):
            failure = "encoding_failure"
        self.state.things[job] = {
            "did": did,
            "at": time.time(),
            "failure": failure,
            "blob": None if failure else self.blob(digest, "video/mp4", size, facts),
        }
        return {"did": did, "jobId": job, "state": "JOB_STATE_CREATED"}

    async def do_getJobStatus(self, request: Request) -> Any:  # noqa: N802
        job = self.state.things.get(request.query_params.get("jobId", ""))
        if job is None:
            raise invalid("job not found")
        said = {"jobId": request.query_params["jobId"], "did": job["did"]}
        if time.time() - job["at"] < self.state.processing_seconds:
            return {"jobStatus": said | {"state": "JOB_STATE_ENCODING", "progress": 40}}
        if job["failure"]:
            said |= {"state": "JOB_STATE_FAILED", "failureCode": job["failure"]}
            return {"jobStatus": said | {"message": "the video cannot be used"}}
        return {"jobStatus": said | {"state": "JOB_STATE_COMPLETED", "blob": job["blob"]}}

    async def do_putRecord(self, request: Request) -> Any:  # noqa: N802
        account = self.account(request)
        said = await self.body(request)
        self.wellformed(said, account, {"swapRecord"})
        if not TID.match(str(said.get("rkey", ""))):
            raise invalid("Invalid record key")
        key = f"bluesky/{said['rkey']}"
        known = self.state.posts.get(key)
        cid = cid_of(said["record"])
        if known is not None and not known["deleted"]:
            if known["cid"] == cid:
                return {"uri": known["uri"], "cid": cid, "validationStatus": "valid"}
            if said.get("swapRecord", ...) is None:
                raise Refused(400, "InvalidSwap", "Record was at " + known["cid"])
        return self.kept(account, said["rkey"], said["record"], cid)

    async def do_createRecord(self, request: Request) -> Any:  # noqa: N802
        account = self.account(request)
        said = await self.body(request)
        self.wellformed(said, account, set())
        rkey = said.get("rkey") or "3" + "".join(secrets.choice("234567abcdef") for _ in range(12))
        known = self.state.posts.get(f"bluesky/{rkey}")
        if known is not None and not known["deleted"]:
            raise Refused(500, "InternalServerError", "Internal Server Error")
        return self.kept(account, rkey, said["record"], cid_of(said["record"]))

    def wellformed(self, said: dict[str, Any], account: dict[str, Any], more: set[str]) -> None:
        """Refuse what the lexicon refuses."""
        unknown = (
            set(said) - {"repo", "collection", "rkey", "validate", "record", "swapCommit"} - more
        )
        if unknown:
            raise invalid(f"Unexpected field {sorted(unknown)[0]}")
        if said.get("repo") not in (account["id"], account["handle"]):
            raise Refused(403, "AccountNotFound", "Account not found")
        if said.get("collection") != "app.bsky.feed.post":
            raise invalid("Unsupported collection")
        self.valid(said.get("record"))

    def valid(self, record: Any) -> None:
        """Refuse a record that is no app.bsky.feed.post."""
        where = "Invalid app.bsky.feed.post record: "
        if not isinstance(record, dict) or record.get("$type") != "app.bsky.feed.post":
            raise Refused(400, "InvalidRequest", where + "Record/$type must be app.bsky.feed.post")
        if unknown := set(record) - POST_KEYS:
            raise Refused(400, "InvalidRequest", where + f"Unknown property {sorted(unknown)[0]}")
        text, made = record.get("text"), record.get("createdAt")
        if not isinstance(text, str) or not isinstance(made, str):
            raise Refused(400, "InvalidRequest", where + "Record must have the property text")
        if len(text.encode()) > 3000:
            raise Refused(
                400, "InvalidRequest", where + "text must not be longer than 3000 characters"
            )
        if len(regex.findall(r"\X", text)) > 300:
            raise Refused(
                400, "InvalidRequest", where + "text must not be longer than 300 graphemes"
            )
        if not MOMENT.match(made):
            raise invalid(where + "createdAt must be a valid atproto datetime")
        for facet in record.get("facets", []):
            if not pointed(facet, text.encode()):
                raise invalid(where + "facet index out of text, or no known feature")
        self.valid_words(record, where)
        self.valid_embed(record.get("embed"), where)
        for side in ("root", "parent") if record.get("reply") else ():
            ref = record["reply"].get(side, {})
            known = self.state.posts.get("bluesky/" + str(ref.get("uri", "")).rsplit("/", 1)[-1])
            if known is None or known["cid"] != ref.get("cid"):
                raise Refused(400, "InvalidRequest", where + f"reply/{side} is no strong reference")

    def valid_words(self, record: dict[str, Any], where: str) -> None:
        """Refuse languages, tags and labels that the lexicon refuses."""
        langs, tags = record.get("langs", []), record.get("tags", [])
        if len(langs) > 3 or not all(LANGUAGE.match(str(one)) for one in langs):
            raise invalid(where + "langs must be at most 3 well-formed BCP 47 language tags")
        if len(tags) > 8 or any(len(regex.findall(r"\X", str(one))) > 64 for one in tags):
            raise invalid(where + "tags must be at most 8 of at most 64 graphemes")
        labels = record.get("labels")
        if labels is None:
            return
        values = labels.get("values")
        shaped = labels.get("$type") == "com.atproto.label.defs#selfLabels" and values
        if not shaped or not all(set(one) == {"val"} for one in values):
            raise invalid(where + "labels must be self labels")

    def valid_embed(self, embed: Any, where: str) -> None:
        """Refuse embeds of wrong shape, size or unknown blobs."""
        if embed is None:
            return
        kind = embed.get("$type")
        blobs: list[tuple[dict[str, Any], str, int]] = []
        if kind == "app.bsky.embed.images":
            images = embed.get("images", [])
            if not 0 < len(images) <= 4:
                raise Refused(
                    400, "InvalidRequest", where + "embed/images must not have more than 4"
                )
            if any(not isinstance(one.get("alt"), str) for one in images):
                raise Refused(
                    400, "InvalidRequest", where + "embed/images/0 must have the property alt"
                )
            blobs = [(one.get("image", {}), "image/", IMAGE_LIMIT) for one in images]
        elif kind == "app.bsky.embed.video":
            blobs = [(embed.get("video", {}), "video/mp4", VIDEO_LIMIT)]
            if len(regex.findall(r"\X", str(embed.get("alt", "")))) > 1000:
                raise invalid(where + "embed/alt must not be longer than 1000 graphemes")
            if len(str(embed.get("alt", "")).encode()) > 10_000:
                raise invalid(where + "embed/alt must not be longer than 10000 characters")
        else:
            raise invalid(where + "embed is of no known type")
        if not all(has_shape(one) for one in embed.get("images", [embed])):
            raise invalid(where + "aspectRatio must have a positive width and height")
        for blob, mime, limit in blobs:
            cid = blob.get("ref", {}).get("$link")
            if cid not in self.state.things:
                raise Refused(400, "BlobNotFound", f"Could not find blob: {cid}")
            if not str(blob.get("mimeType", "")).startswith(mime):
                raise Refused(400, "InvalidMimeType", f"Wrong mimetype, expected {mime}*")
            if blob.get("size", 0) > limit:
                raise Refused(400, "InvalidSize", f"This file is too large. Maximum {limit} bytes")

    def kept(self, account: dict[str, Any], rkey: str, record: dict[str, Any], cid: str) -> Any:
        """Keep a record as a post and answer with its address."""
        uri = f"at://{account['id']}/app.bsky.feed.post/{rkey}"
        embed = record.get("embed") or {}
        images = embed.get("images") or ([embed] if embed.get("video") else [])
        media = [self.shown(one) for one in images]
        self.state.add_post(
            "bluesky",
            account["id"],
            rkey,
            uri=uri,
            cid=cid,
            record=record,
            text=record["text"],
            created_at=record["createdAt"],
            media=media,
            handle=account["handle"],
            reply_to=str((record.get("reply") or {}).get("parent", {}).get("uri", "")).rsplit(
                "/", 1
            )[-1],
        )
        commit = {"cid": cid, "rev": str(time.time_ns())}
        return {"uri": uri, "cid": cid, "commit": commit, "validationStatus": "valid"}

    def shown(self, one: dict[str, Any]) -> dict[str, Any]:
        """Return what the timeline shows of an embed's image or video."""
        blob = one.get("image") or one["video"]
        return {**self.state.things[blob["ref"]["$link"]], "alt": one.get("alt", "")}

    def record(self, request: Request) -> dict[str, Any] | None:
        """Return the post that a query names."""
        rkey = request.query_params.get("rkey", "")
        post = self.state.posts.get(f"bluesky/{rkey}")
        if post is None or post["deleted"] or post["account"] != request.query_params.get("repo"):
            return None
        return post

    async def do_getRecord(self, request: Request) -> Any:  # noqa: N802
        repo, known = request.query_params.get("repo"), self.state.accounts["bluesky"].values()
        if repo not in {row[key] for row in known for key in ("id", "handle")}:
            raise invalid("Could not locate record")  # The account is not on this server.
        post = self.record(request)
        if post is None:
            where = f"at://{request.query_params.get('repo')}/…/{request.query_params.get('rkey')}"
            raise Refused(400, "RecordNotFound", f"Could not locate record: {where}")
        return {"uri": post["uri"], "cid": post["cid"], "value": post["record"]}

    async def do_listRecords(self, request: Request) -> Any:  # noqa: N802
        repo = request.query_params.get("repo")
        rows = [
            p for p in self.state.newest("bluesky") if p["account"] == repo and not p["deleted"]
        ]
        rows = rows[: int(request.query_params.get("limit", "50"))]
        return {"records": [{"uri": p["uri"], "cid": p["cid"], "value": p["record"]} for p in rows]}

    async def do_deleteRecord(self, request: Request) -> Any:  # noqa: N802
        account = self.account(request)
        said = await self.body(request)
        post = self.state.posts.get(f"bluesky/{said.get('rkey')}")
        if post is not None and post["account"] == account["id"]:
            post["deleted"], post["deleted_at"] = True, iso()
            self.state.touch()
        return {}


def did_document(account: dict[str, Any]) -> dict[str, Any]:
    """Return who an account is and on which server it lives."""
    service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer"}
    return {
        "id": account["id"],
        "alsoKnownAs": [f"at://{account['handle']}"],
        "service": [service | {"serviceEndpoint": f"https://{HOST}"}],
    }


def pointed(facet: dict[str, Any], text: bytes) -> bool:
    """Say whether a facet covers whole characters of `text` and says something about them."""
    try:
        index, features = facet["index"], facet["features"]
        piece = text[index["byteStart"] : index["byteEnd"]].decode()
        kinds = [one["$type"].removeprefix("app.bsky.richtext.facet#") for one in features]
        said = all(one[FEATURES[kind]] for one, kind in zip(features, kinds, strict=True))
    except (UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return False
    return bool(piece) and bool(kinds) and said and index["byteEnd"] <= len(text)


def has_shape(shown: dict[str, Any]) -> bool:
    """Say whether an image or a video tells a possible shape, or none."""
    ratio = shown.get("aspectRatio")
    if ratio is None:
        return True
    return all(isinstance(ratio.get(side), int) and ratio[side] > 0 for side in ("width", "height"))


def cid_of(record: dict[str, Any]) -> str:
    """Return a content id: the same record, the same id."""
    canonical = json.dumps(record, sort_keys=True, ensure_ascii=False)
    return "bafyrei" + hashlib.sha256(canonical.encode()).hexdigest()[:52]


def faceted(record: dict[str, Any]) -> str:
    """Render a record's text with its facets, which count in bytes."""
    raw, pieces, at = record["text"].encode(), [], 0
    for facet in sorted(record.get("facets", []), key=lambda one: one["index"]["byteStart"]):
        start, end = facet["index"]["byteStart"], facet["index"]["byteEnd"]
        uri = facet["features"][0].get("uri")
        pieces.append(escaped(raw[at:start]))
        said = escaped(raw[start:end])
        # Mentions and tags lead into the platform, which is not here.
        tag = f'<span class="tag">{said}</span>'
        pieces.append(f'<a href="{html.escape(uri)}">{said}</a>' if uri else tag)
        at = end
    pieces.append(escaped(raw[at:]))
    return "".join(pieces).replace("\n", "<br>")


def shown(post: dict[str, Any]) -> str:
    """Render a post's text."""
    return faceted(post["record"])


def limited() -> Response:
    """Answer that the account is too fast."""
    headers = {"ratelimit-limit": "5000", "ratelimit-remaining": "0"}
    headers |= {"ratelimit-reset": str(int(time.time()) + 2), "retry-after": "2"}
    said = {"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"}
    return JSONResponse(said, 429, headers)


def broken() -> Response:
    """Answer that something behind the server is down."""
    return JSONResponse({"error": "UpstreamFailure", "message": "Upstream Failure"}, 502)


def handle_of(name: str) -> str:
    """Return an account's handle, which is a host name."""
    return f"{name}.sandbox.test"


def credentials(name: str) -> dict[str, str]:
    """Make an account's credentials."""
    return {"identifier": handle_of(name), "app_password": secrets.token_urlsafe(12)}


def remote_id(number: int, made: Mapping[str, str]) -> str:
    """Make a DID."""
    return "did:plc:" + hashlib.sha256(made["identifier"].encode()).hexdigest()[:24]


def mounts(state: State, orders: Orders, base: str) -> dict[str, list[Route]]:
    """Return the account's server, and the video service under an address of its own."""
    made = Bluesky(state, orders)
    return {"/bluesky": made.routes(), "/bluesky-video": made.routes()}


STAND_IN = StandIn(
    title="Bluesky",
    hues=("#0a6fd6", "#5aa9ff"),
    seed={"identifier": "studio.sandbox.test", "app_password": "abcd-efgh-ijkl-mnop"},
    credentials=credentials,
    remote_id=remote_id,
    handle_of=handle_of,
    mounts=mounts,
    options=lambda base: {
        "permalink_base": f"{base}/bluesky",
        "video_base": f"{base}/bluesky-video",
    },
    step_of=step_of,
    limited=limited,
    broken=broken,
    body=shown,
)
