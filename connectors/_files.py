"""Streams a file, or a piece of it, without holding it in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio

_CHUNK = 1 << 18


async def stream(path: Path, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
    """Yield the bytes of `path` from `start`, at most `length` of them."""
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(start)
        left = length
        while left is None or left > 0:
            chunk = await file.read(_CHUNK if left is None else min(_CHUNK, left))
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk
