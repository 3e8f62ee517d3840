"""Looks into a mailbox by IMAP: which mails are new and by whom, never what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from typing import Any

from imap_tools import BaseMailBox

from clickpost.arrivals import Arrived, digest, machine_made
from connectors._imap import Door, opened

#: Mails at one look; the next look goes on.
MOST = 200
#: Bytes of a mail's headers; a server that sends more is cut short.
_HEAD = 65_536
_ASKED = f"(UID RFC822.SIZE BODY.PEEK[HEADER]<0.{_HEAD}>)"
_NUMBER = re.compile(rb"\bUID (\d+)\b")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)\b")


@dataclass(frozen=True)
class Found:
    """The mails after those that `marks` knew, and the marks by now."""

    mails: tuple[Arrived, ...]
    marks: Mapping[str, int]


def look(door: Door, inbox: str, marks: Mapping[str, Any], largest: int) -> Found:
    """Return what is new since `marks`, no more than MOST at once; an empty one knows nothing.

    Nothing is marked as read, moved or deleted. A mailbox that was made anew has nothing new.
    Raises as `_imap.opened` does.
    """
    with opened(door) as box:
        now = _now(box, inbox)
        if marks and marks["validity"] != now["validity"]:
            return Found((), now)
        known = int(marks["uid"]) if marks else 0
        numbers = sorted(uid for uid in _numbers(box, inbox, known) if uid > known)[:MOST]
        mails = tuple(_mails(box, numbers, now["validity"], largest)) if numbers else ()
        return Found(mails, {**now, "uid": numbers[-1] if numbers else known})


def newest(door: Door, inbox: str) -> Mapping[str, int]:
    """Return the marks of all that is there by now; raises as `look` does."""
    with opened(door) as box:
        return _now(box, inbox)


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
