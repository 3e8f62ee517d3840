"""Speaks for one account on X, through its API v2.

Facts: docs.x.com, X's OpenAPI document and twitter-text (policies/platforms/x.yaml names the
pages). X knows no idempotency key: after a lost answer the account's own posts decide.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import anyio
import httpx

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    Kind,
    MediaFile,
    Message,
    Prepared,
    Presence,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    NotFound,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    Reauthorize,
    TokenExpired,
    UnexpectedResponse,
)
from connectors._api import Api, Problem, json_of, plain_problem, text_at
from connectors._tokens import alone, seconds_of, tokens_of

#: What one segment of an upload holds, in bytes, and how many are sent in one step.
PIECE = 4_000_000
PIECES = 16
_SLACK = timedelta(minutes=2)
#: How long an access token lives, where X does not say.
_LIFE = timedelta(hours=2)
#: X bills what a look reads. Ten posts are all of the time in question, unless an account sends
#: more than anybody should; then it is the most that a page holds.
_PAGE, _LARGE_PAGE, _PAGES = 10, 100, 6
_FIELDS = "created_at,text,conversation_id,entities,attachments"


@dataclass(frozen=True)
class Connector:
    """Speaks for one account; `account.remote_id` is its numeric id."""

    api: Api
    account: Account

    async def sign_in(self) -> Tokens:
        """Make an access token, unless one was given alone: that ends within two hours."""
        if self.account.secrets.get("refresh_token"):
            return await self.refresh()
        return alone(self._secret("access_token"), _LIFE)

    async def refresh(self) -> Tokens:
        """Exchange the refresh token; X answers with a new one, and the old one is dead."""
        form = {"grant_type": "refresh_token", "refresh_token": self._secret("refresh_token")}
        answer = json_of(await self._oauth("token", form, "refresh"), repeatable=True)
        return tokens_of(answer, _LIFE, call="POST token")

    async def revoke(self) -> None:
        """End the grant; one that has ended already is fine."""
        token = self.account.secrets.get("refresh_token") or self._secret("access_token")
        try:
            await self._oauth("revoke", {"token": token}, "revoke")
        except PlatformError as error:
            if error.status not in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED):
                raise

    async def whoami(self) -> Identity:
        """Return the account's id and name."""
        me = await self._me("whoami")
        remote_id = text_at(me, "id", call="GET /2/users/me")
        handle = text_at(me, "username", call="GET /2/users/me")
        name = str(me.get("name") or "")
        return Identity(remote_id, handle, name=name, url=f"{self._web()}/{quote(handle)}")

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Upload media with their descriptions, and wait until X is done with them.

        A video's upload is returned, to be stored, before it gets a byte, and after each
        `PIECES` segments.
        """
        state: dict[str, Any] = {"media": [], "since": datetime.now(UTC).isoformat()}
        state |= so_far.state if so_far else {}
        state["text"] = message.text
        media = [dict(one) for one in state["media"]]
        state["media"] = media
        for number, file in enumerate(message.media):
            if number == len(media):
                media.append(await self._begun(file))
                if file.kind is Kind.VIDEO:
                    return Prepared(state, ready=False)
            wait = await self._continued(media[number], file)
            if wait is not None:
                return Prepared(state, ready=False, again_in=wait)
        return Prepared(state)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Create the post.

        X refuses a text that repeats one of the account's own. Where that one is older than ours,
        the writer has to change the text; else it may be ours, and the outcome is unknown.
        """
        state = prepared.state
        body: dict[str, Any] = {"text": state["text"]} if state["text"] else {}
        if state["media"]:
            body["media"] = {"media_ids": [one["id"] for one in state["media"]]}
        if after:
            body["reply"] = {"in_reply_to_tweet_id": after[-1].remote_id}
        try:
            response = await self._send(
                "POST", "/2/tweets", step="publish", repeatable=False, json=body
            )
        except OutcomeUnknown as error:
            if error.status == httpx.codes.FORBIDDEN:
                await self._refused_as_repeated(state, error)
            raise
        answer = json_of(response, repeatable=False)
        return self._receipt(text_at(answer, "data", "id", call="POST /2/tweets", repeatable=False))

    async def _refused_as_repeated(self, state: Mapping[str, Any], error: OutcomeUnknown) -> None:
        """Raise PlatformRejected where what ours repeats was there before ours was prepared."""
        since = datetime.fromisoformat(state["since"]) - _SLACK
        try:
            page = await self._posts("publish", {"max_results": str(_PAGE)})
        except PlatformError:
            return
        same = [one for one in _items(page) if spoken(one) == plain(state["text"])]
        if same and all((moment_of(one) or since) < since for one in same):
            raise PlatformRejected(
                error.message, field="text", status=error.status, code="duplicate"
            ) from None

    async def find(self, sought: Sought) -> Receipt | Absence:
        """Look among the account's own posts since it was sent; the list of that time is whole."""
        since = sought.sent_at - _SLACK
        query = {"max_results": str(_PAGE), "start_time": f"{since:%Y-%m-%dT%H:%M:%SZ}"}
        doubt = False
        for _ in range(_PAGES):
            page = await self._posts("find", query)
            for post in _items(page):
                if str(post.get("id")) in sought.taken:
                    continue
                match is_it(post, sought, since):
                    case True:
                        return self._receipt(text_at(post, "id", call="GET posts"))
                    case None:
                        doubt = True
            meta = page.get("meta")
            token = meta.get("next_token") if isinstance(meta, dict) else None
            if not token:
                return Absence.CANNOT_TELL if doubt or "meta" not in page else Absence.NOT_THERE
            query |= {"pagination_token": str(token), "max_results": str(_LARGE_PAGE)}
        return Absence.CANNOT_TELL

    async def check(self, receipt: Receipt) -> Presence | Absence:
        """Read the post; that X does not know it counts where X still knows us."""
        path = f"/2/tweets/{quote(receipt.remote_id, safe='')}"
        try:
            answer = await self._json("GET", path, step="check", params={"post.fields": _FIELDS})
            post = answer.get("data")
            if isinstance(post, dict):
                return Presence.of(spoken(post))
            if not any(_is_missing(one) for one in _errors(answer)):
                return Absence.CANNOT_TELL
        except NotFound:
            pass
        ours = (await self._me("check")).get("id") == self._remote_id()
        return Absence.NOT_THERE if ours else Absence.CANNOT_TELL

    async def delete(self, receipt: Receipt) -> None:
        """Delete the post; one that is gone already is fine."""
        path = f"/2/tweets/{quote(receipt.remote_id, safe='')}"
        try:
            answer = await self._json("DELETE", path, step="delete")
        except NotFound:
            return
        data = answer.get("data")
        if isinstance(data, dict) and data.get("deleted") is True:
            return
        if not any(_is_missing(one) for one in _errors(answer)):
            raise UnexpectedResponse("DELETE /2/tweets answered that nothing was deleted")

    async def _begun(self, file: MediaFile) -> dict[str, Any]:
        """Upload a picture, or open the upload of a video; return how it stands."""
        if file.kind is Kind.VIDEO:
            said = {
                "media_type": file.mime,
                "total_bytes": file.bytes,
                "media_category": "tweet_video",
            }
            path = "/2/media/upload/initialize"
            answer = await self._json("POST", path, step="prepare", json=said)
        else:
            with file.path.open("rb") as content:
                answer = await self._json(
                    "POST",
                    "/2/media/upload",
                    step="prepare",
                    files={"media": (file.path.name, content, file.mime)},
                    data={"media_category": "tweet_image"},
                )
        return {
            "id": text_at(answer, "data", "id", call="media/upload"),
            "key": str(answer["data"].get("media_key") or ""),
            "next": 0 if file.kind is Kind.VIDEO else None,
            "ready": file.kind is not Kind.VIDEO,
            "described": not file.alt or file.kind is Kind.VIDEO,
        }

    async def _continued(self, one: dict[str, Any], file: MediaFile) -> float | None:
        """Bring an upload a step on; return the seconds until the next step, None once done."""
        if one["next"] is not None:
            return await self._appended(one, file)
        if not one["ready"]:
            query = {"command": "STATUS", "media_id": one["id"]}
            path = "/2/media/upload"
            if (
                wait := self._processed(
                    one, await self._json("GET", path, step="prepare", params=query)
                )
            ) is not None:
                return wait
        if not one["described"]:
            said = {"id": one["id"], "metadata": {"alt_text": {"text": file.alt}}}
            await self._json("POST", "/2/media/metadata", step="prepare", json=said)
            one["described"] = True
        return None

    async def _appended(self, one: dict[str, Any], file: MediaFile) -> float:
        """Send the next segments; after the last one, close the upload."""
        path = f"/2/media/upload/{quote(one['id'], safe='')}"
        async with await anyio.open_file(file.path, "rb") as content:
            for _ in range(PIECES):
                await content.seek(one["next"] * PIECE)
                if not (piece := await content.read(PIECE)):
                    answer = await self._json("POST", f"{path}/finalize", step="prepare")
                    one["next"] = None
                    return self._processed(one, answer) or 0.0
                await self._json(
                    "POST",
                    f"{path}/append",
                    step="append",  # Refused where the upload was closed by a run that was lost.
                    files={"media": ("segment", piece, "application/octet-stream")},
                    data={"segment_index": str(one["next"])},
                )
                one["next"] += 1
        return 0.0

    def _processed(self, one: dict[str, Any], answer: Mapping[str, Any]) -> float | None:
        """Note how far X has come; return the seconds until it may be asked again.

        Raises PlatformRejected where X cannot use the file.
        """
        data = answer.get("data")
        told = data.get("processing_info") if isinstance(data, dict) else None
        if not isinstance(told, dict) or told.get("state") == "succeeded":
            one["ready"] = True
            return None
        if told.get("state") == "failed":
            error = told.get("error")
            said = error.get("message") if isinstance(error, dict) else ""
            problem = Problem(status=400, code="failed", message=str(said or ""))
            raise self.api.error_of("media/upload", problem, step="prepare", repeatable=True)
        poll = self.api.policy.processing.poll.total_seconds()
        return seconds_of(told.get("check_after_secs")) or poll

    async def _me(self, step: str) -> dict[str, Any]:
        answer = await self._json("GET", "/2/users/me", step=step)
        data = answer.get("data")
        if not isinstance(data, dict):
            raise UnexpectedResponse("GET /2/users/me answered without data")
        return data

    async def _posts(self, step: str, query: Mapping[str, str]) -> dict[str, Any]:
        path = f"/2/users/{quote(self._remote_id(), safe='')}/tweets"
        params = {"post.fields": _FIELDS, "exclude": "retweets", **query}
        return await self._json("GET", path, step=step, params=params)

    async def _json(self, method: str, path: str, *, step: str, **request: Any) -> dict[str, Any]:
        return json_of(await self._send(method, path, step=step, **request), repeatable=True)

    async def _send(
        self, method: str, path: str, *, step: str, repeatable: bool = True, **request: Any
    ) -> httpx.Response:
        if not (token := self.account.secrets.get("access_token")):
            raise TokenExpired("the connection has no access_token yet")
        return await self.api.send(
            method,
            self.account.api_base.rstrip("/") + path,
            step=step,
            repeatable=repeatable,
            read=problem_of,
            headers={"Authorization": f"Bearer {token}"},
            **request,
        )

    async def _oauth(self, what: str, form: dict[str, str], step: str) -> httpx.Response:
        """Call the token endpoint, as a confidential client where there is a secret."""
        client, secret = self._secret("client_id"), self.account.secrets.get("client_secret")
        if secret:
            how: dict[str, Any] = {"auth": httpx.BasicAuth(client, secret), "data": form}
        else:
            how = {"data": form | {"client_id": client}}
        url = f"{self.account.api_base.rstrip('/')}/2/oauth2/{what}"
        return await self.api.send("POST", url, step=step, repeatable=True, **how)

    def _receipt(self, remote_id: str) -> Receipt:
        who = quote(self.account.handle or "i", safe="")
        return Receipt(remote_id, url=f"{self._web()}/{who}/status/{remote_id}")

    def _web(self) -> str:
        return self.account.options.get("permalink_base", "https://x.com").rstrip("/")

    def _secret(self, name: str) -> str:
        if value := self.account.secrets.get(name):
            return value
        raise Reauthorize(f"the connection has no {name}; connect it again")

    def _remote_id(self) -> str:
        if self.account.remote_id:
            return self.account.remote_id
        raise Reauthorize("the connection has no account id; connect it again")


def problem_of(response: httpx.Response) -> Problem:
    """Read one of X's shapes: problem+json, or a list of errors with numbers.

    The code is the last word of the problem's type, or the first error's number.
    """
    problem = plain_problem(response)
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return problem
    if not isinstance(body, dict):
        return problem
    first: Mapping[str, Any] = next(iter(_errors(body)), {})
    kind = str(body.get("type") or "").rpartition("/problems/")[2]
    code = kind if kind not in ("", "about:blank") else first.get("code")
    said = [str(one) for one in (first.get("message"), body.get("detail")) if one]
    return Problem(
        status=response.status_code,
        code=problem.code if code is None else str(code),
        message=" ".join(said) or problem.message,
        headers=response.headers,
    )


def _errors(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = body.get("errors")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _is_missing(error: Mapping[str, Any]) -> bool:
    return str(error.get("type") or "").endswith("/problems/resource-not-found")


def _items(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = page.get("data")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def is_it(post: Mapping[str, Any], sought: Sought, since: datetime) -> bool | None:
    """Say whether `post` is what we sent: its media, or its words, in its time and thread.

    None where it may be: the same words and as many media, under other keys than ours.
    """
    moment = moment_of(post)
    if moment is not None and not since <= moment <= sought.until + _SLACK:
        return False
    if not _answers(post, sought):
        return False
    ours = [one["key"] for one in sought.prepared.state.get("media") or []]
    attached = post.get("attachments")
    found = attached.get("media_keys") if isinstance(attached, dict) else None
    theirs = [str(one) for one in found] if isinstance(found, list) else []
    if {key for key in ours if key} & set(theirs):
        return True
    if len(ours) != len(theirs) or spoken(post) != plain(sought.text):
        return False
    return None if ours else True


def _answers(post: Mapping[str, Any], sought: Sought) -> bool:
    """Say whether `post` stands in the thread that ours belongs to, or begins one as ours does."""
    root = sought.after[0].remote_id if sought.after else post.get("id")
    return post.get("conversation_id") in (None, root)


def moment_of(post: Mapping[str, Any]) -> datetime | None:
    """Return when a post was made, None where X does not say."""
    try:
        return datetime.fromisoformat(str(post.get("created_at")))
    except ValueError:
        return None


def spoken(post: Mapping[str, Any]) -> str:
    """Return a post's words as they were written: X puts addresses of its own in place of links.

    What shows attached media is no word of the writer's.
    """
    note = post.get("note_post") or post.get("note_tweet")
    whole: Mapping[str, Any] = note if isinstance(note, dict) else post
    text = str(whole.get("text") or "")
    entities = whole.get("entities")
    urls = entities.get("urls") if isinstance(entities, dict) else None
    for one in urls if isinstance(urls, list) else []:
        address = str(one.get("expanded_url") or "")
        shown = "" if one.get("media_key") or _ATTACHED.search(address) else address
        text = text.replace(str(one.get("url")), shown)
    return plain(html.unescape(text))


_ATTACHED = re.compile(r"/status/\d+/(photo|video)/\d+$")


def plain(text: str) -> str:
    """Return a text without what X changes: its spaces, its accents' form, how its links begin."""
    bare = re.sub(r"https?://", "", unicodedata.normalize("NFC", text))
    return re.sub(r"/(?=\s|$)", "", " ".join(bare.split()))
