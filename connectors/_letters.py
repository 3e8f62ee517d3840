"""Carries mail out of the house through the mail server; no step is repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

import aiosmtplib

from clickpost.errors import Transient, Unavailable
from clickpost.letters import Letter
from clickpost.settings import Settings

#: Seconds for which a mail server, a receiver or a chat service may keep us.
PATIENCE = 30.0


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
    if settings.privacy_address:
        message["Reply-To"] = settings.privacy_address
    message.set_content(letter.text)
    await hand_over(message, settings)


async def hand_over(message: EmailMessage, settings: Settings) -> None:
    """Give a message to the mail server; raise Transient where that did not take it."""
    private = settings.smtp_security != "none"
    password = settings.smtp_password.get_secret_value() if settings.smtp_password else None
    try:
        await aiosmtplib.send(
            message,
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user if private else None,
            password=password if private else None,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            timeout=PATIENCE,
        )
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Transient(f"the mail server did not take it ({_smtp_code(error)})") from None


def _smtp_code(error: Exception) -> str:
    """Return the server's code, else the error's name: its words hold addresses."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return ", ".join(str(one.code) for one in error.recipients)
    code = getattr(error, "code", None)
    return str(code) if isinstance(code, int) else type(error).__name__
