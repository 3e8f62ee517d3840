"""Another process that does what a send does to the database, and times it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from clickpost.settings import PROJECT

#: Seconds between two sends.
_EVERY = 0.02
#: A send takes its budget, looks what is due, and writes its line.
_SPENT = """
SELECT coalesce(sum(amount), 0) FROM spend
WHERE holder = 'h' AND what = 'posts' AND at > now() - interval '1 hour'
"""
_SPEND = "INSERT INTO spend (id, holder, what, amount, at) VALUES (%s, 'h', 'posts', 1, now())"
_DUE = """
SELECT id FROM delivery WHERE state = 'scheduled' AND due_at <= now()
ORDER BY due_at LIMIT 10 FOR UPDATE SKIP LOCKED
"""
_LINE = "SELECT ledger_append('engine', 'bench.sent', %s, '{}')"


class Publisher:
    """The process, as long as it goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> list[float]:
        """Return the milliseconds that each send took."""
        said, _ = self._process.communicate("\n")
        return [float(one) for one in json.loads(said)]


@contextmanager
def publishing(url: str) -> Iterator[Publisher]:
    """Let a publisher go on meanwhile."""
    command = [sys.executable, "-m", "benchmarks._publisher"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        assert process.stdin is not None
        process.stdin.write(f"{url}\n")  # Not as an argument, for a password is in it.
        process.stdin.flush()
        try:
            yield Publisher(process)
        finally:
            process.kill()


def _main(url: str) -> list[float]:
    found: list[float] = []
    with psycopg.connect(url) as connection:
        number = time.time_ns()
        while not select.select([sys.stdin], [], [], _EVERY)[0]:
            number += 1
            begun = time.perf_counter()
            connection.execute(_SPENT)
            connection.execute(_SPEND, [f"spend_{number}"])
            connection.execute(_DUE)
            connection.execute(_LINE, [f"delivery_{number}"])
            connection.commit()
            found.append((time.perf_counter() - begun) * 1000)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_main(sys.stdin.readline().strip())))
