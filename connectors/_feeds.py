"""Reads feeds, RSS and Atom: only what changed, within bounds, and in plain words."""

from __future__ import annotations

import asyncio
import html
import io
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import feedparser
import httpx
import nh3

from clickpost.arrivals import Arrived, digest
from clickpost.errors import RateLimited, Transient, Unavailable, UnexpectedResponse

#: Far above what feeds are; what is longer is cut off, not held.
MOST_BYTES = 10_000_000
MOST_ENTRIES = 1000
_MOST_WORDS = 10_000
_PATIENCE = httpx.Timeout(20.0)
_GONE = (401, 403, 404, 410)


@dataclass(frozen=True)
class Feed:
    """What a feed has now, and by what its server knows that we have it."""

    entries: tuple[Arrived, ...]
    marks: Mapping[str, str]


async def read(url: str, marks: Mapping[str, str], http: httpx.AsyncClient) -> Feed | None:
    """Return what a feed has; None where nothing changed since `marks`.

    Raises Transient and RateLimited where it may be read later, Unavailable where its address is
    wrong by now, Refused for an address inside, UnexpectedResponse for what is no feed.
    """
    headers = {
        "Accept": "application/atom+xml, application/rss+xml, application/xml;q=0.9, */*;q=0.1"
    }
    if etag := marks.get("etag"):
        headers["If-None-Match"] = etag
    if modified := marks.get("modified"):
        headers["If-Modified-Since"] = modified
    try:
        async with http.stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=_PATIENCE
        ) as response:
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return None
            _judged(response)
            body = await _bounded(response)
    except httpx.HTTPError as error:
        raise Transient(f"GET feed failed ({type(error).__name__})") from None
    entries = await asyncio.to_thread(parsed, body, response.headers)
    new = {"etag": response.headers.get("etag"), "modified": response.headers.get("last-modified")}
    return Feed(entries, {name: mark for name, mark in new.items() if mark})


def _judged(response: httpx.Response) -> None:
    """Raise what a status means, unless it is that of a feed."""
    status = response.status_code
    if response.is_success:
        return
    if status == httpx.codes.TOO_MANY_REQUESTS:
        raise RateLimited("GET feed: 429", retry_after=60.0, status=status)
    if status in _GONE:
        raise Unavailable(f"the feed answers {status}: is its address still right?")
    if status >= 500:
        raise Transient(f"GET feed: {status}", status=status)
    raise UnexpectedResponse(f"GET feed: {status}", status=status)


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise UnexpectedResponse(f"GET feed: more than {MOST_BYTES} bytes")
    return bytes(body)


def parsed(body: bytes, headers: Mapping[str, str]) -> tuple[Arrived, ...]:
    """Return the entries of a feed; raise UnexpectedResponse for what is none."""
    known = {
        name: headers[name] for name in ("content-type", "content-language") if name in headers
    }
    # From a stream: what the parser gets as bytes it may take for an address, or a file's name.
    found = feedparser.parse(io.BytesIO(body), response_headers=known)
    if not found.version and not found.entries:
        raise UnexpectedResponse("GET feed: what it answers is no feed")
    return tuple(_entry(one) for one in found.entries[:MOST_ENTRIES])


def _entry(entry: Any) -> Arrived:
    facts = {
        "title": _plain(entry.get("title_detail"), entry.get("title")),
        "link": _address(entry.get("link")),
        "summary": _plain(entry.get("summary_detail"), entry.get("summary")),
        "author": _plain(None, entry.get("author")),
    }
    identity = entry.get("id") or entry.get("link")
    key = digest("id", identity) if identity else digest("words", facts["title"], facts["summary"])
    return Arrived(key, facts, _moment(entry))


def _plain(detail: Any, value: Any) -> str:
    """Return the words of a text, without its markup."""
    text = str(value or "")[:_MOST_WORDS]
    kind = (detail or {}).get("type", "text/plain")
    if kind != "text/plain":
        text = html.unescape(nh3.clean(text, tags=set()))
    return " ".join(text.replace("\x00", "").split())


def _address(value: Any) -> str:
    """Return a link that people may follow; nothing for what is none."""
    link = str(value or "").strip()[:2000].replace("\x00", "")
    try:
        return link if urlsplit(link).scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _moment(entry: Any) -> datetime | None:
    stamp = entry.get("published_parsed") or entry.get("updated_parsed")
    try:
        return datetime.fromtimestamp(timegm(stamp), UTC) if stamp else None
    except (ValueError, OverflowError, OSError):
        return None
