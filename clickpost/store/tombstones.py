"""What was erased, as keyed digests in a file outside the database, so that a restore forgets none.

The file only grows. Each line is closed in shape, chained to the one before and authenticated; a
small mark beside it says how many lines there are, and how far the ledger was last seen.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clickpost.errors import Unavailable
from clickpost.settings import Settings
from clickpost.store.vault import Sealed, Vault

#: Of a file: its inode, both times and size; None where there is none.
Stamp = tuple[int, int, int, int] | None

_SEALED_AS = "tombstones"
_NONE = "0" * 64
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sealing = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]{16,400}$")]


@dataclass(frozen=True)
class Head:
    """A place in the ledger: the number of a line, and its hash in hex, which no other has."""

    seq: int
    hash: str


@dataclass(frozen=True)
class Buried:
    """Whose erasure a tombstone remembers: `subject` as TABLE:ID, the digest of an address."""

    erasure_id: str
    action: str
    policy: str
    subject: str
    address: str | None


class _Closed(BaseModel):
    """No field but these, and none that could hold a person's word."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Line(_Closed):
    number: int = Field(ge=1)
    at: datetime
    prev: Digest
    mac: Digest


class KeyLine(_Line):
    """The key of all digests here, sealed by the master key; another line after each rotation."""

    kind: Literal["key"] = "key"
    secrets: Sealing
    data_key: Sealing
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Tombstone(_Line):
    """One erasure or anonymization: of whom, as digests; and how far the ledger was then."""

    kind: Literal["tombstone"] = "tombstone"
    erasure: Annotated[str, Field(pattern=r"^erasure_[0-9a-z]{1,32}$")]
    action: Literal["erasure", "anonymization"]
    policy: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    subject: Digest
    address: Digest | None
    seq: int = Field(ge=0)
    hash: Digest


class Replayed(_Line):
    """All before it was done again in a restored database, whose ledger was so far then."""

    kind: Literal["replayed"] = "replayed"
    seq: int = Field(ge=0)
    hash: Digest


Line = KeyLine | Tombstone | Replayed
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


class Mark(_Closed):
    """How many lines there are, and how far the ledger of the database was last seen."""

    lines: int = Field(ge=0)
    last: Digest
    seq: int = Field(ge=0)
    hash: Digest
    mac: Digest

    @property
    def head(self) -> Head:
        """Where the ledger was."""
        return Head(self.seq, self.hash)


class Tombstones:
    """One folder of tombstones; several processes, and machines, take turns by its lock."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.folder, self.file = folder, folder / "tombstones.jsonl"
        self._marked = folder / "mark.json"
        self._vault = vault
        self._turn = threading.RLock()
        self._forget()

    @classmethod
    def of(cls, settings: Settings, vault: Vault) -> Tombstones:
        """Return those of `settings`; what this process has read it need not read again."""
        known = (settings.tombstones_root, vault.key_id)
        return _OPEN.setdefault(known, cls(settings.tombstones_root, vault))

    def _forget(self) -> None:
        self._inode, self._offset = 0, 0
        self._number, self._prev = 0, _NONE
        self._key: bytes | None = None
        self._sealings: list[KeyLine] = []
        self._erasures: set[str] = set()
        self._newest: Head | None = None

    def check(self) -> int:
        """Read what is new and return the number of lines.

        Raises Unavailable for a file that was changed or cut short, or whose key is another's.
        """
        with self._locked():
            self._catch_up()
            return self._number

    def heads(self) -> list[Head]:
        """Return the places which the ledger of a database that was not restored must have."""
        with self._locked():
            self._catch_up()
            mark = self._raw_mark()
            found = [mark.head] if mark else []
            return [*found, self._newest] if self._newest else found

    def mark(self) -> Head | None:
        """Return how far the ledger was last seen; None before the first look."""
        with self._locked():
            self._catch_up()
            found = self._raw_mark()
        return found.head if found else None

    def stamp(self) -> Stamp:
        """Return what tells the mark's file from the one before, without reading it.

        A mark is never written into: a new file takes its place.
        """
        try:
            status = self._marked.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def has(self, erasure_id: str) -> bool:
        """Say whether an erasure has its tombstone."""
        with self._locked():
            self._catch_up()
            return erasure_id in self._erasures

    def keep(
        self, erasure_id: str, action: str, policy: str, whom: tuple[str, str | None], head: Head
    ) -> int:
        """Write the tombstone of an erasure, as `keep_all` does those of many."""
        return self.keep_all([Buried(erasure_id, action, policy, *whom)], head)

    def keep_all(self, buried: Sequence[Buried], head: Head) -> int:
        """Write the tombstones of erasures, each once, and return the number of lines.

        On disk are digests of subject and address. They are on disk when this returns.
        """
        with self._locked():
            self._catch_up()
            new = [one for one in buried if one.erasure_id not in self._erasures]
            if new:
                self._append(*(self._stone(one, head) for one in new))
            self._write_mark(head)
            return self._number

    def _stone(self, one: Buried, head: Head) -> dict[str, Any]:
        return {
            "kind": "tombstone",
            "erasure": one.erasure_id,
            "action": one.action,
            "policy": one.policy,
            "subject": self._digest(one.subject),
            "address": self._digest(f"address:{one.address}") if one.address else None,
            "seq": head.seq,
            "hash": head.hash,
        }

    def replayed(self, head: Head) -> None:
        """Write that all there is was done again in a database whose ledger is at `head`."""
        with self._locked():
            self._catch_up()
            self._append({"kind": "replayed", "seq": head.seq, "hash": head.hash})
            self._write_mark(head)

    def advance(self, head: Head) -> None:
        """Remember how far the ledger of the database is; never backwards."""
        with self._locked():
            self._catch_up()
            mark = self._raw_mark()
            if mark is None or mark.seq < head.seq:
                self._write_mark(head)

    def seal_anew(self) -> int:
        """Seal the key of the digests under the current master key; they stay as they are."""
        with self._locked():
            if not self.file.exists():
                return 0
            self._catch_up()
            if self._sealings and self._sealings[-1].key_id == self._vault.key_id:
                return 0
            self._append_key()
            return 1

    def lines(self) -> list[Tombstone | Replayed]:
        """Return all there is, checked, oldest first."""
        with self._locked():
            self._forget()
            self._catch_up()
            with self.file.open("rb") as file:
                read = [_read(raw) for raw in file.read(self._offset).splitlines()]
        return [one for one in read if not isinstance(one, KeyLine)]

    def addressed(self) -> dict[str, Tombstone]:
        """Return the tombstones of people with an address, by the digest of its digest."""
        lines = (one for one in self.lines() if isinstance(one, Tombstone))
        return {one.address: one for one in lines if one.address is not None}

    def of_address(self, digest: str) -> str:
        """Return what a tombstone has of an address, by its digest; after `addressed`."""
        return self._digest(f"address:{digest}")

    def pads(self) -> dict[str, bytes]:
        """Return both pads of HMAC-SHA256, by which SQL makes the same digests of ids."""
        with self._locked():
            self._catch_up()
            key = self._known().ljust(64, b"\0")
        return {"inner": bytes(x ^ 0x36 for x in key), "outer": bytes(x ^ 0x5C for x in key)}

    def _known(self) -> bytes:
        if self._key is None:
            raise Unavailable(f"{self.file} has no key line; bring the file back as it was")
        return self._key

    def _digest(self, said: str) -> str:
        return hmac.new(self._known(), said.encode(), hashlib.sha256).hexdigest()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one writer in at a time, of all processes that share the folder."""
        with self._turn:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    def _catch_up(self) -> None:
        """Read what was written since the last look; make the file where there is none yet."""
        mark = self._raw_mark()
        if not self.file.exists():
            if mark is not None:
                raise Unavailable(f"{self.file} is gone; bring it back: it says who was erased")
            self._forget()
            self._make()
            return
        with self.file.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._forget()
                self._inode = status.st_ino
            self._read_on(file)
        if self._key is None and mark is None:
            self._make()  # Its maker was killed before the first line was whole.
        self._compare(mark)

    def _read_on(self, file: BinaryIO) -> None:
        file.seek(self._offset)
        for raw in file:
            if not raw.endswith(b"\n"):  # Its writer was killed: it was never told to be there.
                return
            self._take(raw)

    def _take(self, raw: bytes) -> None:
        try:
            line = _read(raw)
        except ValidationError:
            raise self._changed(self._number + 1) from None
        if isinstance(line, KeyLine):
            self._sealings.append(line)
            self._key = self._key or self._opened()
        if self._key is None or line.number != self._number + 1 or line.prev != self._prev:
            raise self._changed(self._number + 1)
        if not hmac.compare_digest(line.mac, _mac(self._key, json.loads(raw))):
            raise self._changed(line.number)
        self._number, self._prev, self._offset = line.number, line.mac, self._offset + len(raw)
        if isinstance(line, Tombstone):
            self._erasures.add(line.erasure)
        if not isinstance(line, KeyLine):
            self._newest = Head(line.seq, line.hash)

    def _opened(self) -> bytes | None:
        """Return the key; it may be a later line that the master key of today has sealed."""
        found: list[KeyLine] = []
        with self.file.open("rb") as file:
            for raw in file:
                if b'"kind":"key"' in raw and raw.endswith(b"\n"):
                    with suppress(ValidationError):
                        found.append(KeyLine.model_validate_json(raw))
        for line in reversed(found):
            sealed = Sealed(
                base64.b64decode(line.secrets), base64.b64decode(line.data_key), line.key_id
            )
            try:
                return base64.b64decode(self._vault.open(_SEALED_AS, sealed)["key"])
            except Unavailable:
                continue
        raise Unavailable(
            f"{self.file} was sealed with another master key; bring back the key file or"
            " CLICKPOST_MASTER_KEY"
        )

    def _changed(self, number: int) -> Unavailable:
        return Unavailable(
            f"{self.file} was changed at line {number}: whom it says to be erased cannot be"
            " trusted. Bring the file back as it was"
        )

    def _compare(self, mark: Mark | None) -> None:
        if mark is None:
            return
        if not hmac.compare_digest(mark.mac, _mac(self._known(), mark.model_dump())):
            raise Unavailable(f"{self._marked} was changed; bring it back as it was")
        if mark.lines > self._number or (mark.lines == self._number and mark.last != self._prev):
            raise Unavailable(
                f"{self.file} was cut short: it has {self._number} lines, and had {mark.lines}."
                " Bring the file back as it was: it says who was erased"
            )

    def _make(self) -> None:
        self._key = secrets.token_bytes(32)
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600)
        self._inode = os.fstat(descriptor).st_ino
        os.close(descriptor)
        self._append_key()
        _synced(self.folder)

    def _append_key(self) -> None:
        held = base64.b64encode(self._known()).decode()
        sealed = self._vault.seal(_SEALED_AS, {"key": held})
        self._append(
            {
                "kind": "key",
                "secrets": base64.b64encode(sealed.secrets).decode(),
                "data_key": base64.b64encode(sealed.data_key).decode(),
                "key_id": sealed.key_id,
            }
        )

    def _append(self, *lines: Mapping[str, Any]) -> None:
        """Write lines at the end, each chained to the one before; on disk when this returns."""
        at, prev = datetime.now(UTC).isoformat(timespec="seconds"), self._prev
        made = []
        for number, facts in enumerate(lines, self._number + 1):
            said = {"number": number, "at": at, "prev": prev, **facts}
            said["mac"] = prev = _mac(self._known(), said)
            made.append(_canonical(said) + b"\n")
            _read(made[-1])  # What is not of the closed shape is never written.
        descriptor = os.open(self.file, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, self._offset)  # Half a line of a writer that was killed.
            os.lseek(descriptor, 0, os.SEEK_END)
            _write_all(descriptor, b"".join(made))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for raw in made:
            self._take(raw)

    def _raw_mark(self) -> Mark | None:
        if not self._marked.exists():
            return None
        try:
            return Mark.model_validate_json(self._marked.read_bytes())
        except ValidationError:
            raise Unavailable(f"{self._marked} was changed; bring it back as it was") from None

    def _write_mark(self, head: Head) -> None:
        said: dict[str, Any] = {
            "lines": self._number, "last": self._prev, "seq": head.seq, "hash": head.hash,
        }  # fmt: skip
        raw = _canonical({**said, "mac": _mac(self._known(), said)})
        fresh = self._marked.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, raw)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(self._marked)
        _synced(self.folder)


_OPEN: dict[tuple[Path, str], Tombstones] = {}


def _read(raw: bytes) -> Line:
    return _LINE.validate_json(raw)


def _canonical(said: dict[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _mac(key: bytes, said: dict[str, Any]) -> str:
    body = {name: value for name, value in said.items() if name != "mac"}
    return hmac.new(key, b"line:" + _canonical(body), hashlib.sha256).hexdigest()


def _write_all(descriptor: int, raw: bytes) -> None:
    while raw:
        raw = raw[os.write(descriptor, raw) :]


def _synced(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
