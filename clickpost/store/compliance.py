"""What a sweep asks of the tables, and its history: ids, dates and counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import case
from sqlmodel import col, select

from clickpost import ids, verify_certificate
from clickpost.compliance import Finding, Grant, Light, OpenErasure, Past, Request, worst
from clickpost.store._base import Base, append
from clickpost.store.tables import Certificate, ComplianceSweep, Connection, Erasure, SubjectRequest

#: Certificates are read so many at a time.
_AT_ONCE = 100


class Compliance(Base):
    """Sweeps."""

    async def open_requests(self) -> list[Request]:
        """Return the requests whose clock runs."""
        waits = case(
            (col(SubjectRequest.acknowledged_at).is_(None), col(SubjectRequest.acknowledge_by))
        )
        query = (
            select(col(SubjectRequest.id), waits, col(SubjectRequest.due_at))
            .where(col(SubjectRequest.closed_at).is_(None), col(SubjectRequest.paused_at).is_(None))
            .order_by(col(SubjectRequest.due_at))
        )
        async with self.session() as session:
            return [Request(*row) for row in (await session.execute(query)).all()]

    async def grants(self) -> list[Grant]:
        """Return all accounts, as far as their grants go."""
        query = select(
            col(Connection.id),
            col(Connection.status),
            col(Connection.expires_at),
            col(Connection.updated_at),
        ).order_by(col(Connection.id))
        async with self.session() as session:
            return [Grant(*row) for row in (await session.execute(query)).all()]

    async def open_erasures(self) -> list[OpenErasure]:
        """Return the erasures that are not complete."""
        query = (
            select(
                col(Erasure.id), col(Erasure.state), col(Erasure.asked_at), col(Erasure.outcomes)
            )
            .where(Erasure.state != "complete")
            .order_by(col(Erasure.asked_at))
        )
        async with self.session() as session:
            return [OpenErasure(*row) for row in (await session.execute(query)).all()]

    async def wrong_certificate(self, key: Ed25519PublicKey) -> tuple[int, str | None]:
        """Check every certificate; return how many there are, and the first that is wrong."""
        count = 0
        query = select(Certificate).order_by(col(Certificate.id))
        async with self.transaction() as session:  # A cursor lives in a transaction.
            rows = await session.stream_scalars(query.execution_options(yield_per=_AT_ONCE))
            async for row in rows:
                count += 1
                wrong = verify_certificate.faults(json.loads(row.document), key)
                if wrong:
                    return count, f"{row.id}: {wrong[0]}"
        return count, None

    async def record(
        self, findings: Sequence[Finding], at: datetime, flow_run_id: str | None
    ) -> str:
        """Keep what a sweep found, with a line in the ledger; return its id."""
        sweep_id = ids.new("sweep")
        light = worst(findings)
        row = ComplianceSweep(
            id=sweep_id,
            at=at,
            light=light.value,
            findings=[one.as_json() for one in findings],
            flow_run_id=flow_run_id,
        )
        async with self.transaction() as session:
            session.add(row)
            await session.flush()
            await append(session, "compliance.swept", sweep_id, {"light": light.value})
        return sweep_id

    async def sweeps(self, most: int = 30) -> list[ComplianceSweep]:
        """Return the latest sweeps, newest first."""
        query: Any = select(ComplianceSweep).order_by(col(ComplianceSweep.id).desc()).limit(most)
        async with self.session() as session:
            return list((await session.scalars(query)).all())


def past_of(row: ComplianceSweep) -> Past:
    """Return a sweep as the history shows it."""
    lights = [one["light"] for one in row.findings]
    return Past(
        row.at, Light(row.light), lights.count(Light.RED.value), lights.count(Light.AMBER.value)
    )
