"""Backs our database up with PostgreSQL's own tools, and brings a backup back."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from clickpost.errors import InvalidInput, Unavailable
from clickpost.settings import Settings
from clickpost.store.database import url_of
from deployments.postgres import Postgres

#: Ends a backup, for pg_restore is content with one that was cut short, and reads no further.
_SEAL = b"\nclickpost backup, sha256 %s\n"
_SEALED = len(_SEAL % (b"0" * 64))
#: Where the tables stand that a restore replaces, until the new ones are there.
_ASIDE = "replaced_by_restore"


def dump(settings: Settings, url: str, file: Path) -> int:
    """Write a backup of our database to `file`, for its owner's eyes alone; return its bytes.

    It is there whole, or not at all. No key is in it: those lie in the home, or the environment.
    Raises InvalidInput where `file` is there already, Unavailable with what pg_dump said.
    """
    if file.exists():
        raise InvalidInput(f"{file} is there already; a backup overwrites nothing")
    part = file.with_name(f"{file.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as out:
            done = _ran(settings, url, "pg_dump", "--format=custom", "--no-owner", "--no-acl",
                        stdout=out.fileno())  # fmt: skip
            if done.returncode:
                raise Unavailable(f"pg_dump: {_last(done.stderr)}")
            out.seek(0)
            out.write(_SEAL % hashlib.file_digest(out, "sha256").hexdigest().encode())
            out.flush()
            os.fsync(out.fileno())
        os.link(part, file)
    except FileExistsError:
        raise InvalidInput(f"{file} is there already; a backup overwrites nothing") from None
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def load(settings: Settings, url: str, file: Path, *, replace: bool = False) -> None:
    """Bring the tables of a backup into an empty database; with `replace`, into a full one.

    What fails leaves the database as it was. Raises InvalidInput for a file that is no backup, or
    a database that is not empty; Unavailable with what pg_restore said.
    """
    if not file.is_file():
        raise InvalidInput(f"there is no file {file}")
    if not _is_whole(file):
        raise InvalidInput(f"{file} was cut short or changed, or `clickpost backup` never wrote it")
    with _made_room(url, replace=replace):
        done = _ran(
            settings, url, "pg_restore", "--single-transaction", "--exit-on-error", "--no-owner",
            "--no-acl", str(file),
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"pg_restore: {_last(done.stderr)}")


def _is_whole(file: Path) -> bool:
    """Say whether a backup has its seal, and is what was sealed."""
    digest, left = hashlib.sha256(), file.stat().st_size - _SEALED
    with file.open("rb") as read:
        while left > 0 and (some := read.read(min(left, 1 << 20))):
            digest.update(some)
            left -= len(some)
        return read.read() == _SEAL % digest.hexdigest().encode()


@contextmanager
def _made_room(url: str, *, replace: bool) -> Iterator[None]:
    """Set the tables aside, drop them once the new ones are there, or bring them back."""
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        _back_from_a_kill(connection)
        if not _is_empty(connection):
            if not replace:
                raise InvalidInput(
                    "the database is not empty. Restore into an empty one, or say --replace: what"
                    " is in it now is gone then"
                )
            with connection.transaction():
                connection.execute(f"ALTER SCHEMA public RENAME TO {_ASIDE}")
                connection.execute("CREATE SCHEMA public")
        try:
            yield
        except BaseException:
            _back_from_a_kill(connection)
            raise
        connection.execute(f"DROP SCHEMA IF EXISTS {_ASIDE} CASCADE")


def _back_from_a_kill(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Bring back what a restore set aside and did not replace."""
    found = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
    if connection.execute(found, (_ASIDE,)).fetchone() is None:
        return
    with connection.transaction():
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute(f"ALTER SCHEMA {_ASIDE} RENAME TO public")


def _is_empty(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    query = "SELECT 1 FROM pg_tables WHERE schemaname = 'public' LIMIT 1"
    return connection.execute(query).fetchone() is None


def _plain(url: str) -> str:
    return url_of(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _ran(
    settings: Settings, url: str, tool: str, *words: str, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's tools; the password goes by the environment, where nobody sees it."""
    given = {name: str(value) for name, value in conninfo_to_dict(_plain(url)).items()}
    environment = {**os.environ, "PGPASSWORD": given.pop("password", "")}
    command = [str(_tool(settings, tool)), f"--dbname={make_conninfo('', **given)}", *words]
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def _tool(settings: Settings, name: str) -> Path:
    """Return the tool that fits the server: beside the embedded one, or on the PATH."""
    if settings.database_url is None:
        return Postgres(settings.home).tools / name
    if found := shutil.which(name):
        return Path(found)
    raise Unavailable(
        f"{name} is not on the PATH: install PostgreSQL's client programs, in a version not older"
        " than your server's"
    )


def _last(said: str) -> str:
    """Return the last line that says something, without values of rows."""
    lines = [one for one in said.splitlines() if re.match(r"pg_\w+: (error|fatal|hint)", one)]
    first = lines[0] if lines else "it failed, and did not say why"
    return re.sub(r"\s*DETAIL.*", "", first.partition(": ")[2])[:300]
