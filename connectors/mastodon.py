"""Speaks for one account on a Mastodon server, or on one that speaks its API.

Facts: docs.joinmastodon.org, Mastodon's own code, and what GoToSocial, Pixelfed, Pleroma and snac
answer (policies/platforms/mastodon.yaml names the pages).
"""

from __future__ import annotations

import hashlib
import math
import mimetypes
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import regex

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    Kind,
    MediaFile,
    Message,
    Outline,
    Prepared,
    Presence,
    Receipt,
    Sought,
)
from clickpost.errors import (
    NotFound,
    OutcomeUnknown,
    PlatformError,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    UnexpectedResponse,
)
from clickpost.wording import Link, Mention, entities
from connectors._api import Api, json_of, text_at

_SLACK = timedelta(minutes=2)
#: What servers that lack an address answer there.
_NO_SUCH = frozenset({404, 405, 410, 501})
#: What tells of a server that is away, not of one that lacks an address.
_AWAY = frozenset({None, 502, 503, 504})
#: A page as short as this is the whole list, also where a server knows no paging.
_SHORT = 20


@dataclass(frozen=True)
class Connector:
    """Speaks for one account."""

    api: Api
    account: Account

    async def whoami(self) -> Identity:
        """Return the account, and the limits that its server tells of itself."""
        answer = await self._json("GET", "/api/v1/accounts/verify_credentials", step="whoami")
        return Identity(
            remote_id=text_at(answer, "id", call="verify_credentials"),
            handle=str(answer.get("acct") or answer.get("username") or ""),
            name=str(answer.get("display_name") or ""),
            url=address_of(answer),
            limits=await self._limits(),
        )

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Upload media with their descriptions, and wait until the server is done with them."""
        state: dict[str, Any] = {"media": [], "urls": [], "pending": []}
        state |= so_far.state if so_far else {}
        state["status"] = status_of(message)
        state.setdefault("since", datetime.now(UTC).isoformat())
        for number in range(len(state["media"]), len(message.media)):
            file = message.media[number]
            media_id, url, ready = await self._uploaded(file, name_of(file, key, number))
            state["media"] = [*state["media"], media_id]
            state["urls"] = [*state["urls"], *([url] if url else [])]
            state["pending"] = [*state["pending"], *([] if ready else [media_id])]
        if so_far is not None:
            state["pending"] = [one for one in state["pending"] if not await self._processed(one)]
        poll = self.api.policy.processing.poll.total_seconds()
        return Prepared(state, ready=not state["pending"], again_in=poll if state["pending"] else 0)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Post the status under its idempotency key, which some servers ignore.

        A server that knows the key, or the media, from an earlier send refuses this one: then a
        look tells whether that made the post. Where it made none, the key is used up for an hour
        and no send under it can ever succeed (Pixelfed), so another one is used, once.
        """
        body = {**prepared.state["status"]}
        if prepared.state["media"]:
            body["media_ids"] = prepared.state["media"]
        if after:
            body["in_reply_to_id"] = after[-1].remote_id
        try:
            return await self._posted(body, key)
        except (OutcomeUnknown, PrepareAgain) as error:
            if error.status not in (400, 422):
                raise
            if found := await self._sent_before(prepared, key, after, error):
                return found  # Its media are ours alone.
        return await self._posted(body, f"{key}-again")

    async def _posted(self, body: Mapping[str, Any], key: str) -> Receipt:
        response = await self._send(
            "POST",
            "/api/v1/statuses",
            step="publish",
            repeatable=False,
            json=body,
            headers={"Idempotency-Key": key},
        )
        return receipt_of(json_of(response, repeatable=False), repeatable=False)

    async def find(self, sought: Sought) -> Receipt | Absence:
        """Look among the account's own recent posts; absence counts where the list is complete."""
        since = sought.sent_at - _SLACK
        look = _Look()
        doubt = False
        for _ in range(5):
            fresh = look.take(await self._recent(look.last))
            for status in own(fresh, self._remote_id()):
                if str(status.get("id")) in sought.taken:
                    continue
                match is_it(status, sought, since):
                    case True:
                        return receipt_of(status)
                    case None:
                        doubt = True
            if not fresh or _older(fresh, since):
                proof = not doubt and look.is_complete(visibility_of(sought), ended=not fresh)
                return Absence.NOT_THERE if proof else Absence.CANNOT_TELL
        return Absence.CANNOT_TELL

    async def check(self, receipt: Receipt) -> Presence | Absence:
        """Read the status; that it is not there counts where the server still knows us.

        Other servers and what stands before them answer 404 too, also to a token that ended.
        """
        path = f"/api/v1/statuses/{quote(receipt.remote_id, safe='')}"
        try:
            status = await self._json("GET", path, step="check")
        except NotFound:
            who = await self._json("GET", "/api/v1/accounts/verify_credentials", step="check")
            ours = str(who.get("id")) == self._remote_id()
            return Absence.NOT_THERE if ours else Absence.CANNOT_TELL
        if str(status.get("id")) != receipt.remote_id:
            return Absence.CANNOT_TELL
        # The words alone: servers rewrite links, and a rewrite is no edit.
        return Presence.of(tellings(status)[0].words)

    async def delete(self, receipt: Receipt) -> None:
        """Delete the status; one that is gone already is fine.

        Servers that cannot delete (snac) answer 404 too, so a 404 is believed only of a status
        that cannot be read either.
        """
        path = f"/api/v1/statuses/{quote(receipt.remote_id, safe='')}"
        try:
            await self._send("DELETE", path, step="delete")
            return
        except PlatformError as error:
            if error.status not in _NO_SUCH:
                raise
        try:
            await self._send("GET", path, step="delete")
        except NotFound:
            return
        raise UnexpectedResponse("the server offers no deletion; the status is still there")

    async def _recent(self, before: str | None) -> httpx.Response:
        """Return a page of the account's own posts, older than `before`."""
        query = {"limit": "40", "exclude_reblogs": "true"}
        if before is not None:
            query["max_id"] = before
        path = f"/api/v1/accounts/{quote(self._remote_id(), safe='')}/statuses"
        return await self._send("GET", path, step="find", params=query)

    async def _sent_before(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...], error: PlatformError
    ) -> Receipt | None:
        """Return the post that carries our media, None where no post is there; else raise `error`.

        Only a look that saw everything proves that a used key made nothing. Whoever sends a key
        again has looked before, after the server had time to settle. A post that merely reads
        like ours may be another one of ours: `find` decides that, which is told of those.
        """
        try:
            if found := await self._carrier(prepared):
                return found
            since = prepared.state.get("since")
            if isinstance(error, PrepareAgain) or not since:
                raise error
            sent_at, text = datetime.fromisoformat(since), str(prepared.state["status"]["status"])
            sought = Sought(key, prepared, text, sent_at, datetime.now(UTC), after)
            if await self.find(sought) is Absence.NOT_THERE:
                return None
            raise error
        except PlatformError as another:
            if another is error:
                raise
            raise OutcomeUnknown(error.message, status=error.status, code=error.code) from None

    async def _carrier(self, prepared: Prepared) -> Receipt | None:
        """Return the recent post that carries our media."""
        media = set(prepared.state["media"])
        if not media:
            return None
        recent = own(list_of(await self._recent(None)), self._remote_id())
        carriers = (one for one in recent if media & set(media_of(one, "id")))
        return next((receipt_of(one) for one in carriers), None)

    async def _uploaded(self, file: MediaFile, name: str) -> tuple[str, str | None, bool]:
        """Upload one file; return its id, its address and whether it is ready."""
        try:
            response = await self._upload("/api/v2/media", file, name)
        except PlatformError as error:  # Servers before 3.1.3 have only the first version.
            if error.status not in _NO_SUCH:
                raise
            response = await self._upload("/api/v1/media", file, name)
        answer = json_of(response, repeatable=True)
        ready = response.status_code != httpx.codes.ACCEPTED
        return text_at(answer, "id", call="media"), address_of(answer), ready

    async def _upload(self, path: str, file: MediaFile, name: str) -> httpx.Response:
        with file.path.open("rb") as content:
            return await self._send(
                "POST",
                path,
                step="prepare",
                files={"file": (name, content, file.mime)},
                data={"description": file.alt} if file.alt else {},
            )

    async def _processed(self, media_id: str) -> bool:
        path = f"/api/v1/media/{quote(media_id, safe='')}"
        try:
            response = await self._send("GET", path, step="prepare")
        except NotFound as error:  # Removed, or refused after the upload was accepted.
            raise PrepareAgain(error.message, status=error.status, code=error.code) from None
        return response.status_code != httpx.codes.PARTIAL_CONTENT

    async def _limits(self) -> dict[str, Any]:
        """Return what the server tells of itself; the older document fills what is missing."""
        limits: dict[str, Any] = {}
        for path in ("/api/v2/instance", "/api/v1/instance"):
            try:
                told = limits_of(await self._json("GET", path, step="whoami"))
            except PlatformError as error:
                if isinstance(error, RateLimited) or error.status in _AWAY:
                    raise
                continue
            limits = {
                name: told.get(name, {}) | limits.get(name, {}) for name in {**told, **limits}
            }
            if "limit" in limits.get("text", {}):
                break
        return limits

    async def _json(self, method: str, path: str, *, step: str, **request: Any) -> dict[str, Any]:
        return json_of(await self._send(method, path, step=step, **request), repeatable=True)

    async def _send(
        self, method: str, path: str, *, step: str, repeatable: bool = True, **request: Any
    ) -> httpx.Response:
        token = self.account.secrets.get("access_token")
        if not token:
            raise Reauthorize("the connection has no access_token; connect it again")
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",  # Pixelfed answers others with a redirect to its pages.
            **request.pop("headers", {}),
        }
        return await self.api.send(
            method,
            self.account.api_base.rstrip("/") + path,
            step=step,
            repeatable=repeatable,
            headers=headers,
            **request,
        )

    def _remote_id(self) -> str:
        if self.account.remote_id:
            return self.account.remote_id
        raise Reauthorize("the connection has no account id; connect it again")


@dataclass
class _Look:
    """What the pages of the account's own posts showed so far."""

    seen: set[str] = field(default_factory=set)
    last: str | None = None
    pages: bool = False
    shows_hidden: bool = False
    repeats: bool = False

    def take(self, response: httpx.Response) -> list[dict[str, Any]]:
        """Return the statuses of a page that no page before it had."""
        page = list_of(response)
        fresh = [one for one in page if str(one.get("id")) not in self.seen]
        self.seen |= {str(one.get("id")) for one in fresh}
        self.pages |= "link" in response.headers
        self.shows_hidden |= any(one.get("visibility") in ("private", "direct") for one in page)
        self.repeats = bool(page) and not fresh
        self.last = str(fresh[-1].get("id")) if fresh else self.last
        return fresh

    def is_complete(self, visibility: str, *, ended: bool) -> bool:
        """Say whether a post that was not on the pages is not there.

        snac lists public posts only and knows no paging; others show all to their author.
        """
        listed = visibility in ("public", "unlisted") or self.pages or self.shows_hidden
        return listed and not (ended and self.repeats and len(self.seen) >= _SHORT)


def name_of(file: MediaFile, key: str, number: int) -> str:
    """Name an upload: snac keeps files by name, and an equal name overwrites the older file."""
    suffix = file.path.suffix or mimetypes.guess_extension(file.mime) or ""
    return hashlib.sha256(f"{key}/{number}".encode()).hexdigest()[:20] + suffix


def status_of(message: Message) -> dict[str, Any]:
    """Say `message` as the fields of a status; what is not set is left out."""
    body: dict[str, Any] = {"status": message.text, "visibility": message.visibility}
    if message.sensitive:
        body["sensitive"] = True
    if message.spoiler:
        body["spoiler_text"] = message.spoiler
    if message.language:
        body["language"] = message.language.split("-")[0].lower()
    return body


def receipt_of(status: Mapping[str, Any], *, repeatable: bool = True) -> Receipt:
    """Read a status; its permalink is `url`, or `uri` where that is null."""
    remote_id = text_at(status, "id", call="POST /api/v1/statuses", repeatable=repeatable)
    return Receipt(remote_id=remote_id, url=address_of(status))


def address_of(thing: Mapping[str, Any]) -> str | None:
    """Return the first of `url` and `uri` that is an address on the web."""
    for one in (thing.get("url"), thing.get("uri")):
        if isinstance(one, str) and one.startswith(("https://", "http://")):
            return one
    return None


def list_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Read a list of statuses."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, list):
        raise UnexpectedResponse("GET statuses answered no list", status=response.status_code)
    return [one for one in body if isinstance(one, dict)]


def own(statuses: Sequence[dict[str, Any]], remote_id: str) -> Iterator[dict[str, Any]]:
    """Return the account's own statuses; snac shows those that somebody boosted as boosts."""
    for status in statuses:
        boosted = status.get("reblog")
        if not isinstance(boosted, dict):
            yield status
        elif str(mapping_at(boosted, "account").get("id")) == remote_id:
            yield boosted


def visibility_of(sought: Sought) -> str:
    """Return who may see what we look for."""
    return str(mapping_at(sought.prepared.state, "status").get("visibility", "public"))


#: Some servers (Pleroma) name a file after its bytes: another post with it has the same address.
_BY_CONTENT = regex.compile(r"[0-9a-fA-F]{32,}")


def is_it(status: Mapping[str, Any], sought: Sought, since: datetime) -> bool | None:
    """Say whether `status` is what we sent: its media, or its words and like media, in its time.

    None where it may be: pictures without words, or of another shape, on a server that gives
    attached media new ids.
    """
    moment = moment_of(status)
    if moment is not None and not since <= moment <= sought.until + _SLACK:
        return False
    state = sought.prepared.state
    ours = state.get("media") or []
    same = {url for url in state.get("urls") or [] if not _BY_CONTENT.search(url)}
    if {*ours, *same} & {*media_of(status, "id"), *media_of(status, "url")}:
        return True
    if len(ours) != len(media_of(status, "id")) or not _answers(status, sought):
        return False
    similar = resembles(status, sought.media) if sought.media is not None else True
    if similar is False:
        return False
    if ours and not sought.text.strip():
        return False if any(one.whole for one in tellings(status)) else None
    same_words = any(alike(said_of(sought.text), one) for one in tellings(status))
    return similar if same_words else False


def _answers(status: Mapping[str, Any], sought: Sought) -> bool:
    """Say whether `status` answers the part before it, as ours does."""
    parent = sought.after[-1].remote_id if sought.after else ""
    return str(status.get("in_reply_to_id") or "") == parent


def media_of(status: Mapping[str, Any], what: str) -> list[str]:
    """Return `what` (id, url) of each of a status' media."""
    return [str(one.get(what)) for one in attachments(status)]


def attachments(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a status' media."""
    media = status.get("media_attachments")
    return [one for one in media if isinstance(one, dict)] if isinstance(media, list) else []


#: Servers make large pictures smaller, and their sides whole pixels.
_SIMILAR = 0.05


def resembles(status: Mapping[str, Any], media: Sequence[Outline]) -> bool | None:
    """Say whether a status' media may be ours: False by number or kind, None by shape."""
    theirs = attachments(status)
    if len(theirs) != len(media):
        return False
    # A film without sound, and a moving picture, are `gifv`; some servers say `unknown`.
    words = [one.get("type") for one in theirs]
    films = sum(one.kind is Kind.VIDEO for one in media)
    if words.count("video") > films or words.count("image") > len(media) - films:
        return False
    in_shape = (_in_shape(ours, one) for ours, one in zip(media, theirs, strict=True))
    return True if all(in_shape) else None


def _in_shape(ours: Outline, theirs: Mapping[str, Any]) -> bool:
    """Say whether a picture has our sides' proportion, as far as its server tells its size."""
    told = mapping_at(mapping_at(theirs, "meta"), "original")
    width, height = told.get("width"), told.get("height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 < height):
        return True
    if ours.kind is not Kind.IMAGE:  # A film may be told as it lies in its file, not yet turned.
        return True
    return math.isclose(ours.width * height, ours.height * width, rel_tol=_SIMILAR)


@dataclass(frozen=True)
class Said:
    """What a text says: all its letters, those outside its links and mentions' hosts, its links."""

    whole: str
    words: str
    links: frozenset[str]


def alike(ours: Said, theirs: Said) -> bool:
    """Say whether both are the same, whole, or in their words while no link of ours is missing."""
    if ours.whole == theirs.whole:
        return True
    return ours.words == theirs.words and ours.links <= theirs.links


def said_of(text: str) -> Said:
    """Read a text."""
    return Said(letters(text), fingerprint(text), links_of(text))


def said_in(content: str) -> Said:
    """Read a status' HTML."""
    plain = _Plain.of(content)
    links = {mark_of(href) for href in plain.hrefs} | links_of(plain.shown)
    return Said(letters(plain.shown), fingerprint(plain.text), frozenset(links))


def tellings(status: Mapping[str, Any]) -> list[Said]:
    """Return a status' text as its server tells it: out of its HTML, and plain where it does."""
    plain = mapping_at(mapping_at(status, "pleroma"), "content").get("text/plain")
    told = [said_of(one) for one in (plain, status.get("text")) if isinstance(one, str) and one]
    return [said_in(str(status.get("content") or "")), *told]


def moment_of(status: Mapping[str, Any]) -> datetime | None:
    """Return when a status was made, None where the server does not say."""
    try:
        moment = datetime.fromisoformat(str(status.get("created_at")))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _older(statuses: Sequence[Mapping[str, Any]], since: datetime) -> bool:
    """Say whether the list has come to posts from before `since`; boosts may tell other times."""
    moments = [moment_of(one) for one in statuses if not one.get("reblog")]
    return bool(moments) and (moment := moments[-1]) is not None and moment < since


def fingerprint(text: str) -> str:
    """Return the letters of `text` outside its links and the hosts of its mentions.

    Servers rewrite those, and spaces, accents (NFC), and smileys into emoji.
    """
    pieces, at = [], 0
    for one in entities(text):
        if isinstance(one, Link):
            pieces.append(text[at : one.start])
        elif isinstance(one, Mention):
            pieces += [text[at : one.start], one.name]
        else:
            continue
        at = one.end
    return letters("".join([*pieces, text[at:]]))


def letters(text: str) -> str:
    """Return the letters and digits of `text`; its signs, or all of it, where it has none."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    found = regex.sub(r"[^\p{L}\p{N}]+", "", plain) or regex.sub(r"[^\p{S}]+", "", plain)
    return found or "".join(plain.split())


def links_of(text: str) -> frozenset[str]:
    """Return the marks of a text's links."""
    return frozenset(mark_of(one.url) for one in entities(text) if isinstance(one, Link))


def mark_of(href: str) -> str:
    """Return the letters of an address, which servers encode and trim in their ways."""
    return letters(host_of(href) + unquote(href.partition("://")[2].partition("/")[2]))


_INLINE = frozenset(
    [
        *("a", "abbr", "b", "bdi", "code", "del", "em", "i", "img"),
        *("s", "small", "span", "strong", "sub", "sup", "u", "wbr"),
    ]
)


class _Plain(HTMLParser):
    """Gathers the text of a status' HTML: `shown` as it is, `text` without linked addresses."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.shown = ""
        self.hrefs: list[str] = []
        self.link: tuple[int, str] | None = None

    @classmethod
    def of(cls, content: str) -> _Plain:
        """Read HTML."""
        parser = cls()
        parser.feed(content)
        parser.close()
        return parser

    @property
    def text(self) -> str:
        """Return the text without linked addresses."""
        return "".join(self.pieces).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag not in _INLINE:
            self.handle_data("\n")
        elif tag == "img":  # Custom emojis, in servers that put them into the content.
            self.handle_data(told.get("alt") or "")
        elif tag == "a":
            self.link = (len(self.pieces), told.get("href") or "")
            self.hrefs.append(self.link[1])

    def handle_endtag(self, tag: str) -> None:
        if tag not in _INLINE:
            self.handle_data("\n")
        elif tag == "a" and self.link is not None:
            start, href = self.link
            if shows("".join(self.pieces[start:]), href):
                self.pieces[start:] = [" "]
            self.link = None

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)
        self.shown += data


def shows(shown: str, href: str) -> bool:
    """Say whether `shown` is `href`, whole or shortened, and no name, tag or title."""
    host = host_of(href)
    bare = shown.strip().removeprefix("https://").removeprefix("http://").removeprefix("www.")
    return bool(host) and bare.casefold().startswith(host)


def host_of(href: str) -> str:
    """Return the host of an address as people read it, without `www.`; nothing for what is none."""
    try:
        host = urlsplit(href).hostname or ""
        host = host.encode("idna").decode("idna")
    except ValueError:  # Also what no encoding can carry.
        return ""
    return host.removeprefix("www.")


def mapping_at(thing: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the mapping at `name`; an empty one where the server says something else."""
    found = thing.get(name)
    return found if isinstance(found, Mapping) else {}


def limits_of(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Say a server's own limits in the words of our policies.

    What `configuration` lacks, Pleroma, Friendica and servers before 3.4.2 say at the top.
    """
    told = mapping_at(instance, "configuration")
    statuses, media = mapping_at(told, "statuses"), mapping_at(told, "media_attachments")
    most = _first(statuses.get("max_media_attachments"), instance.get("max_media_attachments"))
    size = instance.get("upload_limit")
    images, containers = accepted(media.get("supported_mime_types"))
    limits: dict[str, dict[str, Any]] = {
        "text": {
            "limit": _first(statuses.get("max_characters"), instance.get("max_toot_chars")),
            "links": statuses.get("characters_reserved_per_url"),
        },
        "images": {
            "max": most,
            "bytes": _first(media.get("image_size_limit"), size),
            "pixels": media.get("image_matrix_limit"),
            "formats": images,
        },
        "video": {
            "bytes": _first(media.get("video_size_limit"), size),
            "pixels": media.get("video_matrix_limit"),
            "fps": {"max": media.get("video_frame_rate_limit")},
            "containers": containers,
        },
        "album": {"max": most},
        "alt": {"limit": _first(media.get("description_limit"), instance.get("description_limit"))},
    }
    return {name: known(section) for name, section in limits.items() if known(section)}


#: Our words for the types that servers name; what is missing here, no policy of ours sends.
_FORMATS = {
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/heif": "heic",
    "image/avif": "avif",
}
_CONTAINERS = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "video/mpeg": "mpeg",
}


def accepted(told: object) -> tuple[list[str] | None, list[str] | None]:
    """Return the image formats and the video containers that a list of MIME types permits.

    An empty list means none of the kind; None means that the server does not limit it. Pleroma
    says `application/octet-stream` for everything.
    """
    rows = told if isinstance(told, list) else []
    types = {str(one).partition(";")[0].strip().lower() for one in rows}
    if not types or types & {"application/octet-stream", "*/*"}:
        return None, None
    return _among(types, "image/*", _FORMATS), _among(types, "video/*", _CONTAINERS)


def _among(types: set[str], everything: str, names: Mapping[str, str]) -> list[str] | None:
    if everything in types:
        return None
    return list(dict.fromkeys(name for mime, name in names.items() if mime in types))


def _first(*told: object) -> int | None:
    """Return the first that is a limit."""
    return next((found for one in told if (found := number_of(one)) is not None), None)


def number_of(told: object) -> int | None:
    """Read a limit, which some servers write as text; None for what is none."""
    if isinstance(told, str) and regex.fullmatch(r"[0-9]{1,18}", told.strip()):
        told = int(told)
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        return None
    return int(told) if told >= 1 else None


def known(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of a section, and what its sections know."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, list):  # An empty one says that there is nothing to send.
            found[name] = value
        elif told := known(value) if isinstance(value, Mapping) else number_of(value):
            found[name] = told
    return found
