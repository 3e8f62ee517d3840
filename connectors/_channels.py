"""Carries notices out of the house: by e-mail, by signed webhook, by chat; no step is repeated.

What did not arrive is `Transient`, with a reason that names no address: the outbox tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

import apprise
import httpx

from clickpost.errors import InvalidInput, RateLimited, Transient, Unavailable
from clickpost.reach import host_of
from clickpost.settings import Settings
from clickpost.telling import Said, digest, key_of, payload, signed
from connectors import _chat
from connectors._api import retry_after
from connectors._letters import PATIENCE, hand_over

# It logs addresses, which hold tokens; what matters of it is in the telling's reason.
logging.getLogger("apprise").setLevel(logging.CRITICAL)


def checked_email(address: str, settings: Settings) -> Mapping[str, str]:
    """Return the secrets of an e-mail channel; raise InvalidInput where it cannot work."""
    if "@" not in parseaddr(address)[1] or any(mark in address for mark in "\r\n,"):
        raise InvalidInput("--email: needs one address, as ops@example.com")
    if not settings.smtp_host or not settings.smtp_from:
        raise InvalidInput(
            "e-mail needs a mail server: set CLICKPOST_SMTP_HOST and CLICKPOST_SMTP_FROM, then"
            " restart the stack (clickpost down; clickpost up)"
        )
    return {"address": address}


def checked_webhook(url: str, secret: str) -> Mapping[str, str]:
    """Return the secrets of a webhook channel; raise InvalidInput for an address that is none."""
    try:
        host_of(url)
    except InvalidInput as error:
        raise InvalidInput(f"--webhook: {error}") from None
    try:
        key_of(secret)
    except ValueError:
        raise InvalidInput(
            "--secret-env: needs whsec_ and 24 to 64 bytes in base64; without it one is made"
        ) from None
    return {"url": url, "secret": secret}


def checked_chat(url: str) -> Mapping[str, str]:
    """Return the secrets of a chat channel; raise InvalidInput for what apprise cannot read."""
    if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
        raise InvalidInput(
            "--apprise-env: apprise does not know this address; see"
            " https://github.com/caronc/apprise/wiki"
        )
    return {"url": url}


async def send_email(
    secrets: Mapping[str, str], notices: Sequence[Said], mark: str, settings: Settings, ui: str
) -> None:
    """Send one e-mail that tells all of `notices`.

    `mark` is the same at every try of the same notices: it becomes the Message-ID, by which mail
    programs drop what comes twice.
    """
    host, sender = settings.smtp_host, settings.smtp_from
    if not host or not sender:
        raise Unavailable("CLICKPOST_SMTP_HOST or CLICKPOST_SMTP_FROM is not set for the worker")
    title, text = digest(notices, ui)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, secrets["address"], title
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{mark}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    await hand_over(message, settings)


async def send_webhook(
    secrets: Mapping[str, str], said: Said, client: httpx.AsyncClient, ui: str
) -> None:
    """Post one notice, signed, through `client` of `_outward`; only an answer of 2xx is told."""
    content = payload(said, ui)
    headers = signed(said.id, content, secrets["secret"], datetime.now(UTC))
    try:
        answer = await client.post(
            secrets["url"],
            content=content,
            headers={**headers, "Content-Type": "application/json"},
            timeout=PATIENCE,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Transient(f"the receiver did not answer ({type(error).__name__})") from None
    if answer.is_success:
        return
    reason = f"the receiver answered {answer.status_code}"
    if (wait := retry_after(answer.headers)) is not None:
        raise RateLimited(reason, retry_after=wait, status=answer.status_code)
    raise Transient(reason, status=answer.status_code)


async def send_chat(
    secrets: Mapping[str, str], notices: Sequence[Said], ui: str, settings: Settings
) -> None:
    """Send one chat message that tells all of `notices`; raise Refused for a service inside."""
    title, text = digest(notices, ui)
    await _chat.carry(secrets["url"], title, text, settings.receivers, PATIENCE)
