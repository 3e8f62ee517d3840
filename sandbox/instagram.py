"""Instagram's content publishing: containers, status, publish, and the resumable upload host."""

from __future__ import annotations

import calendar
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.consent import Client, Consent, Wrong
from sandbox.inspect import inspect
from sandbox.marks import marked
from sandbox.misbehaviour import Orders
from sandbox.stand_ins import StandIn
from sandbox.state import State

FIELDS = {
    "image_url", "video_url", "caption", "alt_text", "media_type", "is_carousel_item", "children",
    "upload_type", "share_to_feed", "cover_url", "thumb_offset", "user_tags", "location_id",
    "collaborators", "access_token", "audio_name", "is_ai_generated", "product_tags",
    "trial_params",
}  # fmt: skip
#: The app that an operator made by hand.
APP = Client("990602627938098", "sandbox-app-secret")
SCOPES = {
    "instagram_business_basic": "See your profile and your posts",
    "instagram_business_content_publish": "Publish posts",
    "instagram_business_manage_comments": "Manage comments",
}
STAMP = "%Y-%m-%dT%H:%M:%S+0000"
SAYS = {
    "IN_PROGRESS": "In Progress: Media is still being processed.",
    "FINISHED": "Finished: Media has been uploaded and it is ready to be published.",
    "PUBLISHED": "Published: Media has been published.",
    "EXPIRED": "Expired: Media has expired.",
}


def step_of(method: str, path: str) -> str:
    """Name a call for the control endpoint."""
    for tail, step in (
        ("/media_publish", "publish"), ("/content_publishing_limit", "quota"), ("/me", "me"),
        ("/refresh_access_token", "refresh"), ("/me/accounts", "pages"),
        ("/oauth/authorize", "authorize"), ("/oauth/access_token", "token"),
        ("/access_token", "exchange"),
    ):  # fmt: skip
        if path.endswith(tail):
            return step
    if "/ig-api-upload/" in path:
        return "upload"
    if path.endswith("/media"):
        return "container" if method == "POST" else "list_media"
    if method == "DELETE":
        return "delete"
    return "container_status" if re.search(r"/1788\d+$", path) else "get_media"


class Refused(Exception):
    """A Graph error."""

    def __init__(
        self, message: str, code: int, subcode: int | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code}
        if subcode:
            error |= {"error_subcode": subcode, "is_transient": False}
            error |= {"error_user_title": message, "error_user_msg": message}
        self.response = JSONResponse({"error": error | {"fbtrace_id": "sandbox"}}, status)


class Instagram:
    """The graph host and the upload host."""

    def __init__(self, state: State, orders: Orders, base: str) -> None:
        self.state, self.orders, self.base = state, orders, base
        self.consent = Consent(
            state,
            "instagram",
            "Instagram",
            SCOPES,
            clients=(APP,),
            separator=",",
            pkce=False,
            denial={
                "error_reason": "user_denied",
                "error_description": "The user denied your request.",
            },
            tail="#_",
        )

    def routes(self) -> list[Route]:
        """Return the routes of the graph host, and of the hosts where people sign in."""
        guarded = self.guarded
        return [
            *self.consent.routes("/oauth/authorize"),
            Route("/oauth/access_token", guarded(self.token), methods=["POST"]),
            Route("/access_token", guarded(self.exchanged)),
            Route("/refresh_access_token", guarded(self.refresh)),
            Route("/{v}/me", guarded(self.me)),
            Route("/{v}/me/accounts", guarded(self.pages)),
            Route("/{v}/{id}/media", guarded(self.media), methods=["POST"]),
            Route("/{v}/{id}/media", guarded(self.listed)),
            Route("/{v}/{id}/media_publish", guarded(self.publish), methods=["POST"]),
            Route("/{v}/{id}/content_publishing_limit", guarded(self.quota)),
            Route("/{v}/{id}", guarded(self.one), methods=["GET", "DELETE"]),
        ]

    def upload_routes(self) -> list[Route]:
        """Return the routes of the upload host."""
        path = "/ig-api-upload/{v}/{id}"
        return [Route(path, self.guarded(self.upload), methods=["POST"])]

    def guarded(self, handler: Any) -> Any:
        """Answer refusals in the platform's shape."""

        async def run(request: Request) -> Response:
            version = request.path_params.get("v")
            try:
                if version is not None and not re.fullmatch(r"v\d\d\.\d", version):
                    raise Refused("Unknown path components", 2500)
                answer = await handler(request)
            except Refused as refused:
                return refused.response
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return run

    def account(self, token: str | None) -> dict[str, Any]:
        """Return whose token it is."""
        found = self.state.by_credential("instagram", "access_token", token or "")
        if found is None or found["revoked"]:
            raise Refused("Invalid OAuth access token.", 190, status=401)
        if found["expired"]:
            raise Refused("Error validating access token: Session has expired", 190, 463, 401)
        return found

    def mine(self, request: Request, token: str | None) -> dict[str, Any]:
        """Return the account, which has to be that of the path."""
        account = self.account(token)
        if request.path_params["id"] != account["id"]:
            raise Refused("Unsupported request. Object does not exist", 100, 33)
        return account

    async def token(self, request: Request) -> Any:
        """Change a code into a token of an hour, which the graph host does not take here."""
        said = await request.form()
        if said.get("grant_type") != "authorization_code":
            raise Refused("Invalid grant_type", 100)
        try:
            granted = self.consent.redeem(said)
        except Wrong as wrong:
            body = {"error_type": "OAuthException", "code": 400, "error_message": wrong.said}
            return JSONResponse(body, 400)
        short = "IGSH" + secrets.token_urlsafe(12)
        self.state.things[f"short:{short}"] = {"account": granted.account["id"]}
        self.state.touch()
        known = {"access_token": short, "user_id": "24" + granted.account["id"]}
        return {"data": [known | {"permissions": ",".join(granted.scopes)}]}

    async def exchanged(self, request: Request) -> Any:
        """Change a token of an hour into one of 60 days."""
        query = request.query_params
        if query.get("grant_type") != "ig_exchange_token":
            raise Refused("Invalid grant_type", 100)
        if query.get("client_secret") != APP.secret:
            raise Refused("Error validating client secret.", 1)
        kept = self.state.things.get(f"short:{query.get('access_token')}")
        if kept is None:
            raise Refused("Invalid OAuth access token.", 190, status=401)
        token = self.state.accounts["instagram"][kept["account"]]["credentials"]["access_token"]
        return {"access_token": token, "token_type": "bearer", "expires_in": 5183944}

    async def refresh(self, request: Request) -> Any:
        account = self.account(request.query_params.get("access_token"))
        if request.query_params.get("grant_type") != "ig_refresh_token":
            raise Refused("Invalid grant_type", 100)
        account["credentials"]["access_token"] = "IGAA" + secrets.token_urlsafe(12)
        self.state.touch()
        token = account["credentials"]["access_token"]
        return {"access_token": token, "token_type": "bearer", "expires_in": 5183944}

    async def me(self, request: Request) -> Any:
        """Tell the fields asked for; `id` is that of the app's user, not that of the paths."""
        account = self.account(request.query_params.get("access_token"))
        known = {
            "user_id": account["id"], "username": account["handle"], "name": account["name"],
            "account_type": "BUSINESS", "id": "24" + account["id"],
        }  # fmt: skip
        return chosen(known, request.query_params.get("fields", ""))

    async def pages(self, request: Request) -> Any:
        """List the Page that the account is linked to, as Facebook Login shows it."""
        account = self.account(request.query_params.get("access_token"))
        linked = {"id": account["id"], "username": account["handle"]}
        page = {"id": "1" + account["id"], "name": account["name"]}
        return {"data": [page | {"instagram_business_account": linked}]}

    async def quota(self, request: Request) -> Any:
        account = self.mine(request, request.query_params.get("access_token"))
        used = sum(
            post["account"] == account["id"] and time.time() - float(post["received_at"]) < 86400
            for post in self.state.newest("instagram")
        )
        config = {"quota_total": 50, "quota_duration": 86400}
        return {"data": [{"quota_usage": used, "config": config}]}

    async def media(self, request: Request) -> Any:
        said = {key: str(value) for key, value in (await request.form()).items()}
        account = self.mine(request, said.get("access_token"))
        if unknown := set(said) - FIELDS:
            raise Refused(f"Param {sorted(unknown)[0]} is not allowed", 100)
        caption = said.get("caption", "")
        if len(caption) > 2200:
            raise Refused("The caption was too long", 36004, 2207010)
        if caption.count("#") > 30 or len(re.findall(r"(?<!\w)@\w", caption)) > 20:
            raise Refused("Too many tags or mentions", 100, 2207040)
        container = "1788" + str(secrets.randbelow(10**13)).zfill(13)
        thing: dict[str, Any] = {
            "kind": "container", "account": account["id"], "caption": caption, "media": [],
            "status": "IN_PROGRESS", "at": time.time(), "child": "is_carousel_item" in said,
            "alt": said.get("alt_text", ""), "error": "",
        }  # fmt: skip
        await self.filled(thing, said)
        self.state.things[container] = thing
        self.state.touch()
        answer = {"id": container}
        if said.get("upload_type") == "resumable":
            answer["uri"] = (
                f"{self.base}-upload/ig-api-upload/{request.path_params['v']}/{container}"
            )
        return answer

    async def filled(self, thing: dict[str, Any], said: dict[str, str]) -> None:
        """Take what the container is of: an image, a video to come, or children."""
        kind = said.get("media_type", "IMAGE")
        if kind == "CAROUSEL":
            children = [one for one in said.get("children", "").split(",") if one]
            if not 2 <= len(children) <= 10:
                raise Refused("Carousels need 2 to 10 items", 100, 2207028)
            for one in children:
                child = self.state.things.get(one)
                if child is None or not child.get("child") or self.status(one) != "FINISHED":
                    raise Refused("Media ID is not available", 9007, 2207027)
                thing["media"] += child["media"]
            return
        if kind in ("REELS", "VIDEO"):
            if thing["child"] is not (kind == "VIDEO"):
                raise Refused("A video of an album is a VIDEO, a single one a REEL", 100, 2207023)
            if "alt_text" in said:
                raise Refused("Param alt_text is not allowed", 100)
            if said.get("upload_type") == "resumable":
                thing["status"] = "AWAITING"
                return
            await self.fetched(thing, said.get("video_url", ""), "video")
            return
        if kind != "IMAGE" or "image_url" not in said:
            raise Refused("Media type is unknown", 100, 2207023)
        if len(said.get("alt_text", "")) > 1000:
            raise Refused("The alt text is too long", 100)
        await self.fetched(thing, said["image_url"], "image")

    async def fetched(self, thing: dict[str, Any], url: str, kind: str) -> None:
        """Fetch a file as the platform does; here only from this machine."""
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
            raise Refused("The media could not be fetched from this URI", 9004, 2207052)
        try:
            async with (
                httpx.AsyncClient(timeout=20, trust_env=False) as client,
                client.stream("GET", url) as response,
            ):
                response.raise_for_status()
                path, digest, size = await self.state.receive(response.aiter_bytes())
        except httpx.HTTPError:
            raise Refused("The media could not be fetched from this URI", 9004, 2207052) from None
        await self.taken(thing, path, digest, size, kind)

    async def taken(
        self, thing: dict[str, Any], path: Any, digest: str, size: int, kind: str
    ) -> None:
        """Inspect a file; an image is refused at once, a video when it is processed."""
        facts = await inspect(path)
        if kind == "image":
            if size > 8_000_000:
                raise Refused("The image is too large to download", 36000, 2207004)
            if facts.get("format") != "jpeg":
                raise Refused("The image format is not supported", 36001, 2207005)
            if not 0.795 <= facts["width"] / facts["height"] <= 1.915:
                raise Refused("The aspect ratio is not supported", 36003, 2207009)
        else:
            thing["error"] = video_fault(facts, size, child=thing["child"])
            if self.orders.take("instagram", "upload", "fail_processing"):
                thing["error"] = "2207026"
        thing["media"] = [{"sha256": digest, "alt": thing["alt"], **facts}]
        thing["status"], thing["at"] = "IN_PROGRESS", time.time()

    async def upload(self, request: Request) -> Any:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "OAuth":
            raise Refused("Invalid OAuth access token.", 190, status=401)
        account = self.account(token)
        thing = self.state.things.get(request.path_params["id"])
        if thing is None or thing["account"] != account["id"]:
            raise Refused("Object does not exist", 100, 33)
        path, digest, size = await self.state.receive(request.stream())
        whole = (
            request.headers.get("file_size") == str(size) and request.headers.get("offset") == "0"
        )
        if not whole:
            info = {
                "retriable": False,
                "type": "ProcessingFailedError",
                "message": "offset or size",
            }
            return JSONResponse({"debug_info": info}, 400)
        await self.taken(thing, path, digest, size, "video")
        self.state.touch()
        return {"success": True, "message": "Upload successful."}

    def status(self, container: str) -> str:
        """Return a container's status code, as time passes."""
        thing = self.state.things[container]
        kind = thing["media"][0]["kind"] if thing["media"] else "none"
        patience = self.state.processing_seconds if kind == "video" else 0.0
        if thing["status"] == "IN_PROGRESS" and time.time() - thing["at"] >= patience:
            thing["status"] = "ERROR" if thing["error"] else "FINISHED"
        if thing["status"] == "FINISHED" and time.time() - thing["at"] > 86400:
            thing["status"] = "EXPIRED"
        return "IN_PROGRESS" if thing["status"] == "AWAITING" else str(thing["status"])

    async def publish(self, request: Request) -> Any:
        said = await request.form()
        account = self.mine(request, str(said.get("access_token")))
        container = str(said.get("creation_id"))
        thing = self.state.things.get(container)
        if thing is None or thing.get("account") != account["id"] or thing["child"]:
            raise Refused("Media ID is not available", 24, 2207006)
        match self.status(container):
            case "PUBLISHED" | "EXPIRED":
                raise Refused("The media is not available or expired", 24, 2207008)
            case "FINISHED":
                thing["status"] = "PUBLISHED"
            case "ERROR":
                raise Refused("The media could not be processed", 24, 2207006)
            case _:
                raise Refused("Media ID is not available", 9007, 2207027)
        media_id = "1792" + str(secrets.randbelow(10**13)).zfill(13)
        self.state.add_post(
            "instagram", account["id"], media_id, text=thing["caption"], media=thing["media"],
            created_at=stamp(), handle=account["handle"], container=container,
        )  # fmt: skip
        return {"id": media_id}

    def shown(self, post: dict[str, Any], fields: str) -> dict[str, Any]:
        """Return the fields of a post that were asked for."""
        host = self.base.rsplit("/", 1)[0]
        known = {
            "id": post["id"], "caption": post["text"], "timestamp": post["created_at"],
            "permalink": f"{host}/p/instagram/{post['id']}", "shortcode": post["id"],
        }  # fmt: skip
        kinds = [str(one["kind"]).upper() for one in post["media"]]
        known["media_type"] = "CAROUSEL_ALBUM" if len(kinds) > 1 else kinds[0]
        if len(kinds) > 1:
            items = [{"media_type": kind, "id": f"{post['id']}{n}"} for n, kind in enumerate(kinds)]
            known["children"] = {"data": items}
        return chosen(known, fields.replace("{media_type}", ""))

    async def one(self, request: Request) -> Any:
        account = self.account(request.query_params.get("access_token"))
        thing_id, fields = request.path_params["id"], request.query_params.get("fields", "")
        if thing_id == account["id"]:
            return {"id": account["id"], "username": account["handle"]}
        thing = self.state.things.get(thing_id)
        if thing is not None and thing.get("account") == account["id"]:
            code = self.status(thing_id)
            broken = f"Error: Media upload has failed with error code {thing['error']}"
            known = {"id": thing_id, "status_code": code, "status": SAYS.get(code, broken)}
            return chosen(known, fields)
        post = self.state.posts.get(f"instagram/{thing_id}")
        if post is None or post["deleted"] or post["account"] != account["id"]:
            raise Refused("Unsupported request. Object does not exist", 100, 33)
        if request.method == "DELETE":
            post["deleted"] = True
            self.state.touch()
            return {"success": True}
        return self.shown(post, fields)

    async def listed(self, request: Request) -> Any:
        account = self.mine(request, request.query_params.get("access_token"))
        query = request.query_params
        since, until = float(query.get("since", 0)), float(query.get("until", "inf"))
        rows = [
            post
            for post in self.state.newest("instagram")
            if post["account"] == account["id"]
            and not post["deleted"]
            and since <= moment(post["created_at"]) <= until
        ]
        most = int(query.get("limit", 25))
        ids = [str(post["id"]) for post in rows]
        begin = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        page = rows[begin : begin + most]
        answer: dict[str, Any] = {
            "data": [self.shown(post, query.get("fields", "id")) for post in page]
        }
        if page:
            cursors = {"before": str(page[0]["id"]), "after": str(page[-1]["id"])}
            further = begin + most < len(rows)
            answer["paging"] = {"cursors": cursors} | ({"next": "…"} if further else {})
        return answer


def chosen(known: dict[str, Any], fields: str) -> dict[str, Any]:
    """Return what was asked for, and the id, which Graph always tells."""
    return {key: known[key] for key in {"id", *fields.split(",")} if key in known}


def stamp() -> str:
    """Return the time as Graph writes it."""
    return time.strftime(STAMP, time.gmtime())


def moment(stamped: str) -> float:
    """Return the epoch of a time that Graph wrote."""
    return calendar.timegm(time.strptime(stamped, STAMP))


def video_fault(facts: dict[str, Any], size: int, *, child: bool) -> str:
    """Return the subcode of what is wrong with a video, or an empty string."""
    if facts.get("kind") != "video":
        return "2207026"
    longest, largest = (60, 100_000_000) if child else (900, 300_000_000)
    fine = (
        facts["codec"] in ("h264", "hevc")
        and "420p" in facts["pixels"]
        and 22.9 <= facts["fps"] <= 60.5
        and facts["width"] <= 1920
        and facts["duration"] + 0.05 >= 3
        and facts["duration"] <= longest + 0.1
        and facts["bitrate"] <= 26_000_000
        and facts["audio"] in (None, "aac")
        and (facts["audio_rate"] or 0) <= 48000
        and facts["moov_in_front"]
        and size <= largest
    )
    return "" if fine else "2207026"


def shown(post: dict[str, Any]) -> str:
    """Render a caption, in which an address is no link."""
    return marked(post["text"], links=False)


def limited() -> Response:
    """Answer that the app is too fast."""
    usage = '{"1":[{"type":"instagram","call_count":100,"estimated_time_to_regain_access":1}]}'
    error = {
        "message": "Application request limit reached",
        "type": "OAuthException",
        "code": 4,
        "is_transient": True,
        "fbtrace_id": "sandbox",
    }
    return JSONResponse({"error": error}, 400, {"X-Business-Use-Case-Usage": usage})


def broken() -> Response:
    """Answer a fault of Graph's own."""
    error = {"message": "An unexpected error has occurred.", "type": "OAuthException", "code": 2}
    return JSONResponse({"error": error | {"is_transient": True}}, 500)


def credentials(name: str) -> dict[str, str]:
    """Make an account's credentials."""
    token = f"IGAA{secrets.token_urlsafe(12)}"
    return {"access_token": token, "user_id": str(secrets.randbelow(10**16))}


def remote_id(number: int, made: Mapping[str, str]) -> str:
    """Return the id of the paths."""
    return made["user_id"]


def mounts(state: State, orders: Orders, base: str) -> dict[str, list[Route]]:
    """Return the graph host, and the upload host under an address of its own."""
    made = Instagram(state, orders, f"{base}/instagram")
    return {"/instagram": made.routes(), "/instagram-upload": made.upload_routes()}


STAND_IN = StandIn(
    title="Instagram",
    hues=("#c2257f", "#ff7cc0"),
    seed={"access_token": "IGAAsandbox-token", "user_id": "17841405309211844"},
    credentials=credentials,
    remote_id=remote_id,
    mounts=mounts,
    step_of=step_of,
    limited=limited,
    broken=broken,
    body=shown,
    media_first=True,
)
