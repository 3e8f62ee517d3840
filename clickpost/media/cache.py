"""Keeps originals and renditions under their hashes; what is there is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clickpost.errors import Unavailable
from clickpost.media.plan import Profile

#: Seconds without a byte after which an unfinished file is nobody's.
_ABANDONED = 24 * 3600
_SUFFIX = {"jpeg": ".jpg", "matroska": ".mkv"}


class Cache:
    """A folder of `originals` and `renditions`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, path: Path, sha256: str) -> Path:
        """Copy an original in, unless it is there; return where it is."""
        target = self.folder / "originals" / sha256[:2] / (sha256 + path.suffix.lower()[:8])
        if not target.exists():
            with self._fresh(target) as part:
                shutil.copyfile(path, part)
                if _digest(part) != sha256:
                    raise Unavailable(f"{path.name} changed while it was read; try again")
        return target

    def rendition(self, sha256: str, profile: Profile) -> Path:
        """Return where the rendition is, or will be."""
        suffix = _SUFFIX.get(profile.format, f".{profile.format}")
        name = f"{sha256[:32]}-{profile.hash[:32]}{suffix}"
        return self.folder / "renditions" / sha256[:2] / name

    @contextmanager
    def fresh(self, targets: list[Path]) -> Iterator[list[Path]]:
        """Yield a place for each target to be written to; all appear at once, or none does."""
        parts = []
        try:
            with _room():
                for target in targets:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _sweep(target.parent)
                    parts.append(target.with_name(f".{secrets.token_hex(6)}-{target.name}"))
                yield parts
                for part in parts:
                    _on_disk(part)
                for part, target in zip(parts, targets, strict=True):
                    os.replace(part, target)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    @contextmanager
    def _fresh(self, target: Path) -> Iterator[Path]:
        with self.fresh([target]) as parts:
            yield parts[0]


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable("the disk is full: free some room, then retry") from None
        raise


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed left unfinished, once nobody can be at it."""
    for part in folder.glob(".*"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()


def _on_disk(path: Path) -> None:
    """Wait until the bytes are safe, so that no crash leaves a name without them."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
