"""Reads a mail that may ask something about its sender's data; nothing in it is trusted or run."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parseaddr

import nh3

from clickpost.letters import CONFIRM
from clickpost.requests import Kind
from clickpost.subjects import spelled

#: Bytes of a mail; a larger one is left for people.
LARGEST = 10 * 1024 * 1024
#: Characters that are read of it.
_MOST = 20_000
_MACHINES = re.compile(r"(mailer-daemon|postmaster|no-?reply|do-?not-?reply)@", re.IGNORECASE)
_REPLY = re.compile(rf"\W*{CONFIRM}\W+([2-9A-Z]{{8}})\W*", re.IGNORECASE)
_ANY = ("x-autoreply", "x-autorespond", "x-auto-reply-from", "list-id", "list-unsubscribe")


@dataclass(frozen=True)
class Mail:
    """What is read of a mail; its attachments are not."""

    sender: str = field(repr=False)
    title: str = field(repr=False)
    text: str = field(repr=False)
    once: str
    """What tells this mail from others: its Message-ID with its sender, or its bytes."""
    automatic: bool = False


def parsed(raw: bytes) -> Mail:
    """Return what is read of a mail, however broken it is."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    sender = spelled(parseaddr(_header(message, "from"))[1])
    known_as = _header(message, "message-id").strip()
    once = f"{sender} {known_as}" if known_as else hashlib.sha256(raw).hexdigest()
    return Mail(
        sender, _header(message, "subject"), _text(message), f"mail:{once}", _is_automatic(message)
    )


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except Exception:  # The standard library's parser fails on some headers of spammers.
        return ""


def _is_automatic(message: EmailMessage) -> bool:
    """Say whether a machine sent it: an answer to that could come back for ever (RFC 3834)."""
    said = {name.lower(): _header(message, name).strip().lower() for name in message}
    return (
        said.get("auto-submitted", "no") != "no"
        or said.get("precedence", "") in ("bulk", "junk", "list", "auto_reply")
        or any(name in _ANY for name in said)
        or said.get("return-path", "<x>") == "<>"
        or message.get_content_type() in ("multipart/report", "message/delivery-status")
        or _MACHINES.match(parseaddr(_header(message, "from"))[1]) is not None
    )


def _text(message: EmailMessage) -> str:
    """Return its text; of HTML only the words, for nothing in it may be shown or fetched."""
    try:
        part = message.get_body(("plain", "html"))
        said = str(part.get_content()) if part is not None else ""
        is_html = part is not None and part.get_content_subtype() == "html"
    except Exception:  # Unknown charsets, broken encodings: then it says nothing.
        return ""
    said = said[: 10 * _MOST]
    if is_html:
        broken = re.sub(r"(?i)<(br|/p|/div|/li|/tr)\b[^>]*>", "\n", said)
        said = nh3.clean(broken, tags=set(), clean_content_tags={"script", "style"})
    return "".join(one for one in said if one.isprintable() or one in "\n\t")[:_MOST].strip()


def kind_of(title: str, phrases: Mapping[Kind, Sequence[str]]) -> Kind | None:
    """Return what a mail's subject asks: whatever stands before or behind the phrase.

    `Re: [EN] AW: DATA-DELETION  request (Ann)` asks for an erasure.
    """
    said = f" {_plain(title)} "
    for kind, known in phrases.items():
        if any(f" {_plain(phrase)} " in said for phrase in known):
            return kind
    return None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def confirms(text: str) -> str | None:
    """Return the code of a reply that confirms: its very first line, in the person's own words.

    A machine that sends our letter back begins otherwise, and a quoted line begins with `>`.
    """
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line), "")
    match = _REPLY.fullmatch(first)
    return match[1].upper() if match and not first.startswith(">") else None
