"""Looks into a mailbox by IMAP: which mails are new and by whom, never what they say."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from imaplib import IMAP4
from typing import Any

from imap_tools import BaseMailBox, MailBox, MailboxLoginError, MailBoxStartTls, MailBoxUnencrypted
from imap_tools.errors import ImapToolsError

from clickpost.arrivals import Arrived, digest, machine_made
from clickpost.errors import Transient, Unavailable, UnexpectedResponse

#: Seconds for each answer of the server.
PATIENCE = 20.0
#: Mails at one look; the next look goes on.
MOST = 200
#: Bytes of a mail's headers; a server that sends more is cut short.
_HEAD = 65_536
_ASKED = f"(UID RFC822.SIZE BODY.PEEK[HEADER]<0.{_HEAD}>)"
_NUMBER = re.compile(rb"\bUID (\d+)\b")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)\b")


@dataclass(frozen=True)
class Door:
    """Which mailbox, and how one gets in."""

    host: str
    port: int
    security: str
    inbox: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Found:
    """The mails after those that `marks` knew, and the marks by now."""

    mails: tuple[Arrived, ...]
    marks: Mapping[str, int]


def look(door: Door, marks: Mapping[str, Any], largest: int) -> Found:
    """Return what is new since `marks`, no more than MOST at once; an empty one knows nothing.

    Nothing is marked as read, moved or deleted. A mailbox that was made anew has nothing new.
    Raises Unavailable where the sign-in or the folder is refused, Transient where the server is not
    there, UnexpectedResponse for what is no IMAP.
    """
    with _opened(door) as box:
        now = _now(box, door.inbox)
        if marks and marks["validity"] != now["validity"]:
            return Found((), now)
        known = int(marks["uid"]) if marks else 0
        numbers = sorted(uid for uid in _numbers(box, door.inbox, known) if uid > known)[:MOST]
        mails = tuple(_mails(box, numbers, now["validity"], largest)) if numbers else ()
        return Found(mails, {**now, "uid": numbers[-1] if numbers else known})


def newest(door: Door) -> Mapping[str, int]:
    """Return the marks of all that is there by now; raises as `look` does."""
    with _opened(door) as box:
        return _now(box, door.inbox)


@contextmanager
def _opened(door: Door) -> Iterator[BaseMailBox]:
    # Without a context of ours the standard library would trust any certificate.
    trusted = ssl.create_default_context()
    try:
        box: BaseMailBox
        match door.security:
            case "tls":
                box = MailBox(door.host, door.port, PATIENCE, ssl_context=trusted)
            case "starttls":
                box = MailBoxStartTls(door.host, door.port, PATIENCE, ssl_context=trusted)
            case _:
                box = MailBoxUnencrypted(door.host, door.port, PATIENCE)
        with box.login(door.user, door.password, initial_folder=None):
            yield box
    except MailboxLoginError:
        raise Unavailable("the mail server refused the sign-in: is its password right?") from None
    except ImapToolsError as error:
        raise Unavailable(f"the mail server refused it ({type(error).__name__})") from None
    except (OSError, IMAP4.abort) as error:
        raise Transient(f"the mail server is not there ({type(error).__name__})") from None
    except IMAP4.error as error:
        raise UnexpectedResponse(f"IMAP failed ({type(error).__name__})") from None


def _now(box: BaseMailBox, inbox: str) -> dict[str, int]:
    status = box.folder.status(inbox, ["UIDVALIDITY", "UIDNEXT"])
    return {"validity": status["UIDVALIDITY"], "uid": status["UIDNEXT"] - 1}


def _numbers(box: BaseMailBox, inbox: str, known: int) -> list[int]:
    box.folder.set(inbox, readonly=True)
    # A range that ends with * holds the last mail in any case, also an older one.
    _, found = box.client.uid("SEARCH", f"UID {known + 1}:*")
    return [int(number) for number in b" ".join(one for one in found if one).split()]


def _mails(
    box: BaseMailBox, numbers: Sequence[int], validity: int, largest: int
) -> Iterator[Arrived]:
    _, answer = box.client.uid("FETCH", ",".join(map(str, numbers)), _ASKED)
    for number, part in enumerate(answer):
        if not isinstance(part, tuple):
            continue
        after = answer[number + 1] if number + 1 < len(answer) else b""
        said = part[0] + (after if isinstance(after, bytes) else b"")
        uid, size = _NUMBER.search(said), _SIZE.search(said)
        if uid is not None:
            yield _mail(int(uid[1]), validity, int(size[1]) if size else 0, part[1], largest)


def _mail(uid: int, validity: int, size: int, head: bytes, largest: int) -> Arrived:
    parsed = BytesHeaderParser().parsebytes(head[:_HEAD])
    headers = {name.lower(): str(value) for name, value in parsed.items()}
    message_id = headers.get("message-id", "").strip()
    key = digest("message", message_id) if message_id else digest("uid", validity, uid)
    passed = machine_made(headers)
    if size > largest:
        passed = f"larger than {largest} bytes"
    return Arrived(key, {"uid": uid, "validity": validity}, passed=passed)
