"""Serves Prefect's API and UI in one process: `python -m deployments.prefect_server`.

The embedded PostgreSQL comes without the extension pg_trgm. Prefect uses it for nothing but
indexes that speed up searches for a part of a name; where the extension is missing, these indexes
are left out (docs/decisions/2026-11-24-prefect-on-embedded-postgres.md).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from typing import Any

import uvicorn
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine

_TRIGRAM = re.compile(r"gin_trgm_ops|EXTENSION\s+IF\s+NOT\s+EXISTS\s+pg_trgm", re.IGNORECASE)
_MADE = re.compile(r"INDEX\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.IGNORECASE)


async def has_trigrams(address: str | None) -> bool:
    """Say whether the server behind `address` offers pg_trgm."""
    if address is None:
        return True
    engine = create_async_engine(address)
    try:
        async with engine.connect() as connection:
            answer = await connection.execute(
                text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'")
            )
            return bool(answer.scalar_one())
    finally:
        await engine.dispose()


def leave_trigrams_out() -> None:
    """Skip the statements that need pg_trgm, and the drops of indexes that were never made."""
    skipped: set[str] = set()

    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def rewrite(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> tuple[str, Any]:
        if _TRIGRAM.search(statement):
            if made := _MADE.search(statement):
                skipped.add(made[1])
            return "SELECT 1", parameters
        if statement.lstrip().upper().startswith("DROP INDEX") and any(
            name in statement for name in skipped
        ):
            return "SELECT 1", parameters
        return statement, parameters


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    given = parser.parse_args()
    if not asyncio.run(has_trigrams(os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL"))):
        leave_trigrams_out()
    from prefect.server.api.server import create_app

    uvicorn.run(
        create_app(), host=given.host, port=given.port, log_level="warning", timeout_keep_alive=5
    )


if __name__ == "__main__":
    main()
