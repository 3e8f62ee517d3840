"""Hands a person what is held about them: which columns, as one archive, behind one link.

An archive is written beside its name and renamed when it is whole, so that a run that was killed
leaves nothing that could be handed out. Memory is bounded whatever its size.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import IO, Any

from jinja2 import Environment, StrictUndefined

from clickpost.datamap import Columns
from clickpost.policy.privacy import CATEGORIES, Retention, TableMap

TYPE = "clickpost.export/1"
#: Rows of each table that the page shows; all are in the data.
SHOWN = 200
#: A part that no run has touched for so long was left by one that was killed.
STALE = timedelta(days=1)
_PAGE = Path(__file__).parent / "pages" / "export.html"
_NAME = re.compile(r"([a-z]+_[0-9A-Za-z_]+)\.([0-9A-Za-z_]+)\.([0-9]{1,12})\.zip")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
#: What people are told of what every archive lacks.
LEFT_OUT = (
    "What only opens something: tokens of connected accounts, addresses of channels with their"
    " keys, codes, and digests by which we find an address. They are sealed, and would be of use"
    " to nobody but a thief.",
    "What says nothing about anybody: counters, choices of how to work, names of our processes.",
    "The audit log and Prefect's history: they hold ids and words of ours only.",
    "What others hold for us (payments, help desk, newsletters): they answer for themselves.",
)
LEFT_OUT_OF_ACCOUNTS = (
    "What is about a single member of the account (names, addresses, consents, preferences,"
    " tickets, use): each member can ask for their own.",
)


def columns(table: TableMap, there: Columns) -> tuple[str, ...]:
    """Return the columns that are handed out: about somebody, and neither sealed nor withheld."""
    return tuple(
        name
        for name, said in table.columns.items()
        if said.not_personal is None
        and said.withheld is None
        and not said.file
        and there.kinds.get(name) != "bytes"
    )


def file_columns(table: TableMap) -> tuple[str, ...]:
    """Return the columns that name a file of the media store, which is handed out itself."""
    return tuple(name for name, said in table.columns.items() if said.file)


@dataclass(frozen=True)
class Section:
    """What an archive says of one table."""

    table: str
    what: str
    columns: Mapping[str, Mapping[str, str]]
    """By column: its category, what it is kept for, who told it."""
    kept: tuple[str, ...]
    """Why and how long rows are kept, one sentence each."""


def section(
    name: str, table: TableMap, handed: Sequence[str], retention: Mapping[str, Retention]
) -> Section:
    """Return what a person is told of a table: what for, from whom, how long."""
    return Section(
        table=name,
        what=table.what,
        columns={
            one: {
                "category": CATEGORIES[
                    str(table.columns[one].category or table.category or "account")
                ],
                "purpose": table.columns[one].purpose or table.purpose or "",
                "origin": table.columns[one].origin or table.origin,
            }
            for one in handed
        },
        kept=tuple(
            f"{purpose.why}: {purpose.keep_for.days} days from {' or '.join(purpose.clock)}"
            f" ({purpose.cite})"
            for _, one in sorted(retention.items())
            if one.data == name
            for purpose in one.purposes
        ),
    )


@dataclass(frozen=True)
class Head:
    """What an archive says of itself."""

    export_id: str
    about: str
    made_at: str
    left_out: tuple[str, ...] = LEFT_OUT


@dataclass
class Archive:
    """One archive while it is written: data, then files, then the page and what it is."""

    head: Head
    media: Path
    _zip: zipfile.ZipFile
    _shown: IO[str]
    _files: IO[str]
    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    missing: int = 0
    _sections: list[Section] = field(default_factory=list)
    _table: _Table | None = None

    def begin(self, section: Section) -> None:
        """Begin a table; its rows follow."""
        self._sections.append(section)
        name = f"data/{section.table}.json"
        out = self._zip.open(name, "w", force_zip64=True)
        out.write(b"[")
        self._table = _Table(section.table, out)

    def write(self, rows: Sequence[tuple[str, str, Mapping[str, str | None]]]) -> None:
        """Add rows: each its id, its JSON text, and by column the file that belongs to it."""
        table = self._table
        assert table is not None
        for row_id, said, files in rows:
            text = self._with_files(table.name, row_id, said, files) if files else said
            table.out.write((",\n" if table.count else "\n").encode() + text.encode())
            if table.count < SHOWN:
                table.shown.append(json.loads(text))
            table.count += 1

    def end(self) -> None:
        """End a table."""
        table = self._table
        assert table is not None
        table.out.write(b"\n]\n")
        table.out.close()
        self.rows[table.name] = table.count
        shown = {"table": table.name, "count": table.count, "rows": table.shown}
        self._shown.write(json.dumps(shown) + "\n")
        self._table = None

    def _with_files(
        self, table: str, row_id: str, said: str, files: Mapping[str, str | None]
    ) -> str:
        row = json.loads(said)
        for column, stored_at in files.items():
            if stored_at is None:
                continue
            suffix = Path(stored_at).suffix.lower()
            suffix = suffix if _SUFFIX.fullmatch(suffix) else ""
            more = f".{column}" if len(files) > 1 else ""
            name = f"media/{table}/{re.sub('[^0-9A-Za-z_-]', '_', row_id)}{more}{suffix}"
            if self._is_there(stored_at):
                row["file"] = name
                self._files.write(json.dumps([stored_at, name]) + "\n")
            else:
                self.missing += 1
        return json.dumps(row, ensure_ascii=False)

    def _is_there(self, stored_at: str) -> bool:
        """Say whether a file is in the media store: nothing else is ever handed out."""
        path = Path(stored_at).resolve()
        return path.is_relative_to(self.media.resolve()) and path.is_file()

    def finish(self) -> None:
        """Add the files of all rows, the page, and what the archive is."""
        self._add_files()
        self._add_page()

    def abandon(self) -> None:
        """Close what is open: the error that stops the work is to be heard, not one of ours."""
        if self._table is not None and not self._table.out.closed:
            self._table.out.close()

    def _add_files(self) -> None:
        """Add files as they are: they are compressed already."""
        self._files.seek(0)
        for line in self._files:
            stored_at, name = json.loads(line)
            try:
                with (
                    Path(stored_at).open("rb") as source,
                    self._zip.open(zipfile.ZipInfo(name), "w", force_zip64=True) as out,
                ):
                    shutil.copyfileobj(source, out, 1 << 20)
            except FileNotFoundError:  # It was purged this moment.
                self.missing += 1
            else:
                self.files += 1

    def _add_page(self) -> None:
        told = {
            "type": TYPE,
            **asdict(self.head),
            "tables": [{**asdict(one), "rows": self.rows[one.table]} for one in self._sections],
            "files": self.files,
            "files_missing": self.missing,
        }
        self._zip.writestr("about.json", json.dumps(told, indent=1, ensure_ascii=False))
        self._shown.seek(0)
        by_name = {one.table: one for one in self._sections}
        pieces = _page().generate(
            head=self.head, told=told, shown=_shown(self._shown, by_name), most=SHOWN
        )
        with self._zip.open("index.html", "w", force_zip64=True) as out:
            for piece in pieces:
                out.write(piece.encode())


@dataclass
class _Table:
    """The table that is being written."""

    name: str
    out: IO[bytes]
    count: int = 0
    shown: list[Any] = field(default_factory=list)


def _shown(lines: IO[str], sections: Mapping[str, Section]) -> Iterator[dict[str, Any]]:
    for line in lines:
        said = json.loads(line)
        if said["count"]:
            yield {"section": sections[said["table"]], **said}


@contextmanager
def archive(target: Path, head: Head, media: Path) -> Iterator[Archive]:
    """Yield an archive that stands at `target` once all went well, readable by its owner alone.

    `finish` makes it whole. One export is written by one process at a time: what a former one
    left is written over.
    """
    part = target.with_name(f"{head.export_id}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with (
            os.fdopen(handle, "w+b") as file,
            # These have no name: they go with the process.
            tempfile.TemporaryFile("w+", dir=target.parent) as shown,
            tempfile.TemporaryFile("w+", dir=target.parent) as files,
        ):
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
                one = Archive(head, media, made, shown, files)
                try:
                    yield one
                except BaseException:
                    one.abandon()
                    raise
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_back(path: Path) -> dict[str, int]:
    """Return how many rows of each table an archive holds; raise ValueError for a broken one."""
    found: dict[str, int] = {}
    with zipfile.ZipFile(path) as made:
        if (broken := made.testzip()) is not None:
            raise ValueError(f"{broken} cannot be read back")
        for name in made.namelist():
            if name.startswith("data/"):
                with made.open(name) as lines:
                    table = name.removeprefix("data/").removesuffix(".json")
                    found[table] = sum(line.startswith(b"{") for line in lines)
    return found


@dataclass(frozen=True)
class Parcel:
    """An archive that waits to be fetched; `who` tells about whom it is, without a name."""

    path: Path
    export_id: str
    who: str
    expires: int

    def is_over(self, now: datetime) -> bool:
        """Say whether its link opens nothing any more."""
        return now.timestamp() > self.expires


def folder(media: Path) -> Path:
    """Return where archives wait, which only our own user may look into; make it on first use."""
    made = media / "exports"
    made.mkdir(parents=True, exist_ok=True, mode=0o700)
    return made


def who(subject: str, digest: str | None) -> str:
    """Return what the name of an archive says of whom it is about."""
    return re.sub("[^0-9A-Za-z_]", "_", digest[:24] if digest else subject)


def place(media: Path, export_id: str, about: str, until: datetime) -> Parcel:
    """Return where an archive is to stand."""
    expires = int(until.timestamp())
    name = f"{export_id}.{about}.{expires}.zip"
    return Parcel(folder(media) / name, export_id, about, expires)


def parcels(media: Path) -> Iterator[Parcel]:
    """Yield the archives that wait."""
    there = media / "exports"
    for path in sorted(there.iterdir()) if there.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            yield Parcel(path, match[1], match[2], int(match[3]))


def parcel(media: Path, export_id: str) -> Parcel | None:
    """Return the archive of an export that lasts longest, None where none waits."""
    found = [one for one in parcels(media) if one.export_id == export_id]
    return max(found, key=lambda one: one.expires, default=None)


def remove_others(kept: Parcel, media: Path) -> None:
    """Remove earlier archives of the same export."""
    for one in parcels(media):
        if one.export_id == kept.export_id and one.path != kept.path:
            one.path.unlink(missing_ok=True)


def forget(media: Path, subject: str, digest: str | None) -> int:
    """Remove all archives about somebody who is erased; return how many there were."""
    gone = [one for one in parcels(media) if one.who in (who(subject, None), who(subject, digest))]
    for one in gone:
        one.path.unlink(missing_ok=True)
    return len(gone)


def expired(media: Path, now: datetime) -> list[Parcel]:
    """Return archives whose time is over; remove what runs left that were killed."""
    there = media / "exports"
    for part in there.glob("*.part"):
        if now.timestamp() - part.stat().st_mtime > STALE.total_seconds():
            part.unlink(missing_ok=True)
    return [one for one in parcels(media) if one.is_over(now)]


def link(base: str, key: bytes, one: Parcel) -> str:
    """Return the link under `base` that gives an archive until it expires."""
    return f"{base}/exports/{one.export_id}/{one.expires}/{_mark(key, one.export_id, one.expires)}"


def may_fetch(key: bytes, export_id: str, expires: int, mark: str, now: datetime) -> bool:
    """Say whether a link is ours, and still lives."""
    good = hmac.compare_digest(_mark(key, export_id, expires).encode(), mark.encode())
    return good and now.timestamp() <= expires


def _mark(key: bytes, export_id: str, expires: int) -> str:
    return hmac.new(key, f"export:{export_id}:{expires}".encode(), hashlib.sha256).hexdigest()


@cache
def _page() -> Any:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters["said"] = _said
    return made.from_string(_PAGE.read_text(encoding="utf-8"))


def _said(value: object) -> str:
    """Return a value as the page shows it."""
    if isinstance(value, dict | list):
        return json.dumps(value, indent=1, ensure_ascii=False)
    return "" if value is None else str(value)
