"""Signs what others shall be able to check: an Ed25519 key that never leaves its file."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clickpost.errors import Unavailable
from clickpost.settings import Settings


class Signer:
    """Holds the key; its id is the digest of the public half."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()
        self.key_id = id_of(self.public)

    @classmethod
    def of(cls, settings: Settings) -> Signer:
        """Return the signer of `settings`: the key from the environment, else the key file.

        The file is made on first use, readable by its owner alone. Raises Unavailable for a key
        that is none, or a file that others may read.
        """
        if settings.signing_key is not None:
            given = settings.signing_key.get_secret_value()
            return cls(_key_of(given, "CLICKPOST_SIGNING_KEY"))
        path = settings.home / "signing.key"
        if not path.exists():
            _make(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise Unavailable(f"{path} may be read by others; run: chmod 600 {path}")
        return cls(_key_of(path.read_text(), str(path)))

    def sign(self, said: bytes) -> str:
        """Return the signature over `said`, in base64."""
        return base64.b64encode(self._key.sign(said)).decode()

    @property
    def pem(self) -> str:
        """The public key, as others need it."""
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.public.public_bytes(encoding, form).decode()


def id_of(public: Ed25519PublicKey) -> str:
    """Return the id of a public key: 16 letters of its digest."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _key_of(text: str, name: str) -> Ed25519PrivateKey:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
        return Ed25519PrivateKey.from_private_bytes(raw)
    except ValueError:
        said = f"{name} must be 32 bytes in base64 (openssl rand -base64 32)"
        raise Unavailable(said) from None


def _make(path: Path) -> None:
    """Write a new key; where another process was faster, that one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
