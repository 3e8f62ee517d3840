"""What a connector promises: small protocols over frozen values, no HTTP and no Prefect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Account:
    """One connected account, with its secrets opened for the length of one step.

    `secrets` holds what the platform calls its credentials and tokens (`access_token`, …);
    `options` what an operator set for this connection (`video_base`, `token_url`, …).
    """

    connection_id: str
    platform: str
    api_base: str
    remote_id: str | None = None
    handle: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """Who the token speaks for: the stable id, the handle people know, the display name."""

    remote_id: str
    handle: str
    name: str = ""
    url: str | None = None
    scopes: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Limits the server tells of itself, in the words of the platform policy's sections
    (e.g. `{"text": {"limit": 5000}, "images": {"max": 6}}`); numbers in bytes, seconds and bits a
    second; empty where it tells none."""
    expires_at: datetime | None = None
    """When the token ends that was handed to us, as told or assumed; None where it does not."""
    app_user_id: str | None = None
    """Under which id the platform's callbacks to our app name the account, where it is another."""


class Kind(StrEnum):
    """What a file is to a platform."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True)
class MediaFile:
    """One rendition, ready to leave: `bytes` is its size, `duration` seconds, `url` where a
    platform that pulls may fetch it (signed, of limited life)."""

    kind: Kind
    path: Path
    mime: str
    bytes: int
    width: int
    height: int
    sha256: str
    duration: float | None = None
    alt: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Message:
    """One post as one platform gets it; a thread is several, sent one after another."""

    text: str
    media: tuple[MediaFile, ...] = ()
    title: str = ""
    language: str | None = None
    visibility: str = "public"
    sensitive: bool = False
    spoiler: str = ""
    tags: tuple[str, ...] = ()
    written_at: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What was uploaded or reserved before the send: JSON only, stored before it is used.

    While `ready` is false the platform still works on it: call `prepare` again with this value
    after `again_in` seconds.
    """

    state: dict[str, Any]
    ready: bool = True
    again_in: float = 0.0


@dataclass(frozen=True)
class Receipt:
    """The platform's answer: its id, the permalink, and what a reply needs (`extra`, JSON)."""

    remote_id: str
    url: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pending:
    """Accepted, and the platform still works on it: resume with `ticket` in `again_in` seconds."""

    ticket: dict[str, Any]
    again_in: float
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Outline:
    """What of a file can be told from outside: its kind, and its size in pixels."""

    kind: Kind
    width: int
    height: int


@dataclass(frozen=True)
class Sought:
    """What `find` looks for after an outcome got lost."""

    key: str
    prepared: Prepared
    text: str
    sent_at: datetime
    until: datetime
    after: tuple[Receipt, ...] = ()
    taken: frozenset[str] = frozenset()
    """Remote ids that are known to be other posts of ours: never what is looked for."""
    media: tuple[Outline, ...] | None = None
    """The files that it carries, in order; None where that is not known."""


class Absence(StrEnum):
    """A look that found nothing: `NOT_THERE` is proof, `CANNOT_TELL` is not."""

    NOT_THERE = "not_there"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True)
class Presence:
    """A post that is there; `digest` tells its text from another, None where none is returned."""

    digest: str | None = None

    @classmethod
    def of(cls, text: str) -> Presence:
        """Return the presence of a post whose text reads so."""
        return cls(hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True)
class Tokens:
    """Secrets as they stand after a sign-in or a refresh; only changed keys, never empty ones."""

    secrets: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Quota:
    """How much an account may still send: `used` of `total` in a window of `window` seconds."""

    used: int | None
    total: int | None
    window: float | None = None
    resets_at: datetime | None = None


@runtime_checkable
class Identifies(Protocol):
    """Tells who the token speaks for."""

    async def whoami(self) -> Identity: ...


@runtime_checkable
class SignsIn(Protocol):
    """Makes tokens out of the credentials that the account's owner gave."""

    async def sign_in(self) -> Tokens: ...


@runtime_checkable
class Prepares(Protocol):
    """Uploads and reserves; may run twice and leaves nothing that anybody sees."""

    async def prepare(
        self, message: Message, key: str, so_far: Prepared | None = None
    ) -> Prepared: ...


@runtime_checkable
class Publishes(Protocol):
    """Makes the post visible: the one step that must not run twice.

    `after` are the receipts of the parts already sent, for a reply (first is the root).
    """

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt | Pending: ...


@runtime_checkable
class Resumes(Protocol):
    """Asks how far a `Pending` has come."""

    async def resume(self, ticket: Mapping[str, Any]) -> Receipt | Pending: ...


@runtime_checkable
class Finds(Protocol):
    """Looks whether a post of unknown outcome is there."""

    async def find(self, sought: Sought) -> Receipt | Pending | Absence: ...


@runtime_checkable
class Checks(Protocol):
    """Looks whether a post that was live is still there: `NOT_THERE` only on the platform's word.

    Trouble of any kind raises, or is `CANNOT_TELL`.
    """

    async def check(self, receipt: Receipt) -> Presence | Absence: ...


@runtime_checkable
class Deletes(Protocol):
    """Takes a post down; a post that is already gone is no error."""

    async def delete(self, receipt: Receipt) -> None: ...


@runtime_checkable
class Refreshes(Protocol):
    """Renews the access token."""

    async def refresh(self) -> Tokens: ...


@runtime_checkable
class Revokes(Protocol):
    """Ends the grant at the platform."""

    async def revoke(self) -> None: ...


@runtime_checkable
class ReportsQuota(Protocol):
    """Tells how much may still be sent today."""

    async def quota(self) -> Quota: ...


#: The word in a policy's `capabilities` for each protocol.
CAPABILITIES: dict[str, type] = {
    "whoami": Identifies,
    "sign_in": SignsIn,
    "prepare": Prepares,
    "publish": Publishes,
    "resume": Resumes,
    "find": Finds,
    "check": Checks,
    "delete": Deletes,
    "refresh": Refreshes,
    "revoke": Revokes,
    "quota": ReportsQuota,
}
