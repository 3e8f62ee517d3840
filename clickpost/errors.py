"""All errors of ClickPost on one page; the class says who acts next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Who of us a platform or a budget means: an account, all of its app, or all at our address.
Whose = Literal["account", "app", "address"]


class ClickPostError(Exception):
    """The root of what ClickPost raises on purpose.

    Messages never hold content, tokens, names or addresses: they are stored.
    """

    #: Who has to act next, in the words that reports and tables use.
    who_acts: str = "a developer"


class PolicyError(ClickPostError):
    """A policy file is wrong, or code and policy disagree."""

    who_acts = "the policy's author"


@dataclass(frozen=True)
class Fault:
    """One broken rule: which field, what the rule allows, what was found."""

    field: str
    limit: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: allowed {self.limit}, found {self.found}"


class ContentRejected(ClickPostError):
    """The content breaks a rule of the platform; `faults` names each."""

    who_acts = "the writer"

    def __init__(self, subject: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(subject, faults)
        self.subject = subject
        self.faults = faults

    def __str__(self) -> str:
        if not self.faults:
            return self.subject
        return f"{self.subject}: " + "; ".join(str(fault) for fault in self.faults)


class GuardTripped(ClickPostError):
    """A run would touch more than its policy allows."""

    who_acts = "an operator"


class Unavailable(ClickPostError):
    """A part of our own house is missing, taken or broken; the message says what to do."""

    who_acts = "an operator"


class Restored(Unavailable):
    """The database is a restored one, and what was erased since its backup is in it again."""

    def __init__(self) -> None:
        super().__init__(
            "the database was restored from a backup: people who were erased since may be in it"
            " again. Nothing is published or served until that is done anew. Run: clickpost replay"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()


class InvalidInput(ClickPostError):
    """What somebody typed or wrote in a file is wrong; the message names the place."""

    who_acts = "whoever gave the input"


class AnotherAccount(InvalidInput):
    """A connection's new grant is that of another account than its own."""

    def __init__(self, ref: str, expected: str, found: str) -> None:
        super().__init__(ref, expected, found)
        self.expected, self.found = expected, found
        self.ref = ref

    def __str__(self) -> str:
        return (
            f"{self.ref} is {self.expected}, and this is the grant of {self.found}:"
            " give that one a name of its own (--name)"
        )


class NotAllowed(ClickPostError):
    """Whoever acts may not do this, or did not prove who they are."""

    who_acts = "whoever administers ClickPost"


class Refused(ClickPostError):
    """We were asked to call an address that nobody allowed us to call."""

    who_acts = "an operator"


class Conflict(ClickPostError):
    """A row is not in the state that the change asked for; somebody else was faster."""

    who_acts = "nobody"


class PlatformError(ClickPostError):
    """What a platform answered: `message` says method, path and status.

    `detail` is the platform's own sentence, redacted; it goes into the attempt's row in our
    database, never into `str(error)`, which Prefect may store.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        detail: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))

    def __str__(self) -> str:
        return self.message


def _rebuild(kind: type[PlatformError], message: str, state: dict[str, object]) -> PlatformError:
    error = kind.__new__(kind)
    error.args = (message,)
    error.__dict__.update(state)
    return error


class Transient(PlatformError):
    """Nothing happened; the call may be made again."""

    who_acts = "nobody"


class RateLimited(PlatformError):
    """We are too fast; again after `retry_after` seconds.

    `per` says who of us: the account, or everybody of its app or our address.
    """

    who_acts = "nobody"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        per: Whose = "account",
        status: int | None = None,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, detail=detail)
        self.retry_after = retry_after
        self.per = per


class OutcomeUnknown(PlatformError):
    """It may have happened; look first, never send again blindly."""

    who_acts = "nobody yet"


class TokenExpired(PlatformError):
    """The access token ran out and nothing happened; refresh it once, then call again."""

    who_acts = "nobody"


class Reauthorize(PlatformError):
    """The grant is gone or too narrow."""

    who_acts = "the account's owner"


class PlatformRejected(PlatformError):
    """The platform itself refused the content, in its own words."""

    who_acts = "the writer"


class PrepareAgain(PlatformError):
    """An upload or reservation is gone; nothing was published, prepare it anew."""

    who_acts = "nobody"


class NotReady(PlatformError):
    """The platform still works on what was prepared; nothing was published."""

    who_acts = "nobody"


class NotFound(PlatformError):
    """The thing asked for is not there (or no longer)."""

    who_acts = "nobody"


class UnexpectedResponse(PlatformError):
    """The platform broke its own word."""

    who_acts = "a developer"
