"""Signed heads of the ledger, and certificates, each with the line that names its digest."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from clickpost import certificate
from clickpost.certificate import Statement, stamp
from clickpost.errors import InvalidInput
from clickpost.store._base import Base, append, now
from clickpost.store.ledger import Broken
from clickpost.store.signer import Signer, id_of
from clickpost.store.tables import Certificate, Checkpoint
from clickpost.verify_certificate import checkpoint_of

#: The very text that the database hashed; see `clickpost.store.ledger`.
_HEAD = text(
    """
    SELECT l.seq, l.prev, l.hash,
           jsonb_build_array(l.seq, extract(epoch FROM l.at), l.actor, l.action, l.subject,
                             l.facts)::text AS said
    FROM ledger_head h JOIN ledger l ON l.seq = h.seq FOR UPDATE OF h
    """
)
_SIGNED = text(
    """
    SELECT c.seq, c.hash, c.at, c.key_id, c.signature, l.hash AS found
    FROM checkpoint c LEFT JOIN ledger l ON l.seq = c.seq ORDER BY c.seq
    """
)


class Certificates(Base):
    """What others can check without us."""

    async def checkpoint(self, signer: Signer) -> int | None:
        """Sign the ledger's head and return its number; None where it is signed, or empty."""
        async with self.transaction() as session:
            head = (await session.execute(_HEAD)).first()
            if head is None or await session.get(Checkpoint, head.seq) is not None:
                return None
            session.add(_signed(head, signer))
            return int(head.seq)

    async def issue(
        self, session: AsyncSession, statement: Statement, signer: Signer
    ) -> dict[str, Any]:
        """Write a certificate, within the caller's transaction as its last act; return it.

        Its line is the ledger's head, which is signed at once: so the line itself is the proof
        that it stands in the chain, and no line about others is needed for it.
        """
        said = statement.as_json()
        facts = {"certificate": statement.certificate, "sha256": certificate.digest(said)}
        await session.flush()
        await append(session, "certificate.issued", statement.request, facts)
        head = (await session.execute(_HEAD)).one()
        point = _signed(head, signer)
        document: dict[str, Any] = {
            "statement": said,
            "ledger": {
                "seq": head.seq,
                "prev": head.prev.hex(),
                "line": head.said,
                "hash": head.hash.hex(),
            },
            "checkpoint": {**_point(point), "signature": point.signature},
        }
        document["signature"] = {
            "algorithm": "Ed25519",
            "key_id": signer.key_id,
            "value": signer.sign(certificate.canonical(document)),
        }
        session.add(point)
        session.add(
            Certificate(
                id=statement.certificate,
                request=statement.request,
                action=statement.action,
                seq=head.seq,
                document=certificate.canonical(document).decode(),
                made_at=statement.certified_at,
            )
        )
        return document

    async def certificate(self, wanted: str) -> Certificate:
        """Return a certificate by its id, or the newest of a request; raise InvalidInput."""
        query = (
            select(Certificate)
            .where((col(Certificate.id) == wanted) | (col(Certificate.request) == wanted))
            .order_by(col(Certificate.seq).desc())
            .limit(1)
        )
        async with self.session() as session:
            found: Certificate | None = await session.scalar(query)
        if found is None:
            raise InvalidInput(f"there is no certificate {wanted}, nor one of a request so named")
        return found

    async def certificates_of(self, request: str) -> Sequence[Certificate]:
        """Return all certificates of a request, oldest first: each account has its own."""
        query = select(Certificate).where(Certificate.request == request)
        async with self.session() as session:
            return (await session.scalars(query.order_by(col(Certificate.seq)))).all()

    async def wrong_checkpoint(self, key: Ed25519PublicKey) -> Broken | None:
        """Return the first signed head that the ledger does not have, or that `key` did not sign.

        Whoever writes the ledger anew, with hashes that fit, cannot sign its heads. Heads that
        another key signed are held against the ledger only.
        """
        async with self._walked() as rows:
            async for row in rows:
                if row.found is None:
                    return Broken(row.seq, "it was signed, and is missing")
                if row.found != row.hash:
                    return Broken(row.seq, "it is not what was signed")
                if row.key_id == id_of(key) and not _holds(row, key):
                    return Broken(row.seq, "its signature is wrong")
        return None

    @asynccontextmanager
    async def _walked(self) -> AsyncIterator[Any]:
        async with self.engine.connect() as connection, connection.stream(_SIGNED) as rows:
            yield rows


def _signed(head: Any, signer: Signer) -> Checkpoint:
    point = {
        "seq": head.seq,
        "hash": head.hash,
        "at": now().replace(microsecond=0),
        "key_id": signer.key_id,
    }
    signature = signer.sign(checkpoint_of(_said(**point)))
    return Checkpoint(**point, signature=signature)


def _point(row: Any) -> dict[str, Any]:
    return _said(row.seq, row.hash, row.at, row.key_id)


def _said(seq: int, hash: bytes, at: datetime, key_id: str) -> dict[str, Any]:
    return {"seq": seq, "hash": hash.hex(), "at": stamp(at), "key_id": key_id}


def _holds(row: Any, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(base64.b64decode(row.signature), checkpoint_of(_point(row)))
    except (InvalidSignature, ValueError):
        return False
    return True
