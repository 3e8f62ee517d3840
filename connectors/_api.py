"""The one door to a platform: sends a request and says in our classes what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard, assert_never
from urllib.parse import urlsplit

import httpx

from clickpost.budget import Reading
from clickpost.errors import (
    NotFound,
    NotReady,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
    UnexpectedResponse,
)
from clickpost.policy.shape import ErrorRule, Meaning, PlatformPolicy

#: One client for the process: it never retries, never follows a redirect with our token.
TIMEOUT = httpx.Timeout(connect=10, read=60, write=60, pool=30)
USER_AGENT = "ClickPost/0.1"


def client(**more: Any) -> httpx.AsyncClient:
    """Return a client with our timeouts; its transport retries nothing."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=40)
    return httpx.AsyncClient(
        timeout=TIMEOUT,
        follow_redirects=False,
        headers={"User-Agent": USER_AGENT},
        limits=limits,
        **more,
    )


@dataclass(frozen=True)
class Problem:
    """A platform's error answer, in its own codes."""

    status: int
    code: str | None = None
    subcode: str | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Reader = Callable[[httpx.Response], Problem]


def plain_problem(response: httpx.Response) -> Problem:
    """Read an answer of the shape `{"error": code, "message": sentence}`, or of none."""
    body = _mapping(response)
    error = body.get("error")
    return Problem(
        status=response.status_code,
        code=error if isinstance(error, str) else None,
        message=str(body.get("message") or body.get("error_description") or error or ""),
        headers=response.headers,
    )


def _mapping(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


@dataclass(frozen=True)
class Api:
    """Sends requests for one platform under its policy."""

    client: httpx.AsyncClient
    policy: PlatformPolicy
    heard: Callable[[Reading], None] | None = None
    """Gets what an answer's headers say of budgets; the connector itself keeps nothing."""

    async def send(
        self,
        method: str,
        url: str,
        *,
        step: str,
        repeatable: bool,
        read: Reader = plain_problem,
        accept: frozenset[int] = frozenset(),
        **request: Any,
    ) -> httpx.Response:
        """Send one request, once, and return its 2xx answer (or one of `accept`).

        `repeatable` is a claim about the platform: the same call twice does no harm. Where it is
        false, a lost or 5xx answer is `OutcomeUnknown`. Raises the classes of `clickpost.errors`.
        """
        call = f"{method} {_path_of(url)}"
        try:
            response = await self.client.request(method, url, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Transient(f"{call} never left ({type(error).__name__})") from None
        except _UNSENDABLE as error:
            raise UnexpectedResponse(f"{call} cannot be sent ({type(error).__name__})") from None
        except httpx.RequestError as error:  # A body that cannot be decoded is lost, too.
            raise _lost(call, type(error).__name__, repeatable=repeatable) from None
        if self.heard is not None and (reading := reading_of(response.headers)) is not None:
            self.heard(reading)
        if response.is_success or response.status_code in accept:
            return response
        raise self.error_of(call, read(response), step=step, repeatable=repeatable)

    def error_of(
        self, call: str, problem: Problem, *, step: str, repeatable: bool
    ) -> PlatformError:
        """Say in our classes what `problem` means, by the policy's rules."""
        rule = next((r for r in self.policy.errors.rules if matches(r, problem, step)), None)
        means = rule.means if rule else _usual(problem.status, repeatable=repeatable)
        code = "/".join(one for one in (problem.code, problem.subcode) if _is_code(one)) or None
        said = f"{call} answered {problem.status}" + (f" {code}" if code else "")
        told: dict[str, Any] = {
            "status": problem.status,
            "code": code,
            "detail": redacted(problem.message),
        }
        match means:
            case "rate_limited" | "quota":
                wait = retry_after(problem.headers)
                if wait is None and rule is not None and rule.retry_after is not None:
                    wait = rule.retry_after.total_seconds()
                fallback = 3600.0 if means == "quota" else 60.0
                wait = fallback if wait is None else wait
                return RateLimited(
                    said, retry_after=wait, per=rule.per if rule else "account", **told
                )
            case "transient":
                return Transient(said, **told)
            case "ambiguous":
                return Transient(said, **told) if repeatable else OutcomeUnknown(said, **told)
            case "expired":
                return TokenExpired(said, **told)
            case "revoked" | "scope" | "account":
                return Reauthorize(said, **told)
            case "rejected":
                return PlatformRejected(said, field=rule.field if rule else None, **told)
            case "missing":
                return NotFound(said, **told)
            case "prepare_again":
                return PrepareAgain(said, **told)
            case "not_ready":
                return NotReady(said, **told)
            case "developer":
                return UnexpectedResponse(said, **told)
            case never:
                assert_never(never)


#: The request itself is wrong: its address, or a character that no header or body can carry.
_UNSENDABLE = (
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    httpx.LocalProtocolError,
    UnicodeEncodeError,
)


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return "an address that is none"


def _lost(call: str, why: str, *, repeatable: bool) -> PlatformError:
    if repeatable:
        return Transient(f"{call} got no answer ({why})")
    return OutcomeUnknown(f"{call} got no answer ({why}); it may have happened")


def _is_code(code: str | None) -> TypeGuard[str]:
    """Say whether it is a code and no sentence, which may hold names and content."""
    return code is not None and re.fullmatch(r"[A-Za-z0-9_.:\-]{1,64}", code) is not None


_USUAL: dict[int, Meaning] = {
    400: "rejected",
    401: "revoked",
    403: "scope",
    404: "missing",
    408: "ambiguous",
    410: "missing",
    413: "rejected",
    422: "rejected",
    425: "transient",
    429: "rate_limited",
}


def _usual(status: int, *, repeatable: bool) -> Meaning:
    """Return what a status means where the policy says nothing.

    A redirect (we follow none) or a conflict may be the answer to what has just been done.
    """
    if status >= 500 or (not repeatable and (status < 400 or status == httpx.codes.CONFLICT)):
        return "ambiguous"
    return _USUAL.get(status, "developer")


def matches(rule: ErrorRule, problem: Problem, step: str) -> bool:
    """Say whether every key that `rule` gives fits `problem`."""
    return (
        (rule.status is None or rule.status == problem.status)
        and (rule.code is None or rule.code == problem.code)
        and (rule.subcode is None or rule.subcode == problem.subcode)
        and (rule.contains is None or rule.contains.lower() in problem.message.lower())
        and (rule.step is None or rule.step == step)
    )


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that the platform asks us to wait, None where it names no time.

    Understands `Retry-After` (seconds or HTTP date), `ratelimit-reset` (epoch or seconds),
    `x-ratelimit-reset` (epoch or ISO 8601, as Mastodon sends it) and `x-rate-limit-reset` (X).
    Never less than a second (a time that has passed is a clock that differs) and never more than
    a day (ask again then).
    """
    now = now or datetime.now(UTC)
    for name in ("retry-after", *(f"{prefix}reset" for prefix in _PREFIXES)):
        if value := headers.get(name):
            seconds = _seconds_until(value.strip(), now)
            if seconds is not None:
                return min(max(seconds, 1.0), _DAY)
    return None


def reading_of(headers: Mapping[str, str], now: datetime | None = None) -> Reading | None:
    """Return what `ratelimit-*` headers (also `x-…`) say is left; None where they do not.

    The window is known where `ratelimit-policy` names it, as in `3000;w=300`.
    """
    now = now or datetime.now(UTC)
    for prefix in _PREFIXES:
        left, reset = headers.get(f"{prefix}remaining", ""), headers.get(f"{prefix}reset", "")
        seconds = _seconds_until(reset.strip(), now)
        if not _COUNT.fullmatch(left.strip()) or seconds is None or not 0 <= seconds <= _DAY:
            continue
        total = headers.get(f"{prefix}limit", "").strip()
        window = re.search(r";\s*w=([0-9]{1,9})", headers.get(f"{prefix}policy", ""))
        return Reading(
            left=int(left),
            resets_at=now + timedelta(seconds=seconds),
            seen_at=now,
            total=int(total) if _COUNT.fullmatch(total) else None,
            window=timedelta(seconds=int(window[1])) if window else None,
        )
    return None


#: How platforms' headers about limits begin; X writes two hyphens.
_PREFIXES = ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
_COUNT = re.compile(r"[0-9]{1,9}")
_DAY = 86_400.0


def _seconds_until(value: str, now: datetime) -> float | None:
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]+)?", value):
        number = float(value)
        epoch = number / 1000 if number > 10**11 else number  # Some count milliseconds.
        return epoch - now.timestamp() if number > 10**9 else number
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(value)
        except (ValueError, OverflowError):
            continue
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - now).total_seconds()
    return None


_HIDDEN = re.compile(
    r"""(?x)
    [\w.+-]+@[\w-]+(\.[\w-]+)+        # e-mail addresses and fediverse handles
    | @[\w.-]+                        # handles
    | (?:https?|at)://\S+             # addresses, which may hold handles and signatures
    | did:\w+:[\w.:%-]+
    | (?:[\w-]+\.)+(?:app|at|ch|club|co|com|de|dev|eu|fr|io|it|me|net|nl|org|social|tv|uk|xyz)\b
      (?![.\w-])(?:/\S*)?             # hosts, which are handles on some platforms
    | \b\d{1,3}(?:\.\d{1,3}){3}\b
    | \b[a-z0-9]{4}(?:-[a-z0-9]{4}){3}\b            # app passwords
    | "[^"]{12,}(?:"|$) | “[^”]{12,}(?:”|$) | «[^»]{12,}(?:»|$) | `[^`]{12,}(?:`|$)
    | (?<!\w)'(?:[^']|(?<=\w)'(?=\w)){12,}(?:'|$)    # an apostrophe is no quote
    | [A-Za-z0-9_\-./+=|~]{28,}       # what looks like a token
    """
)
_LONGEST = 2_000


def redacted(message: str) -> str | None:
    """Return the platform's sentence without addresses, handles, quotations and tokens."""
    if len(message) > _LONGEST:  # The last word may be a piece of something to hide.
        message = message[:_LONGEST].rpartition(" ")[0]
    return _HIDDEN.sub("[…]", message)[:300] or None


class Answer(dict[str, Any]):
    """A JSON object, and the HTTP status with which it, or what it was cut from, came."""

    def __init__(self, body: Mapping[str, Any], status: int | None) -> None:
        super().__init__(body)
        self.status = status


def http_status_of(body: Mapping[str, Any]) -> int | None:
    """Return the HTTP status with which `body` came, None where nobody kept it."""
    return body.status if isinstance(body, Answer) else None


def json_of(response: httpx.Response, *, repeatable: bool) -> Answer:
    """Return the JSON object of a 2xx answer.

    A broken answer to a call that must not run twice is `OutcomeUnknown`: it may have happened.
    """
    call = f"{response.request.method} {response.request.url.path}"
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        return Answer(body, response.status_code)
    if repeatable:
        raise UnexpectedResponse(f"{call} answered no JSON object", status=response.status_code)
    raise OutcomeUnknown(f"{call} answered no JSON object", status=response.status_code)


def text_at(body: Mapping[str, Any], *path: str, call: str, repeatable: bool = True) -> str:
    """Return the string (or number, as string) at `path`; raise where the platform left it out."""
    value: Any = body
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
        return str(value)
    place = ".".join(path)
    if repeatable:
        raise UnexpectedResponse(f"{call} answered without {place}", status=http_status_of(body))
    raise OutcomeUnknown(f"{call} answered without {place}", status=http_status_of(body))


def same_house(url: str, *bases: str) -> bool:
    """Say whether `url` points at the host of one of `bases`: our token goes nowhere else."""
    house = _house_of(url)
    return house is not None and house in {_house_of(base) for base in bases}


_PORTS = {"http": 80, "https": 443}


def _house_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port; None for what two parsers might read in two ways."""
    if re.search(r"[\s\\\x00-\x20\x7f]", url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port
