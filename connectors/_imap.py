"""Opens a mailbox by IMAP, and says in our errors why one stays shut; none tells whose it is."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from imaplib import IMAP4
from typing import Literal

from imap_tools import BaseMailBox, MailBox, MailboxLoginError, MailBoxStartTls, MailBoxUnencrypted
from imap_tools.errors import ImapToolsError

from clickpost.errors import Transient, Unavailable, UnexpectedResponse

#: Seconds for each answer of the server.
PATIENCE = 30.0
_TLS_PORT = 993
#: What OpenSSL's numbers mean for whoever has to act (x509_vfy.h).
_DISTRUSTED = {
    9: "it is not valid yet: is this machine's clock right?",
    10: "it has expired",
    18: "it vouches for itself",
    19: "nobody here knows who vouches for it",
    20: "nobody here knows who vouches for it",
    21: "nobody here knows who vouches for it",
    62: "it is another server's name that it holds",
    64: "it is another server's address that it holds",
}


@dataclass(frozen=True)
class Door:
    """Which mail server, and how one gets in."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    user: str
    password: str = field(repr=False)
    look_at: str
    """The settings that an operator looks at where we are not let in."""


@contextmanager
def opened(door: Door) -> Iterator[BaseMailBox]:
    """Yield the mailbox, signed in, no folder chosen.

    Raises Unavailable where an operator has to act (the certificate, the sign-in, a folder that is
    not there), Transient where the server is away, UnexpectedResponse for what is no IMAP. Also
    what fails while it is open is said so. Blocks: use it in a thread.
    """
    try:
        with _signed_in(door) as box:
            yield box
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"the mail server's certificate is not to be trusted: {_why(error)}. Where a"
            " certificate authority of your own vouches for it, name that one's file in"
            " SSL_CERT_FILE for whoever reads the mailbox"
        ) from None
    except ssl.SSLError as error:
        raise Unavailable(
            f"the mail server does not speak TLS as we asked for it ({type(error).__name__}):"
            f" `tls` is for port {_TLS_PORT}, `starttls` for 143"
        ) from None
    except ImapToolsError as error:
        raise Unavailable(
            f"the mail server refused it ({type(error).__name__}): look at {door.look_at}"
        ) from None
    except (OSError, IMAP4.abort) as error:
        raise Transient(f"the mail server is not there ({type(error).__name__})") from None
    except IMAP4.error as error:
        raise UnexpectedResponse(f"IMAP failed ({type(error).__name__})") from None


def _why(error: ssl.SSLCertVerificationError) -> str:
    """Say it without OpenSSL's sentence, which names the server."""
    return _DISTRUSTED.get(error.verify_code, f"OpenSSL's reason {error.verify_code}")


def _signed_in(door: Door) -> BaseMailBox:
    box = _box(door)
    # The plain command takes ASCII alone, and an error about the rest would hold the password.
    plain = f"{door.user}{door.password}".isascii()
    sign_in = box.login if plain else box.login_utf8
    try:
        return sign_in(door.user, door.password, initial_folder=None)
    except BaseException as error:
        box.client.shutdown()
        refused = isinstance(error, MailboxLoginError) or type(error) is IMAP4.error
        if not refused:
            raise
        raise Unavailable(f"the mail server refused the sign-in: look at {door.look_at}") from None


def _box(door: Door) -> BaseMailBox:
    # Without a context of ours the standard library would trust any certificate.
    trusted = ssl.create_default_context()
    match door.security:
        case "tls":
            return MailBox(door.host, door.port, PATIENCE, ssl_context=trusted)
        case "starttls" if door.port == _TLS_PORT:
            raise Unavailable(f"port {_TLS_PORT} is for `tls`; `starttls` is for 143")
        case "starttls":
            return _upgraded(door, trusted)
        case "none":
            return MailBoxUnencrypted(door.host, door.port, PATIENCE)


def _upgraded(door: Door, trusted: ssl.SSLContext) -> BaseMailBox:
    try:
        return MailBoxStartTls(door.host, door.port, PATIENCE, ssl_context=trusted)
    except IMAP4.abort as error:
        if str(error) != "TLS not supported by server":
            raise
        # The password would go out in clear: nobody goes on without.
        raise Unavailable("the mail server offers no STARTTLS") from None
