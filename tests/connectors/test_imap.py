"""The way into a mailbox: only over what is trusted, and why not is said without whose it is."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from clickpost.errors import ClickPostError, Transient, Unavailable
from clickpost.settings import Settings
from connectors import _mailbox, _newmail
from connectors._imap import Door
from tests.mailserver import MailServer

Security = Literal["tls", "starttls", "none"]
NAME, ADDRESS = x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("canary.example")
NOW = datetime.now(UTC)
WORD = "canary-pässword"


@dataclass
class Authority:
    """Who vouches for mail servers, and where its own certificate lies."""

    folder: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "our own authority")])
        self.name, self.file = name, self.folder / "authority.pem"
        draft = _draft(name, name, self.key.public_key(), NOW + timedelta(days=9))
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = draft.sign(self.key, hashes.SHA256())
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def server(
        self, *names: x509.GeneralName, ends_at: datetime = NOW + timedelta(days=1)
    ) -> ssl.SSLContext:
        """Return what a server needs that goes by these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a mail server")])
        draft = _draft(subject, self.name, key.public_key(), ends_at)
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = draft.sign(self.key, hashes.SHA256())
        file = self.folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends_at: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW - timedelta(days=9),
        not_valid_after=ends_at,
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority, which this machine trusts as our how-to says."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def door_of(server: MailServer, security: Security, **more: object) -> Door:
    made = Door("localhost", server.port, security, server.user, server.password, "THE SETTINGS")
    return replace(made, **more)


async def marks(door: Door) -> Mapping[str, int]:
    return await asyncio.to_thread(_newmail.newest, door, "INBOX")


async def refusal(door: Door, error: type[ClickPostError] = Unavailable) -> str:
    with pytest.raises(error) as told:
        await marks(door)
    said = str(told.value)
    assert "canary" not in f"{said} {told.value.__cause__} {door}"
    return said


SERVERS = pytest.mark.parametrize("security", ["tls", "starttls"])


@SERVERS
async def test_a_server_that_somebody_trusted_vouches_for_is_let_have_the_password(
    trusting: Authority, security: Security
) -> None:
    made = MailServer(trusted=trusting.server(NAME, ADDRESS), upgrades=security == "starttls")
    made.add("From: ann@example.org")
    async with made.running() as server:
        for host in ("localhost", "127.0.0.1"):
            found = await marks(door_of(server, security, host=host))
            assert found == {"validity": 7, "uid": 1}


@SERVERS
async def test_a_password_of_any_alphabet_is_said_right(
    trusting: Authority, security: Security
) -> None:
    context = trusting.server(NAME)
    made = MailServer(password=WORD, trusted=context, upgrades=security == "starttls")
    async with made.running() as server:
        assert (await marks(door_of(server, security)))["uid"] == 0
        said = await refusal(door_of(server, security, password=WORD + "ü"))
        assert said == "the mail server refused the sign-in: look at THE SETTINGS"


@SERVERS
@pytest.mark.parametrize(
    ("names", "ends_at", "why"),
    [
        ([ELSEWHERE], NOW + timedelta(days=1), "it is another server's name that it holds"),
        ([NAME], NOW - timedelta(days=1), "it has expired"),
    ],
)
async def test_a_wrong_certificate_gets_no_password_and_an_operator_hears_why(
    trusting: Authority,
    security: Security,
    names: list[x509.GeneralName],
    ends_at: datetime,
    why: str,
) -> None:
    context = trusting.server(*names, ends_at=ends_at)
    async with MailServer(trusted=context, upgrades=security == "starttls").running() as server:
        said = await refusal(door_of(server, security))
        assert said.startswith(f"the mail server's certificate is not to be trusted: {why}. ")
        assert "LOGIN" not in server.seen


@SERVERS
async def test_who_is_vouched_for_by_nobody_we_know_gets_no_password(
    authority: Authority, security: Security, settings: Settings
) -> None:
    context = authority.server(NAME)
    async with MailServer(trusted=context, upgrades=security == "starttls").running() as server:
        said = await refusal(door_of(server, security))
        assert "nobody here knows who vouches for it" in said
        assert "SSL_CERT_FILE" in said
        given = settings.model_copy(
            update={
                "imap_host": "localhost",
                "imap_port": server.port,
                "imap_security": security,
                "imap_user": server.user,
                "imap_password": SecretStr(server.password),
            }
        )
        look = partial(_mailbox.fetch, given, lambda head: True)
        with pytest.raises(Unavailable, match="nobody here knows who vouches for it"):
            await asyncio.to_thread(look)
        assert "LOGIN" not in server.seen


async def test_a_server_without_what_was_asked_for_gets_no_password(trusting: Authority) -> None:
    async with MailServer().running() as server:
        said = await refusal(door_of(server, "starttls"))
        assert said == "the mail server offers no STARTTLS"
        assert "`starttls` for 143" in await refusal(door_of(server, "tls"))
        assert "LOGIN" not in server.seen
    assert "`tls`" in await refusal(door_of(server, "starttls", port=993))
    await refusal(door_of(server, "tls", port=9), Transient)
