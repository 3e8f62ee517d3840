"""Removes the files of erasures from the media store, once no row names them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from clickpost.errors import Unavailable
from clickpost.policy.privacy import TableMap
from clickpost.store.erasures import Erasures
from clickpost.store.purging import Purging
from clickpost.store.tables import Erasure


async def remove_files(
    erasures: Erasures, rows: Sequence[Erasure], tables: Mapping[str, TableMap], media: Path
) -> Counter[str]:
    """Remove the files whose last row these erasures removed; return how many, by erasure.

    What another row names by now stays. Raises Unavailable for a file outside the media store.
    """
    removed: Counter[str] = Counter()
    purging = Purging(erasures.engine, erasures.vault)
    while files := await erasures.files_left(rows):
        named = await purging.named([stored_at for _, stored_at in files], tables)
        last = [(key, stored_at) for key, stored_at in files if stored_at not in named]
        removed += await asyncio.to_thread(_unlinked, last, media.resolve())
        await purging.forget_files([stored_at for _, stored_at in files])
    return removed


def _unlinked(files: Sequence[tuple[str, str]], root: Path) -> Counter[str]:
    removed: Counter[str] = Counter()
    for erasure_id, stored_at in files:
        path = Path(stored_at).resolve()
        if not path.is_relative_to(root):
            raise Unavailable(f"{erasure_id}: a file is not in the media store; look at it")
        removed[erasure_id] += path.exists()
        path.unlink(missing_ok=True)
    return removed
