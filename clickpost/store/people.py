"""People who act: declared, proven by a secret or a code, and refused what is not theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, text, update
from sqlmodel import col, select

from clickpost import ids, people
from clickpost.errors import InvalidInput, NotAllowed
from clickpost.people import Right, Rules, actor_of, person_of
from clickpost.store._base import Base, append, now
from clickpost.store.tables import LedgerLine, Person, Post, SignOff

#: Who declares people takes turns, so that the house never is without an administrator.
_DECLARING = 7_203_451_121
_WRONG = "wrong"
_ASK = "ask whoever administers ClickPost (clickpost people list)"


@dataclass(frozen=True)
class Named:
    """A person and the secret that they get once, and nobody can read again."""

    person_id: str
    secret: str


class People(Base):
    """People. While nobody is declared, whoever reaches the house may do everything."""

    async def anybody(self) -> bool:
        """Say whether people are declared, so that rights count."""
        async with self.session() as session:
            return await _anybody(session)

    async def people(self) -> list[Person]:
        """Return who is declared, first to last."""
        async with self.session() as session:
            query = select(Person).where(col(Person.left_at).is_(None)).order_by(Person.id)
            return list((await session.scalars(query)).all())

    async def names(self) -> dict[str, str]:
        """Return the names of all people by what the ledger calls them, of former ones too."""
        async with self.session() as session:
            rows = (await session.scalars(select(Person))).all()
        return {actor_of(row.id): row.name for row in rows if row.name}

    async def require(self, actor: str, right: Right) -> None:
        """Raise NotAllowed unless `actor` has the right now."""
        async with self.transaction() as session:
            await permit(session, self.rules, actor, right)

    async def add_person(self, name: str, given: Sequence[str], actor: str) -> Named:
        """Declare a person; the first one has to be an administrator.

        Raises InvalidInput for a name that is taken and for roles that nobody knows.
        """
        chosen = self._known(given)
        person_id = ids.new("psn")
        secret = people.new_secret(person_id)
        row = Person(
            id=person_id,
            name=_name(name),
            roles=chosen,
            secret=people.hashed(secret),
            created_at=now(),
        )
        async with self.transaction() as session:
            await self._declaring(session, actor)
            if await session.scalar(select(Person.id).where(Person.name == row.name)):
                raise InvalidInput("there is a person of this name already; choose another")
            session.add(row)
            await session.flush()
            await self._administered(session)
            await append(session, "person.added", person_id, {"roles": chosen}, actor)
        return Named(person_id, secret)

    async def set_roles(self, name: str, given: Sequence[str], actor: str) -> None:
        """Give a person other roles; raise InvalidInput where nobody would administer."""
        chosen = self._known(given)
        async with self.transaction() as session:
            await self._declaring(session, actor)
            row = await _of_name(session, name)
            row.roles = chosen
            await session.flush()
            await self._administered(session)
            await append(session, "person.roles", row.id, {"roles": chosen}, actor)

    async def new_secret(self, name: str, actor: str) -> Named:
        """Give a person a new secret; the former one and all their codes are worth nothing.

        An administrator may, and everybody for themselves.
        """
        async with self.transaction() as session:
            row = await _of_name(session, name)
            if person_of(actor) != row.id:
                await permit(session, self.rules, actor, Right.ADMINISTER)
            secret = people.new_secret(row.id)
            row.secret = people.hashed(secret)
            await _void(session, row.id)
            await session.flush()
            await append(session, "person.secret", row.id, {}, actor)
        return Named(row.id, secret)

    async def remove_person(self, name: str, actor: str) -> None:
        """Take all rights from a person who leaves; the retention policy says when the name goes.

        Raises InvalidInput where others stay and nobody of them administers.
        """
        async with self.transaction() as session:
            await self._declaring(session, actor)
            row = await _of_name(session, name)
            row.left_at, row.secret = now(), ""
            await _void(session, row.id)
            await session.flush()
            await self._administered(session)
            await append(session, "person.left", row.id, {}, actor)

    async def prove(self, secret: str) -> Person:
        """Return whose secret this is; raise NotAllowed where it is nobody's.

        After some wrong ones for a person even the right one is refused for a while.
        """
        async with self.transaction() as session:
            row: Person | None = await session.scalar(
                select(Person)
                .where(Person.id == people.owner_of(secret), col(Person.left_at).is_(None))
                .with_for_update()  # One guess at a time.
            )
            if row is None:
                people.fits(secret, people.hashed(""))  # As slow as where there is one.
                raise NotAllowed("this secret is nobody's here")
            if await _wrongs(session, row.id) >= people.TRIES:
                raise NotAllowed(_too_many("secrets"))
            if people.fits(secret, row.secret):
                return row
            await append(session, "person.refused", row.id, {"why": _WRONG})
        raise NotAllowed("this secret is not, or no longer, the right one")

    async def new_code(self, actor: str, right: Right, about: str, post_id: str) -> str:
        """Return a code with which a person signs off one decision in the Prefect UI.

        It is good once, for a short time, for this decision. Raises NotAllowed for who may not
        decide it, and InvalidInput where no person is declared.
        """
        person_id = person_of(actor)
        if person_id is None:
            raise InvalidInput("no person is declared: the form in the UI asks for no code")
        code, key = people.new_code(), self.vault.derived("sign-off")
        async with self.transaction() as session:
            await permit(session, self.rules, actor, right)
            if right in self.rules.two_people:
                await apart(session, self.rules, actor, post_id)
            session.add(
                SignOff(
                    id=ids.new("sign"),
                    person_id=person_id,
                    may=right.value,
                    about=about,
                    digest=people.digest(code, key),
                    made_at=now(),
                    expires_at=now() + self.rules.codes_last,
                )
            )
            await session.flush()
            facts = {"right": right.value, "post": post_id}
            await append(session, "code.made", person_id, facts, actor)
        return code

    async def sign_off(self, code: str, right: Right, about: str, run_id: str) -> str:
        """Return who signs off `about` with this code; a second use, by another run, is none.

        Raises NotAllowed for a code that is wrong, used, too old or for something else; after
        some of those any code is refused for a while. Each refusal counts in `refusals`.
        """
        wanted = people.digest(code, self.vault.derived("sign-off"))
        async with self.transaction() as session:
            key = {"key": f"sign-off:{about}"}
            await session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), key)
            if await _wrongs(session, about) >= people.TRIES:
                await append(session, "code.refused", about, {"why": "too many"})
                why = _too_many("codes")
            else:
                change = (
                    update(SignOff)
                    .where(
                        col(SignOff.digest) == wanted,
                        col(SignOff.may) == right.value,
                        col(SignOff.about) == about,
                        # What ran off with it before it was killed may come again.
                        or_(col(SignOff.used_at).is_(None), col(SignOff.run_id) == run_id),
                        or_(col(SignOff.expires_at) > now(), col(SignOff.run_id) == run_id),
                    )
                    .values(used_at=now(), run_id=run_id)
                    .returning(col(SignOff.person_id))
                )
                if person_id := await session.scalar(change):
                    return actor_of(person_id)
                await append(session, "code.refused", about, {"why": _WRONG})
                why = "this code is wrong, used, too old, or for something else"
        raise NotAllowed(why)

    async def refusals(self, about: str) -> int:
        """Return how many codes were refused for this decision."""
        async with self.session() as session:
            query = select(func.count()).select_from(LedgerLine)
            return int(await session.scalar(query.where(*_refused(about))) or 0)

    def _known(self, given: Sequence[str]) -> list[str]:
        chosen, known = sorted(set(given)), self.rules.roles
        if unknown := [one for one in chosen if one not in known]:
            raise InvalidInput(f"unknown role {unknown[0]!r} (known: {', '.join(sorted(known))})")
        if not chosen:
            raise InvalidInput(f"--role: name at least one of {', '.join(sorted(known))}")
        return chosen

    async def _declaring(self, session: Any, actor: str) -> None:
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _DECLARING})
        await permit(session, self.rules, actor, Right.ADMINISTER)

    async def _administered(self, session: Any) -> None:
        rows = (await session.scalars(select(Person).where(col(Person.left_at).is_(None)))).all()
        if rows and not any(self.rules.may(row.roles, Right.ADMINISTER) for row in rows):
            holders = " or ".join(self.rules.holders(Right.ADMINISTER))
            raise InvalidInput(f"somebody has to be {holders}, else nobody could name people")


async def permit(session: Any, rules: Rules, actor: str, right: Right) -> None:
    """Within the transaction of an act: raise NotAllowed unless `actor` has the right.

    Whose right it is cannot be taken before the act is committed. The engine acts under its
    policies; while nobody is declared, everybody may do everything.
    """
    if actor == people.ENGINE or not await _anybody(session):
        return
    person_id = person_of(actor)
    if person_id is None:
        raise NotAllowed(
            "people are declared here: prove who you are with your personal secret"
            " (CLICKPOST_PERSON_SECRET_FILE, or type it when asked)"
        )
    query = select(Person).where(Person.id == person_id, col(Person.left_at).is_(None))
    row = await session.scalar(query.with_for_update(read=True))
    if row is None:
        raise NotAllowed(f"you are not declared any more; {_ASK}")
    if not rules.may(row.roles, right):
        raise NotAllowed(
            f"you may not {right.value}: {_takes(rules, right)}, and you have"
            f" {', '.join(row.roles)}; {_ASK}"
        )


def _takes(rules: Rules, right: Right) -> str:
    if holders := rules.holders(right):
        return f"that takes the role {' or '.join(holders)}"
    return "no role of policies/roles/clickpost.yaml has that right"


async def apart(session: Any, rules: Rules, actor: str, post_id: str) -> None:
    """Within a transaction: raise NotAllowed where the policy asks for two people and here is one.

    What nobody is known to have written, as before people were declared, anybody may decide.
    """
    if Right.APPROVE in rules.two_people:
        author = await session.scalar(select(Post.author).where(Post.id == post_id))
        people.apart(actor, author)


async def _anybody(session: Any) -> bool:
    query = select(Person.id).where(col(Person.left_at).is_(None)).limit(1)
    return await session.scalar(query) is not None


async def _of_name(session: Any, name: str) -> Person:
    query = select(Person).where(Person.name == name, col(Person.left_at).is_(None))
    row: Person | None = await session.scalar(query.with_for_update())
    if row is None:
        raise InvalidInput("there is nobody of this name; see: clickpost people list")
    return row


async def _void(session: Any, person_id: str) -> None:
    """Make a person's codes worthless."""
    unused = (col(SignOff.person_id) == person_id, col(SignOff.used_at).is_(None))
    await session.execute(update(SignOff).where(*unused).values(expires_at=now()))


def _refused(subject: str) -> tuple[Any, ...]:
    actions = ("person.refused", "code.refused")
    return col(LedgerLine.subject) == subject, col(LedgerLine.action).in_(actions)


async def _wrongs(session: Any, subject: str) -> int:
    """Return how many wrong secrets or codes were tried lately."""
    since: datetime = now() - people.WITHIN
    lately = (col(LedgerLine.at) > since, LedgerLine.facts["why"].astext == _WRONG)
    query = select(func.count()).select_from(LedgerLine).where(*_refused(subject), *lately)
    return int(await session.scalar(query) or 0)


def _too_many(what: str) -> str:
    minutes = int(people.WITHIN.total_seconds() // 60)
    return f"too many wrong {what}: wait {minutes} minutes, then try again"


def _name(name: str) -> str:
    if not name.strip() or len(name) > 100:
        raise InvalidInput("a name of 1 to 100 characters")
    return name.strip()
