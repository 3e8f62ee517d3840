"""People who act: their rights, their secrets and codes, and what the ledger calls them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from clickpost.errors import NotAllowed


class Right(StrEnum):
    """What somebody may do."""

    PUBLISH = "publish"
    """Bring posts in, change them, send them again."""
    CANCEL = "cancel"
    """Call off what is not sent, pause a series."""
    APPROVE = "approve"
    """Say that exactly this may be published."""
    SETTLE = "settle"
    """Answer what no look can tell: whether a post is there."""
    TAKEDOWN = "takedown"
    """Delete posts on platforms."""
    ERASE = "erase"
    """Delete or anonymize what is kept: purges, erasures."""
    HOLD = "hold"
    """Say that something has to stay, and end that."""
    SEE = "see"
    """Look at personal data."""
    SERVE = "serve"
    """Keep the books on customers: members, what they agreed to, pay for and ask."""
    CONNECT = "connect"
    """Say where things go and come from: accounts, channels that tell people, hooks."""
    CONFIGURE = "configure"
    """Say how much may be sent, and make Prefect agree with the policies."""
    MAINTAIN = "maintain"
    """Rotate keys; make backups, which hold all there is, and bring them back."""
    ADMINISTER = "administer"
    """Say who may do what, and where an approval is needed."""


@dataclass(frozen=True)
class Rules:
    """What each role may do, and what an author may not do with their own post."""

    roles: Mapping[str, frozenset[Right]]
    two_people: frozenset[Right]
    codes_last: timedelta

    def may(self, roles: Collection[str], right: Right) -> bool:
        """Say whether one of the roles has the right; one that nobody knows has none."""
        return any(right in self.roles.get(role, ()) for role in roles)

    def holders(self, right: Right) -> list[str]:
        """Return the roles that have a right."""
        return sorted(role for role, rights in self.roles.items() if right in rights)


#: Who acts where no person does: the engine, under its policies.
ENGINE = "engine"
_PERSON = "person:"
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
#: What people type for a letter that there is not.
_MEANT = str.maketrans({"o": "0", "i": "1", "l": "1", "-": None, " ": None})

#: So many wrong secrets, or codes, within this time, and even the right one is refused.
TRIES = 5
WITHIN = timedelta(minutes=15)


def actor_of(person_id: str) -> str:
    """Return what the ledger calls a person: an id, for names have to be erased some day."""
    return f"{_PERSON}{person_id}"


def person_of(actor: str) -> str | None:
    """Return the id of the person who acts, None where it is somebody else."""
    return actor.removeprefix(_PERSON) if actor.startswith(_PERSON) else None


def new_secret(person_id: str) -> str:
    """Return a new personal secret: whose it is, and 160 bits of chance."""
    return f"{person_id}-{_chance(32)}"


def owner_of(secret: str) -> str:
    """Return the id of the person whose secret it says to be; empty where it says none."""
    return secret.strip().partition("-")[0]


def hashed(secret: str) -> str:
    """Return what is kept of a secret; made slowly, so that nobody tries many."""
    # As OWASP's cheat sheet on passwords has it: 19 MiB, two passes, one lane.
    slow = Argon2id(salt=os.urandom(16), length=32, iterations=2, lanes=1, memory_cost=19 * 1024)
    return slow.derive_phc_encoded(secret.strip().encode())


def fits(secret: str, kept: str) -> bool:
    """Say whether a secret is the one of which `kept` was kept."""
    try:
        Argon2id.verify_phc_encoded(secret.strip().encode(), kept)
    except InvalidKey:
        return False
    return True


def new_code() -> str:
    """Return a code for one decision: 50 bits of chance, as people read and type it."""
    return f"{_chance(5)}-{_chance(5)}"


def digest(code: str, key: bytes) -> str:
    """Return what is kept of a code, whatever way somebody typed it."""
    plain = code.strip().lower().translate(_MEANT)
    return hmac.new(key, f"code:{plain}".encode(), hashlib.sha256).hexdigest()


def apart(actor: str, author: str | None) -> None:
    """Raise NotAllowed where whoever acts wrote the post themselves."""
    if author is not None and person_of(actor) == author:
        raise NotAllowed("you wrote this post yourself: somebody else has to approve it")


def _chance(letters: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(letters))
