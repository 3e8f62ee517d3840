"""Log files of the processes on this machine: packed by size and age, then deleted, by policy.

Processes go on writing into the same file, which they append to: it is copied, then emptied.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clickpost.errors import PolicyError
from clickpost.policy import history
from clickpost.policy.history import LogFiles

#: How a packed file is named behind the name of the one that it was.
_STAMP = "%Y%m%dT%H%M%S"
#: As many times `rotate_at` large, and nobody has packed it for a while.
NEGLECTED = 3


@dataclass(frozen=True)
class Kept:
    """What was done: files that were packed, and packed ones that were deleted."""

    packed: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Size:
    """How much room logs take: bytes of all, files, and the largest one that is written."""

    bytes: int
    files: int
    largest: int


def rules(policies: Path) -> LogFiles:
    """Return what the policy says, or our defaults where there is none, or it is broken."""
    try:
        found = history.load(policies)
    except PolicyError:
        found = None
    return found.log_files if found else LogFiles()


def keep(home: Path, wanted: LogFiles, at: datetime | None = None) -> Kept:
    """Pack what is too large or too old, and delete what was packed long enough ago.

    Of two processes at once, one does it. Blocks: call it in a thread.
    """
    moment = at or datetime.now(UTC)
    with _alone(home) as alone:
        if not alone:
            return Kept()
        limit = wanted.keep_for.total_seconds()
        old = [one for one in _archives(home) if _age(one, moment) > limit]
        for one in old:  # First, for they may be what fills the disk.
            one.unlink(missing_ok=True)
        packed = sum(_packed(home, one, wanted, moment) for one in written(home))
        return Kept(packed, len(old))


def written(home: Path) -> list[Path]:
    """Return the files that processes write: ours, and that of the embedded database."""
    database = home / "postgres" / "log"
    found = sorted((home / "logs").glob("*.log"))
    return [*found, database] if database.is_file() else found


def size(home: Path) -> Size:
    """Return how much room the logs take."""
    live = [one.stat().st_size for one in written(home)]
    packed = [one.stat().st_size for one in _archives(home)]
    return Size(sum(live) + sum(packed), len(live) + len(packed), max(live, default=0))


def _archives(home: Path) -> list[Path]:
    """Return the packed files, half-packed ones too, and those that earlier versions set aside."""
    found = sorted((home / "logs").glob("*.log.*"))
    return [one for one in found if not one.name.startswith(".")]


def _packed(home: Path, file: Path, wanted: LogFiles, moment: datetime) -> bool:
    length = file.stat().st_size
    name = "postgres.log" if file.parent.name == "postgres" else file.name
    begun = home / "logs" / f".{name}.begun"
    if not begun.exists():
        begun.touch()
        os.utime(begun, (moment.timestamp(), moment.timestamp()))
    if not length:
        return False
    if length < wanted.rotate_at and _age(begun, moment) < wanted.rotate_after.total_seconds():
        return False
    target = home / "logs" / f"{name}.{moment:{_STAMP}}.gz"
    fresh = target.with_suffix(".new")
    with file.open("rb") as source, gzip.open(fresh, "wb") as packed:
        shutil.copyfileobj(source, packed)
        # What was written meanwhile is copied, too; the rest of a moment is all that can be lost.
        os.truncate(file, 0)
    fresh.chmod(0o600)
    fresh.replace(target)
    for one in (target, begun):
        os.utime(one, (moment.timestamp(), moment.timestamp()))
    return True


def _age(file: Path, moment: datetime) -> float:
    return moment.timestamp() - file.stat().st_mtime


@contextmanager
def _alone(home: Path) -> Iterator[bool]:
    folder = home / "logs"
    if not folder.is_dir():
        yield False
        return
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
