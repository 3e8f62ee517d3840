"""Carries a letter to one person through the mail server; no step is repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from clickpost.errors import Unavailable
from clickpost.letters import Letter
from clickpost.settings import Settings
from connectors._channels import hand_over


async def send_letter(address: str, letter: Letter, mark: str, settings: Settings) -> None:
    """Send `letter`; raise Transient where the mail server did not take it.

    `mark` is the same at every try of the same letter: it becomes the Message-ID, by which mail
    programs drop what comes twice.
    """
    sender = settings.smtp_from
    if not settings.smtp_host or not sender:
        raise Unavailable("CLICKPOST_SMTP_HOST or CLICKPOST_SMTP_FROM is not set for the worker")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, address, letter.title
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{mark}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    # Nobody's machine shall answer, and no list shall carry it (RFC 3834).
    message["Auto-Submitted"] = "auto-replied"
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(letter.text)
    await hand_over(message, settings)
