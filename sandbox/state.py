"""What the sandbox remembers: accounts, posts, media; on disk, so that a restart loses nothing."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.stand_ins import found

#: The account that is always there.
SEED = "studio"


def iso(moment: float | None = None) -> str:
    """Return a time as ISO 8601 with milliseconds and Z."""
    at = datetime.fromtimestamp(moment if moment is not None else time.time(), UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class State:
    """All of it, in memory, written to `folder` when it changed."""

    folder: Path
    accounts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    posts: dict[str, dict[str, Any]] = field(default_factory=dict)
    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Blobs, media, containers, sessions, jobs, by id."""
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=5000))
    processing_seconds: float = 1.5
    changed: bool = False
    version: int = 0

    def __post_init__(self) -> None:
        (self.folder / "media").mkdir(parents=True, exist_ok=True)
        self._load()
        for platform, stand_in in found().items():
            self.accounts.setdefault(platform, {})
            if not self.accounts[platform]:
                self.add_account(platform, SEED, stand_in.seed)

    def _load(self) -> None:
        path = self.folder / "state.json"
        if path.exists():
            kept = json.loads(path.read_text())
            self.accounts, self.posts = kept["accounts"], kept["posts"]
            self.things = kept["things"]

    def save(self) -> None:
        """Write what changed, in one rename."""
        if not self.changed:
            return
        self.changed = False
        path = self.folder / "state.json"
        kept = {"accounts": self.accounts, "posts": self.posts, "things": self.things}
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(kept))
        fresh.replace(path)

    def touch(self) -> None:
        """Note that something changed."""
        self.changed = True
        self.version += 1

    def add_account(
        self, platform: str, name: str, credentials: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Make an account with credentials of its own."""
        number = len(self.accounts[platform])
        stand_in = found()[platform]
        made = dict(credentials or stand_in.credentials(name))
        account = {
            "platform": platform,
            "name": name,
            "id": stand_in.remote_id(number, made),
            "handle": stand_in.handle_of(name),
            "credentials": made,
            "generation": 0,
            "expired": False,
            "revoked": False,
        }
        self.accounts[platform][str(account["id"])] = account
        self.touch()
        return account

    def by_credential(self, platform: str, key: str, value: str) -> dict[str, Any] | None:
        """Return the account whose credential `key` is `value`."""
        rows = self.accounts[platform].values()
        return next((row for row in rows if row["credentials"].get(key) == value), None)

    def add_post(self, platform: str, account: str, post_id: str, **said: Any) -> dict[str, Any]:
        """Keep a post, with the moment it arrived."""
        post = {
            "platform": platform,
            "account": account,
            "id": post_id,
            "received_at": time.time(),
            "deleted": False,
            "media": [],
            **said,
        }
        self.posts[f"{platform}/{post_id}"] = post
        self.touch()
        return post

    def newest(self, platform: str | None = None) -> list[dict[str, Any]]:
        """Return the posts, newest first."""
        rows = [row for row in self.posts.values() if platform in (None, row["platform"])]
        return sorted(rows, key=lambda row: -float(row["received_at"]))

    async def receive(
        self, stream: AsyncIterator[bytes], suffix: str = ""
    ) -> tuple[Path, str, int]:
        """Write a body to disk as it comes; return its path, SHA-256 and size."""
        part = self.folder / "media" / f"part-{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        with part.open("wb") as file:
            async for chunk in stream:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        path = self.folder / "media" / f"{digest.hexdigest()}{suffix}"
        part.replace(path)
        return path, digest.hexdigest(), size
