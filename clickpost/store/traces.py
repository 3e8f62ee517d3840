"""What Prefect's own records say about somebody who is erased: found by ids, removed, looked for.

Prefect holds no values of ours, but ids: in names and parameters of runs, tags, logs, artifacts and
events. They are written down before the rows go, and looked for until none is found any more.
"""

# ruff: noqa: S608
# Names come from the schema or are written here; values are parameters.
from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import errors
from sqlalchemy import text
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from clickpost.store._base import append
from clickpost.store.erasing import Erasing
from clickpost.store.erasures import Erasures
from clickpost.store.history import Connection
from clickpost.store.tables import Erasure
from clickpost.store.treatments import quoted

#: The tables whose ids may stand in Prefect's records.
CARRIED = (
    "approval", "arrival", "asset", "attempt", "channel", "connection", "delivery", "invitation",
    "member", "notice", "post", "rendition", "series", "subscription", "ticket", "workspace",
)  # fmt: skip
PAGE = 5000
BATCH = 500
#: How our ids end, whatever stands before them: `post_…`, or `post-…` in the key of an artifact.
_TAIL: LiteralString = "(?<![0-9a-z])[0-9a-hjkmnp-tv-z]{26}(?![0-9a-z])"
#: Of these nothing goes: it is at work, and goes once it has ended.
_AT_WORK: LiteralString = "('RUNNING', 'PENDING', 'CANCELLING')"

#: By table of Prefect, what of a row may name somebody.
_SAID: dict[str, LiteralString] = {
    "flow_run": "concat_ws(' ', t.name, t.parameters, t.tags, t.context, t.idempotency_key)",
    "task_run": "concat_ws(' ', t.name, t.tags, t.task_inputs, t.cache_key)",
    "log": "t.message",
    "artifact": "concat_ws(' ', t.key, t.data, t.description, t.metadata_)",
    "events": "concat_ws(' ', t.resource_id, t.resource, t.related, t.payload)",
}
_NAMES: LiteralString = (
    "(EXISTS (SELECT 1 FROM regexp_matches({said}, '" + _TAIL + "', 'g') AS m"
    " JOIN wanted w ON w.word = m[1])"
    " OR EXISTS (SELECT 1 FROM odd o WHERE {said} ~ o.pattern))"
)


def _names(table: str) -> LiteralString:
    return _NAMES.replace("{said}", _SAID[table])


_IDLE: LiteralString = (
    "NOT EXISTS (SELECT 1 FROM flow_run f WHERE f.id = t.flow_run_id"
    f" AND f.state_type IN {_AT_WORK})"
)
_PREPARE: tuple[LiteralString, ...] = (
    "CREATE TEMP TABLE IF NOT EXISTS wanted (word text PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS odd (pattern text PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS doomed (id uuid PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS gone (resource text PRIMARY KEY)",
    "TRUNCATE wanted, odd, doomed, gone",
)
#: What is to go, by kind, in the order in which it goes.
_FIND: dict[str, LiteralString] = {
    "runs": f"SELECT t.id FROM flow_run t WHERE {_names('flow_run')}"
    f" AND (t.state_type IS NULL OR t.state_type NOT IN {_AT_WORK})",
    "task_runs": f"SELECT t.id FROM task_run t WHERE {_names('task_run')} AND {_IDLE}",
    "logs": f"SELECT t.id FROM log t WHERE {_names('log')}",
    "artifacts": f"SELECT t.id FROM artifact t WHERE {_names('artifact')}",
    "events": "SELECT r.event_id FROM event_resources r JOIN gone g ON g.resource = r.resource_id"
    f" UNION SELECT t.id FROM events t WHERE {_names('events')}",
}
_TAKE: LiteralString = (
    "taken AS (DELETE FROM doomed WHERE id IN (SELECT id FROM doomed LIMIT %(size)s) RETURNING id)"
)
_REMOVE: dict[str, LiteralString] = {
    "runs": f"""
WITH {_TAKE}, tasks AS (
    INSERT INTO gone SELECT 'prefect.task-run.' || id FROM task_run
    WHERE flow_run_id IN (SELECT id FROM taken) ON CONFLICT DO NOTHING RETURNING 1
), own AS (
    INSERT INTO gone SELECT 'prefect.flow-run.' || id FROM taken ON CONFLICT DO NOTHING
), lines AS (
    DELETE FROM log WHERE flow_run_id IN (SELECT id FROM taken) RETURNING 1
), pages AS (
    DELETE FROM artifact WHERE flow_run_id IN (SELECT id FROM taken) RETURNING 1
), runs AS (
    DELETE FROM flow_run WHERE id IN (SELECT id FROM taken) RETURNING 1
)
SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM tasks) AS task_runs,
       (SELECT count(*) FROM lines) AS logs, (SELECT count(*) FROM pages) AS artifacts,
       (SELECT count(*) FROM taken) AS taken""",
    "task_runs": f"""
WITH {_TAKE}, own AS (
    INSERT INTO gone SELECT 'prefect.task-run.' || id FROM taken ON CONFLICT DO NOTHING
), lines AS (
    DELETE FROM log WHERE task_run_id IN (SELECT id FROM taken) RETURNING 1
), pages AS (
    DELETE FROM artifact WHERE task_run_id IN (SELECT id FROM taken) RETURNING 1
), tasks AS (
    DELETE FROM task_run WHERE id IN (SELECT id FROM taken) RETURNING 1
)
SELECT (SELECT count(*) FROM tasks) AS task_runs, (SELECT count(*) FROM lines) AS logs,
       (SELECT count(*) FROM pages) AS artifacts, (SELECT count(*) FROM taken) AS taken""",
    "logs": f"""
WITH {_TAKE}, lines AS (DELETE FROM log WHERE id IN (SELECT id FROM taken) RETURNING 1)
SELECT (SELECT count(*) FROM lines) AS logs, (SELECT count(*) FROM taken) AS taken""",
    "artifacts": f"""
WITH {_TAKE}, pages AS (DELETE FROM artifact WHERE id IN (SELECT id FROM taken) RETURNING 1)
SELECT (SELECT count(*) FROM pages) AS artifacts, (SELECT count(*) FROM taken) AS taken""",
    "events": f"""
WITH {_TAKE}, names AS (
    DELETE FROM event_resources WHERE event_id IN (SELECT id FROM taken)
), events AS (
    DELETE FROM events WHERE id IN (SELECT id FROM taken) RETURNING 1
)
SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM taken) AS taken""",
}
#: The newest artifact of each key has a row of its own, which would outlive it.
_TIDY: LiteralString = """
DELETE FROM artifact_collection c
WHERE NOT EXISTS (SELECT 1 FROM artifact a WHERE a.id = c.latest_id)"""
_AT_WORK_STILL: LiteralString = (
    f"SELECT count(*) AS n FROM flow_run t WHERE {_names('flow_run')}"
    f" AND t.state_type IN {_AT_WORK}"
)


@dataclass(frozen=True)
class Removed:
    """What went from Prefect's records, by kind, and how many runs are at work still."""

    counts: Counter[str] = field(default_factory=Counter)
    at_work: int = 0

    @property
    def total(self) -> int:
        """How many records went."""
        return sum(self.counts.values())


class Traces(Erasures):
    """Ids of those who are erased, as long as Prefect may carry them."""

    async def note(self, rows: Sequence[Erasure], erasing: Erasing) -> None:
        """Write down the ids of all rows about subjects that Prefect may carry; may run twice."""
        one = text("INSERT INTO erasure_trace VALUES (:id, :word) ON CONFLICT DO NOTHING")
        writes = [
            text(
                "INSERT INTO erasure_trace (erasure_id, word)"
                f" SELECT :id, r.id FROM {quoted(table)} r WHERE {erasing.about(table)}"
                " ON CONFLICT DO NOTHING"
            )
            for table in erasing.order
            if table in CARRIED
        ]
        for row in rows:
            whom = {"id": row.id, "subject": row.subject, "digest": row.digest}
            async with self.transaction() as session:
                for write in writes:
                    await session.execute(write, {**erasing.params, **whom})
                for word in {row.subject, row.request} - {None, row.id}:
                    await session.execute(one, {"id": row.id, "word": word})

    async def traced(self) -> Sequence[str]:
        """Return the erasures that are through, and of which Prefect may still carry ids."""
        query = text(
            "SELECT DISTINCT t.erasure_id FROM erasure_trace t JOIN erasure e"
            " ON e.id = t.erasure_id WHERE e.state IN ('complete', 'parked') ORDER BY 1"
        )
        async with self.session() as session:
            return (await session.execute(query)).scalars().all()

    async def words(self, erasure_ids: Sequence[str]) -> AsyncIterator[Sequence[str]]:
        """Yield the ids of some erasures, a page at a time."""
        query = text(
            "SELECT DISTINCT word FROM erasure_trace WHERE erasure_id = ANY(:ids) AND word > :after"
            " ORDER BY word LIMIT :size"
        )
        after = ""
        while True:
            given = {"ids": list(erasure_ids), "after": after, "size": PAGE}
            async with self.session() as session:
                page = (await session.execute(query, given)).scalars().all()
            if not page:
                return
            yield page
            after = page[-1]

    async def forget(self, erasure_ids: Sequence[str], removed: Removed) -> None:
        """Forget ids of which Prefect has nothing any more."""
        async with self.transaction() as session:
            delete = text("DELETE FROM erasure_trace WHERE erasure_id = ANY(:ids)")
            await session.execute(delete, {"ids": list(erasure_ids)})
            for erasure_id in erasure_ids:
                facts = dict(removed.counts) if len(erasure_ids) == 1 else {}
                await append(session, "erasure.untraced", erasure_id, facts)


async def remove(
    connection: Connection, words: AsyncIterator[Sequence[str]], size: int = BATCH
) -> Removed:
    """Remove from Prefect's database what names any of `words`, batch by batch.

    A run that is at work stays, and goes once it has ended; anything that a form or a schedule
    would still begin goes. May run twice, and be cut short: what is gone is not found again.
    """
    for statement in _PREPARE:
        await connection.execute(statement)
    async for page in words:
        await _wanted(connection, page)
    counts: Counter[str] = Counter()
    for kind, find in _FIND.items():
        await connection.execute(f"INSERT INTO doomed {find} ON CONFLICT DO NOTHING")
        while True:
            done = await _batch(connection, _REMOVE[kind], size)
            if not done.pop("taken"):
                break
            counts.update({name: int(number) for name, number in done.items() if number})
    if counts["artifacts"]:
        await connection.execute(_TIDY)
    row = await (await connection.execute(_AT_WORK_STILL)).fetchone()
    return Removed(counts, int(row["n"]) if row else 0)


async def _batch(connection: Connection, statement: LiteralString, size: int) -> dict[str, Any]:
    """Do one batch; where Prefect's server is at the same rows, its work comes first."""
    tries = AsyncRetrying(
        retry=retry_if_exception_type((errors.LockNotAvailable, errors.DeadlockDetected)),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        stop=stop_after_attempt(8),
        reraise=True,
    )
    async for attempt in tries:
        with attempt:
            row = await (await connection.execute(statement, {"size": size})).fetchone()
            assert row is not None
            return row
    raise AssertionError("unreachable")


async def _wanted(connection: Connection, words: Sequence[str]) -> None:
    tails = [word.rpartition("_")[2] for word in words if _is_ours(word)]
    odd = [_pattern_of(word) for word in words if not _is_ours(word)]
    for table, values in (("wanted", tails), ("odd", odd)):
        fill: LiteralString = "INSERT INTO wanted SELECT unnest(%(v)s::text[])"
        if table == "odd":
            fill = "INSERT INTO odd SELECT unnest(%(v)s::text[])"
        await connection.execute(f"{fill} ON CONFLICT DO NOTHING", {"v": values})


def _is_ours(word: str) -> bool:
    """Say whether an id ends as all that we make do; the first workspace's does not."""
    return len(word.rpartition("_")[2]) == 26


def _pattern_of(word: str) -> str:
    said = "".join(one if one.isalnum() else "[_-]" for one in word)
    return f"(^|[^0-9a-z_-]){said}($|[^0-9a-z_-])"
