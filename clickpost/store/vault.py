"""Seals secrets: a data key for each connection, wrapped by a master key nobody stores with it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from clickpost.errors import Unavailable
from clickpost.settings import Settings

_NONCE = 12


@dataclass(frozen=True)
class Sealed:
    """Secrets at rest: ciphertext, the wrapped data key, and which master key wrapped it."""

    secrets: bytes = field(repr=False)
    data_key: bytes = field(repr=False)
    key_id: str


class Vault:
    """Opens and seals with the current master key; opens with former ones too."""

    def __init__(
        self, current: bytes, former: tuple[bytes, ...] = (), path: Path | None = None
    ) -> None:
        self._path = path
        self._read_at = _changed_at(path)
        self._take(current, former)

    @property
    def key_id(self) -> str:
        """The id of the key that seals now."""
        self._look_again()
        return _id_of(self._current)

    def _take(self, current: bytes, former: tuple[bytes, ...]) -> None:
        self._keys = {_id_of(key): key for key in (*former, current)}
        self._current = current

    def _look_again(self) -> None:
        """Read the key file again where it changed: keys were rotated while we run."""
        if self._path is None or (at := _changed_at(self._path)) == self._read_at:
            return
        keys = _keys_in(self._path)
        self._take(keys[-1], tuple(keys[:-1]))
        self._read_at = at

    @classmethod
    def of(cls, settings: Settings) -> Vault:
        """Return the vault of `settings`: the key from the environment, else the key file.

        The file is made on first use, readable by its owner alone. Raises Unavailable for a key
        that is no 32 bytes, or a file that others may read.
        """
        if settings.master_key is not None:
            old = settings.master_key_old
            former = (_key_of(old.get_secret_value(), "CLICKPOST_MASTER_KEY_OLD"),) if old else ()
            return cls(
                _key_of(settings.master_key.get_secret_value(), "CLICKPOST_MASTER_KEY"), former
            )
        path = settings.home / "master.key"
        keys = _keys_in(path)
        return cls(keys[-1], tuple(keys[:-1]), path)

    def seal(self, connection_id: str, secrets: Mapping[str, str]) -> Sealed:
        """Seal `secrets` with a new data key, bound to the connection."""
        self._look_again()
        data_key = AESGCM.generate_key(256)
        return Sealed(
            secrets=_encrypted(data_key, json.dumps(dict(secrets)).encode(), connection_id),
            data_key=_encrypted(self._current, data_key, connection_id),
            key_id=_id_of(self._current),
        )

    def open(self, connection_id: str, sealed: Sealed) -> dict[str, str]:
        """Return the secrets; raise Unavailable where the master key is not the one that sealed."""
        self._look_again()
        master = self._keys.get(sealed.key_id)
        if master is None:
            raise Unavailable(
                f"the secrets of {connection_id} were sealed with another master key"
                f" ({sealed.key_id}); bring back the key file or CLICKPOST_MASTER_KEY"
            )
        try:
            data_key = _decrypted(master, sealed.data_key, connection_id)
            opened: dict[str, str] = json.loads(_decrypted(data_key, sealed.secrets, connection_id))
        except InvalidTag:
            raise Unavailable(f"the secrets of {connection_id} were changed or damaged") from None
        return opened

    def derived(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for one purpose, derived from the master key."""
        self._look_again()
        return HKDF(hashes.SHA256(), 32, None, purpose.encode()).derive(self._current)


def _changed_at(path: Path | None) -> tuple[int, int] | None:
    """Return what tells one writing of the file from the next: another inode, another time."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"clickpost key id" + key).hexdigest()[:16]


def _encrypted(key: bytes, plain: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to.encode())


def _decrypted(key: bytes, sealed: bytes, bound_to: str) -> bytes:
    return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], bound_to.encode())


def _key_of(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Unavailable(f"{name} must be 32 bytes in base64 (openssl rand -base64 32)")
    return key


def _keys_in(path: Path) -> list[bytes]:
    if not path.exists():
        add_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Unavailable(f"{path} may be read by others; run: chmod 600 {path}")
    keys = [_key_of(line, str(path)) for line in path.read_text().splitlines() if line.strip()]
    if not keys:
        raise Unavailable(f"{path} holds no key; restore it from your backup")
    return keys


def add_key(path: Path) -> None:
    """Append a new master key to the file; the last one is current, the others still open."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = base64.b64encode(AESGCM.generate_key(256)) + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget_former(path: Path) -> None:
    """Keep only the current key in the file, in one rename."""
    current = path.read_text().splitlines()[-1]
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, current.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
