"""Reads a mailbox by IMAP: looks at heads, fetches what is wanted, leaves all else untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dkim
from imap_tools import AND, BaseMailBox, MailMessage

from clickpost.settings import Settings
from connectors._imap import Door, opened

#: So far back mails are looked at: what came while we were away for longer, people have to see.
SINCE = timedelta(days=30)
#: Mails that are fetched in one look; the next look takes the rest.
MOST = 50
_MOST_HEADS = 1000


@dataclass(frozen=True)
class Head:
    """What is seen of a mail before it is fetched."""

    uid: str
    title: str = field(repr=False)
    bytes: int
    seen: bool


@dataclass(frozen=True)
class Fetched:
    """A mail as it came, and where it is."""

    uid: str
    raw: bytes = field(repr=False)
    seen: bool = False


def fetch(settings: Settings, is_wanted: Callable[[Head], bool]) -> list[Fetched]:
    """Return the mails whose head is wanted; nothing in the mailbox changes.

    Blocks: call it in a thread. Raises as `_imap.opened` does.
    """
    since = (datetime.now(UTC) - SINCE).date()
    with _opened(settings) as mailbox:
        found = mailbox.fetch(
            AND(date_gte=since), headers_only=True, mark_seen=False, bulk=100, limit=_MOST_HEADS
        )
        heads = [_head(one) for one in found if one.uid]
        wanted = [one for one in heads if is_wanted(one)][:MOST]
        if not wanted:
            return []
        seen = {one.uid: one.seen for one in wanted}
        whole = mailbox.fetch(AND(uid=list(seen)), mark_seen=False, bulk=False)
        return [Fetched(one.uid, one.obj.as_bytes(), seen[one.uid]) for one in whole if one.uid]


def look(settings: Settings) -> None:
    """Sign in and choose the folder, no more.

    Blocks, and raises as `fetch` does.
    """
    with _opened(settings):
        return


def leave(settings: Settings, uids: Sequence[str]) -> None:
    """Take handled mails out of the mailbox, or mark them as read where they are to be kept.

    Blocks, and raises as `fetch` does.
    """
    if not uids:
        return
    with _opened(settings) as mailbox:
        if settings.imap_keep:
            mailbox.flag(list(uids), ["\\Seen"], True)
        else:
            mailbox.delete(list(uids))


def _head(one: MailMessage) -> Head:
    return Head(str(one.uid), one.subject, one.size_rfc822, "\\Seen" in one.flags)


@contextmanager
def _opened(settings: Settings) -> Iterator[BaseMailBox]:
    with opened(_door(settings)) as mailbox:
        mailbox.folder.set(settings.imap_folder)
        yield mailbox


def _door(settings: Settings) -> Door:
    password = settings.imap_password.get_secret_value() if settings.imap_password else ""
    return Door(
        settings.imap_host or "",
        settings.imap_port,
        settings.imap_security,
        settings.imap_user or "",
        password,
        "CLICKPOST_IMAP_USER, CLICKPOST_IMAP_PASSWORD and CLICKPOST_IMAP_FOLDER",
    )


def signature(raw: bytes, sender: str, ask: Callable[..., bytes] | None = None) -> str:
    """Say what a mail's DKIM signature is worth: `pass`, `other` domain, `fail`, `none`, `unknown`.

    Only noted: whoever has an account at a provider can send from it in its name. `ask` answers
    for DNS in tests. Blocks: call it in a thread.
    """
    try:
        made = dkim.DKIM(raw, timeout=5)
        if not any(name.lower() == b"dkim-signature" for name, _ in made.headers):
            return "none"
        holds = made.verify(dnsfunc=ask) if ask else made.verify()
    except dkim.ValidationError:  # The body is another one, say.
        return "fail"
    except Exception:  # DNS is away, or the signature is no signature: nobody can tell.
        return "unknown"
    if not holds:
        return "fail"
    domain = (made.domain or b"").decode("ascii", "replace").lower()
    theirs = sender.rpartition("@")[2]
    return "pass" if theirs == domain or theirs.endswith(f".{domain}") else "other"
