"""Decides whether a budget has room, whose turn it is, and when there is room again; no row moves.

A pot is one budget of one holder: an account, an app, or the address that we call from. What we
took from it ourselves is counted; what the platform says of it corrects the count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import groupby
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from clickpost.errors import GuardTripped, Whose
from clickpost.policy.shape import Costs, PlatformPolicy

#: A quota that we asked for is taken to hold so long; then it is asked for again.
HOLDS = timedelta(minutes=15)
#: Who stands in line and could go, but has to let others go first, asks again after this.
ASK_AGAIN = timedelta(seconds=30)
#: An operator is told once the burst guard holds back more than this many.
A_FEW = 3
#: What a platform that says "too fast" stops: everything of the account.
ANYTHING = "anything"
#: What a budget of money counts: thousandths of a US dollar.
MONEY = "usd_mills"
#: Answers name whole seconds: a window may seem to end so much later than it does.
_SLACK = timedelta(seconds=5)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Holders:
    """Whose budgets a send takes from; keys of ours, which name no person."""

    account: str
    app: str
    address: str

    def of(self, per: Whose) -> str:
        """Return the holder that a policy's `per` means."""
        return {"account": self.account, "app": self.app, "address": self.address}[per]


def holders_of(
    platform: str, api_base: str, account_id: str, client_id: str | None = None
) -> Holders:
    """Return whose budgets an account takes from: its own, its app's, and our address's.

    The same account connected twice has one budget. Our workers count as one address, which is
    less than the platform permits where they have several.
    """
    host = urlsplit(api_base).netloc
    account = _digest(platform, host, account_id)
    app = _digest(platform, client_id) if client_id else "all"
    return Holders(
        account=f"account:{platform}:{account}",
        app=f"app:{platform}:{app}",
        address=f"address:{platform}:{host}",
    )


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Pot:
    """One budget of one holder: `total` in each `window`; `resets` is the zone of its midnight."""

    holder: str
    what: str
    total: int
    window: timedelta
    costs: Costs
    resets: str | None = None
    guard: bool = False

    @property
    def seconds(self) -> int:
        """Return the window's length in seconds, by which its row is known."""
        return int(self.window.total_seconds())


def pots_of(policy: PlatformPolicy, holders: Holders, burst: int | None = None) -> tuple[Pot, ...]:
    """Return the pots that an account takes from; `burst` is its own guard, in posts a window."""
    rules = tuple(
        Pot(holders.of(one.per), one.what, one.total, one.window, one.costs, one.resets)
        for one in policy.budget
    )
    most = policy.burst.posts if burst is None else burst
    guard = Pot(holders.account, "burst", most, policy.burst.window, Costs(post=1), guard=True)
    return (*rules, guard)


@dataclass(frozen=True)
class Spent:
    """What was taken from a pot, and when."""

    amount: int
    at: datetime


@dataclass(frozen=True)
class Told:
    """What the platform itself said is left, until when that holds, and when it said so."""

    left: int
    resets_at: datetime
    seen_at: datetime
    total: int | None = None


@dataclass(frozen=True)
class Reading:
    """What an answer's headers said of some budget; `window` where they name it."""

    left: int
    resets_at: datetime
    seen_at: datetime
    total: int | None = None
    window: timedelta | None = None


def pot_of(reading: Reading, pots: Sequence[Pot]) -> Pot | None:
    """Return the pot that an answer's headers speak of; None where that cannot be told.

    Headers name a total and seldom a window: the shortest one that fits is meant.
    """
    lasts = reading.resets_at - reading.seen_at - _SLACK
    fitting = [
        pot
        for pot in pots
        if not pot.guard
        and pot.total == reading.total
        and (reading.window is None or reading.window == pot.window)
        and lasts <= pot.window
    ]
    return min(fitting, key=lambda pot: pot.window, default=None)


def need_of(
    pot: Pot, *, posts: int = 0, linked: int = 0, uploads: int = 0, deletes: int = 0, looks: int = 0
) -> int:
    """Return what acts take from a pot; the burst guard counts a thread once.

    `linked` of the posts have an address in their text.
    """
    if pot.guard:
        return int(posts > 0)
    costs = pot.costs
    with_link = costs.post if costs.post_with_link is None else costs.post_with_link
    taken = (posts - linked) * costs.post + linked * with_link + uploads * costs.upload
    return taken + deletes * costs.delete + looks * costs.look


def total_of(pot: Pot, told: Told | None) -> int:
    """Return how much fits into the pot: what the platform says wins over the policy."""
    return pot.total if told is None or told.total is None else told.total


def used_of(pot: Pot, spent: Sequence[Spent], told: Told | None, now: datetime) -> int:
    """Return how much of the pot is used, by our own count or the platform's, if that is more."""
    ours = sum(one.amount for one in _current(pot, spent, now))
    if told is None or told.resets_at <= now:
        return ours
    return max(ours, total_of(pot, told) - _left(spent, told))


def free_at(
    pot: Pot, spent: Sequence[Spent], told: Told | None, need: int, now: datetime
) -> datetime:
    """Return when `need` fits into the pot: `now` where it does already.

    What would never fit is taken to need all of the pot: a thread of 30 under a limit of 25 goes
    once nothing else is used.
    """
    total = total_of(pot, told)
    need = min(need, max(total, 1))
    current = _current(pot, spent, now)
    over = sum(one.amount for one in current) + need - total
    moment = now if over <= 0 else _refilled(pot, current, over, now)
    if told is not None and told.resets_at > now and _left(spent, told) < need:
        moment = max(moment, told.resets_at)
    return moment


def _left(spent: Sequence[Spent], told: Told) -> int:
    return told.left - sum(one.amount for one in spent if one.at > told.seen_at)


def _current(pot: Pot, spent: Sequence[Spent], now: datetime) -> list[Spent]:
    if pot.resets is None:
        current = [one for one in spent if one.at > now - pot.window]
    else:
        current = [one for one in spent if one.at >= _midnight(pot.resets, now)]
    return sorted(current, key=lambda one: one.at)


def _refilled(pot: Pot, current: Sequence[Spent], over: int, now: datetime) -> datetime:
    if pot.resets is not None:
        return _midnight(pot.resets, now, days=1)
    for one in current:
        over -= one.amount
        if over <= 0:
            return one.at + pot.window
    return now + pot.window


def _midnight(zone: str, now: datetime, days: int = 0) -> datetime:
    day = now.astimezone(ZoneInfo(zone)).date() + timedelta(days=days)
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


@dataclass(frozen=True)
class Waiting:
    """One delivery in a holder's line, and how many posts it still has to send."""

    delivery_id: str
    workspace_id: str
    queued_at: datetime
    posts: int = 1


def in_order(line: Sequence[Waiting], served_at: Mapping[str, datetime]) -> list[Waiting]:
    """Return who goes first: workspaces take turns, and within each whoever waits longest.

    The workspace that was served longest ago (`served_at`) begins.
    """
    by_place = sorted(line, key=lambda one: (one.workspace_id, one.queued_at, one.delivery_id))
    turns = [
        (turn, served_at.get(one.workspace_id, _NEVER), one.queued_at, one.delivery_id, one)
        for _, own in groupby(by_place, key=lambda one: one.workspace_id)
        for turn, one in enumerate(own)
    ]
    return [turn[-1] for turn in sorted(turns, key=lambda turn: turn[:-1])]


def ahead_of(
    delivery_id: str, line: Sequence[Waiting], served_at: Mapping[str, datetime]
) -> list[Waiting]:
    """Return who goes before this delivery, which stands in the line itself."""
    order = in_order(line, served_at)
    place = next(n for n, one in enumerate(order) if one.delivery_id == delivery_id)
    return order[:place]


@dataclass(frozen=True)
class Ask:
    """What a delivery needs of one pot, what its line needs before it, and how the pot stands."""

    pot: Pot
    need: int
    ahead: int = 0
    spent: tuple[Spent, ...] = ()
    told: Told | None = None


@dataclass(frozen=True)
class Short:
    """There is no budget: again at `until`, in `holder`'s line."""

    holder: str
    until: datetime
    reason: str
    guard: bool = False

    def wait(self, now: datetime) -> float:
        """Return the seconds from `now` until then, at least one."""
        return max((self.until - now).total_seconds(), 1.0)


def decide(asks: Sequence[Ask], now: datetime) -> Short | None:
    """Return which pot has no room, the one that takes longest; None where all have it."""
    short = [one for ask in asks if ask.need and (one := _short(ask, now)) is not None]
    return max(short, key=lambda one: one.until, default=None)


def _short(ask: Ask, now: datetime) -> Short | None:
    pot = ask.pot
    until = free_at(pot, ask.spent, ask.told, ask.ahead + ask.need, now)
    # A whole line that needs more than the pot ever holds is no reason to let its last go first.
    too_many = ask.ahead > 0 and ask.ahead + ask.need > total_of(pot, ask.told)
    if until <= now and not too_many:
        return None
    until = max(until, now + ASK_AGAIN) if too_many else until
    used = used_of(pot, ask.spent, ask.told, now)
    return Short(pot.holder, until, reason_of(pot, used, until), pot.guard)


def reason_of(pot: Pot, used: int, until: datetime) -> str:
    """Say why a delivery waits, e.g. `no budget: 300 posts in 3 h are used; next at 14:05 UTC`."""
    next_at = f"next at {clock(until)}"
    if pot.guard:
        return f"burst guard: {used} posts in {span(pot.window)} were sent; {next_at}"
    when = "a day" if pot.resets else f"in {span(pot.window)}"
    many = f"${used / 1000:.2f}" if pot.what == MONEY else f"{used} {pot.what}"
    return f"no budget: {many} {when} are used; {next_at}"


def guarded(reason: str, waiting: int) -> tuple[str, str]:
    """Return what a delivery's row says while the burst guard holds it back, and who acts.

    A few waiting are what it is for; more than that were hardly meant, and an operator looks.
    """
    if waiting <= A_FEW:
        return reason, "nobody"
    said = (
        f"{reason}; {waiting} wait: cancel them, or allow more with `clickpost connections burst`"
    )
    return said, GuardTripped.who_acts


def clock(moment: datetime) -> str:
    """Return a moment as reasons name it, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def span(length: timedelta) -> str:
    """Return a span in the largest unit that fits, e.g. `3 h`."""
    seconds = int(length.total_seconds())
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@dataclass(frozen=True)
class Standing:
    """How a pot stands: `full_at` is when something of it is free again, None while all is."""

    pot: Pot
    used: int
    total: int
    full_at: datetime | None

    @property
    def share(self) -> float:
        """Return which share is used, 0 to 1 and above."""
        return self.used / self.total if self.total else 1.0


def standing(pot: Pot, spent: Sequence[Spent], told: Told | None, now: datetime) -> Standing:
    """Return how a pot stands now; it is full again once all of it would fit."""
    used, total = used_of(pot, spent, told, now), total_of(pot, told)
    full = free_at(pot, spent, told, max(total, 1), now)
    return Standing(pot, used, total, full if used else None)


def tightest(standings: Sequence[Standing]) -> list[Standing]:
    """Return the pots, the one that ends first in front: most of it used, then least in it."""
    return sorted(standings, key=lambda one: (-one.share, one.total))


def said(standing: Standing) -> str:
    """Say how a pot stands, e.g. `12 of 300 posts in 3 h, free again at 2026-11-24 14:05 UTC`."""
    pot = standing.pot
    what = "posts (burst guard)" if pot.guard else pot.what
    when = "a day" if pot.resets else f"in {span(pot.window)}"
    whose = "" if pot.guard or pot.holder.startswith("account:") else f" of the {whose_of(pot)}"
    free = f", free again at {clock(standing.full_at)}" if standing.full_at else ""
    if pot.what == MONEY:
        used, total = standing.used / 1000, standing.total / 1000
        return f"${used:.2f} of ${total:.2f}{whose} {when}{free}"
    return f"{standing.used} of {standing.total} {what}{whose} {when}{free}"


def whose_of(pot: Pot) -> str:
    """Return who shares a pot, in the policy's word: account, app or address."""
    return pot.holder.partition(":")[0]
