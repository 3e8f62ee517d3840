"""Decides what a set of retention policies will touch, day by day, from counts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from clickpost.policy.privacy import Retention

#: Rows that came in within this span stand for those that will come in each such span.
RECENT = timedelta(days=28)
#: Where the first run's rows stand, beside the months.
AT_ONCE = "at once"


@dataclass(frozen=True)
class Bucket:
    """So many rows of a table expire under a policy on one day; `why` is the purpose that binds.

    What has expired already falls on the first day. `stays`: a hold or a reference keeps them.
    `recent`: they came in within the last span of `RECENT`.
    """

    policy: str
    table: str
    day: date
    why: str
    stays: bool
    recent: bool
    number: int


@dataclass
class Course:
    """What one policy does to one table: rows by day, from those there are and those to come."""

    policy: Retention
    table: str
    there: Counter[date] = field(default_factory=Counter)
    expected: Counter[date] = field(default_factory=Counter)
    """Rows that are not there yet, as many as came in lately."""
    binding: Counter[str] = field(default_factory=Counter)
    """By the purpose that keeps them longest."""
    kept: int = 0
    """They expire, and a hold or something that refers to them keeps them."""

    @property
    def verb(self) -> str:
        """What happens to the rows."""
        return "anonymized" if self.policy.then == "anonymize" else "deleted"

    def by_day(self) -> dict[date, int]:
        """Return all rows by day."""
        return dict(sorted((self.there + self.expected).items()))

    def by_month(self) -> dict[str, int]:
        """Return all rows by month, `2026-11`; the first run's are in the first one."""
        found: Counter[str] = Counter()
        for day, number in self.by_day().items():
            found[month_of(day)] += number
        return dict(sorted(found.items()))


def month_of(day: date) -> str:
    """Return the month of a day as tables name it, `2026-11`."""
    return f"{day:%Y-%m}"


@dataclass
class Forecast:
    """What a folder of policies does from `first` on, for so many days."""

    first: date
    days: int
    courses: list[Course]
    sizes: Mapping[str, int]
    missing: tuple[str, ...] = ()
    """Further databases of which nothing could be counted, and why."""

    def spike(self, course: Course) -> int:
        """Return what has expired already: the first run's share."""
        return course.there[self.first]

    def months(self) -> list[str]:
        """Return all months from the first day to the last."""
        last = self.first + timedelta(days=self.days)
        days = (self.first + timedelta(days=one) for one in range((last - self.first).days + 1))
        return list(dict.fromkeys(month_of(day) for day in days))

    def by_table(self) -> dict[tuple[str, str], Counter[str]]:
        """Return rows by table and what becomes of them, each by month, of all policies together.

        What has expired already stands under `AT_ONCE`, and in no month.
        """
        found: dict[tuple[str, str], Counter[str]] = {}
        for course in self.courses:
            rows = Counter(course.by_month())
            if at_once := self.spike(course):
                rows -= Counter({month_of(self.first): at_once})
                rows[AT_ONCE] = at_once
            found.setdefault((course.table, course.verb), Counter()).update(rows)
        return found

    def stopped(self, course: Course) -> str | None:
        """Say why the limit of its policy would stop the first run; None where it would not."""
        policy, found = course.policy, self.spike(course)
        if course.table != policy.data or not found:
            return None
        total = self.sizes[course.table]
        if found > policy.limit.rows:
            return f"limit.rows is {policy.limit.rows}"
        if found > policy.limit.share * total:
            return f"limit.share is {policy.limit.share:.0%}, and this is {found / total:.0%}"
        return None


def forecast(
    policies: Iterable[Retention],
    buckets: Iterable[Bucket],
    sizes: Mapping[str, int],
    first: date,
    days: int,
) -> Forecast:
    """Put counts together; what came in lately is expected to come in again, span after span."""
    by_name = {one.name: one for one in policies}
    courses: dict[tuple[str, str], Course] = {
        (one.name, one.data): Course(one, one.data) for one in by_name.values()
    }
    last = first + timedelta(days=days)
    for one in buckets:
        key = (one.policy, one.table)
        course = courses.setdefault(key, Course(by_name[one.policy], one.table))
        if one.stays:
            course.kept += one.number
            continue
        course.there[one.day] += one.number
        course.binding[one.why] += one.number
        if one.recent:
            for day in _again(one.day, last):
                course.expected[day] += one.number
    return Forecast(first, days, sorted(courses.values(), key=_order), sizes)


def _again(day: date, last: date) -> Iterable[date]:
    day += RECENT
    while day <= last:
        yield day
        day += RECENT


def _order(course: Course) -> tuple[str, bool, str]:
    return course.policy.name, course.table != course.policy.data, course.table


@dataclass(frozen=True)
class Difference:
    """What one policy does to one table, before and after a change; None: it is not there."""

    policy: str
    table: str
    before: Course | None
    after: Course | None


def differences(before: Forecast | None, after: Forecast) -> list[Difference]:
    """Pair the courses of two forecasts, in the order of their names."""
    old = {(one.policy.name, one.table): one for one in (before.courses if before else [])}
    new = {(one.policy.name, one.table): one for one in after.courses}
    keys = sorted({*old, *new}, key=lambda key: _order(new[key] if key in new else old[key]))
    return [Difference(*key, old.get(key), new.get(key)) for key in keys]
