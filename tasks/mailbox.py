"""Takes requests and confirmations out of the mailbox; a mail that is neither stays as it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.utils import parseaddr

from clickpost import mailed
from clickpost.errors import InvalidInput
from clickpost.logs import logger
from clickpost.mailed import Mail
from clickpost.policy import requesting
from clickpost.policy.requesting import Rules
from clickpost.requests import Door, Kind
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.subjects import spelled
from connectors import _mailbox
from connectors._mailbox import Fetched, Head
from tasks import _wiring, doors
from tasks.doors import Asked

log = logger("mailbox")

#: What stands in the subject of each of our letters: the confirmation code.
_OURS = "["


@dataclass
class Taken:
    """What one look into the mailbox came to: counts, and requests that go on."""

    received: int = 0
    confirmed: int = 0
    passed: int = 0
    request_ids: tuple[str, ...] = ()


async def read() -> Taken:
    """Take what is new; where the mailbox cannot be read, raise as `_imap.opened` does."""
    house = await _wiring.house()
    settings, rules = house.settings, requesting.load(house.settings.policies)
    if settings.imap_host is None:
        return Taken()
    wanted = await asyncio.to_thread(_mailbox.fetch, settings, lambda head: _is_wanted(head, rules))
    done, taken = Taken(), []
    for one in wanted:
        if await _handled(settings, house.store, rules, one, done):
            taken.append(one.uid)
    # Kept in the store by now: a kill before this only makes the next look find the same again.
    await asyncio.to_thread(_mailbox.leave, settings, taken)
    return done


def _is_wanted(head: Head, rules: Rules) -> bool:
    """Say whether a mail is worth fetching, by its head alone."""
    if head.bytes > mailed.LARGEST:
        return False
    asks = mailed.kind_of(head.title, rules.everywhere.phrases) is not None
    # A reply that was looked at and kept is not tried again: wrong codes count.
    return asks or (_OURS in head.title and not head.seen)


async def _handled(
    settings: Settings, store: Store, rules: Rules, one: Fetched, done: Taken
) -> bool:
    """Take one mail in; say whether it was for us, and no machine's."""
    mail = mailed.parsed(one.raw)
    if mail.automatic or _is_own(settings, mail.sender) or not doors.is_address(mail.sender):
        done.passed += 1
        return False
    if (code := mailed.confirms(mail.text)) is not None and not one.seen:
        row = await store.confirm_by_reply(mail.sender, code)
        if row is not None:
            done.confirmed += 1
            done.request_ids += (row.id,)
        return True
    kind = mailed.kind_of(mail.title, rules.everywhere.phrases)
    if kind is None:
        return False
    return await _asked(settings, store, kind, mail, one, done)


async def _asked(
    settings: Settings, store: Store, kind: Kind, mail: Mail, one: Fetched, done: Taken
) -> bool:
    if await store.is_asked_already(mail.sender, kind):
        return True  # The letter to confirm it is on its way: another one tells nothing new.
    dkim = await asyncio.to_thread(_mailbox.signature, one.raw, mail.sender)
    asked = Asked(
        kind, Door.MAIL, address=mail.sender, details=mail.text, dkim=dkim, once=mail.once
    )
    try:
        row, is_new = await doors.receive(settings, store, asked)
    except InvalidInput as error:
        log.info("no request", error=type(error).__name__)
        return False
    if is_new:
        done.received += 1
        done.request_ids += (row.id,)
    return True


def _is_own(settings: Settings, sender: str) -> bool:
    """Say whether we sent it ourselves: a letter that came back is no request."""
    ours = (settings.privacy_address, settings.smtp_from)
    return sender in {spelled(parseaddr(one)[1]) for one in ours if one}
