"""Reads a mailbox by IMAP: looks at heads, fetches what is wanted, leaves all else untouched."""

from __future__ import annotations

import imaplib
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dkim
from imap_tools import AND, BaseMailBox, MailBox, MailBoxStartTls, MailBoxUnencrypted, MailMessage
from imap_tools.errors import ImapToolsError

from clickpost.errors import Transient, Unavailable
from clickpost.settings import Settings

#: Seconds for which the mail server may keep us at each step.
PATIENCE = 30.0
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

    Blocks: call it in a thread. Raises Transient where the server does not answer, Unavailable
    where it does not let us in.
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
    """Yield the mailbox; no error tells whose it is."""
    try:
        with _box(settings) as mailbox:
            yield mailbox
    except (OSError, imaplib.IMAP4.abort) as error:
        raise Transient(f"the mailbox did not answer ({type(error).__name__})") from None
    except (ImapToolsError, imaplib.IMAP4.error) as error:
        raise Unavailable(
            f"the mailbox refused us ({type(error).__name__}): look at CLICKPOST_IMAP_USER,"
            " CLICKPOST_IMAP_PASSWORD and CLICKPOST_IMAP_FOLDER"
        ) from None


def _box(settings: Settings) -> BaseMailBox:
    host, port = settings.imap_host or "", settings.imap_port
    match settings.imap_security:
        case "tls":
            box: BaseMailBox = MailBox(
                host, port, PATIENCE, ssl_context=ssl.create_default_context()
            )
        case "starttls":
            context = ssl.create_default_context()
            box = MailBoxStartTls(host, port, PATIENCE, ssl_context=context)
        case "none":
            box = MailBoxUnencrypted(host, port, PATIENCE)
    password = settings.imap_password.get_secret_value() if settings.imap_password else ""
    return box.login(settings.imap_user or "", password, settings.imap_folder)


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
