"""What changes something takes a right, or the page of rights says why it takes none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
import typer.main
from prefect.utilities.callables import parameter_schema
from sqlalchemy import text

from cli.main import app
from clickpost import people
from clickpost.people import ENGINE, Right
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewChannel, Store
from deployments.registry import DEPLOYMENTS
from flows.approve import CodedDecision
from flows.asking import CodedLate, CodedOutcome, CodedRest
from tests.store.test_people import begin_series, doubtful, posted, waiting
from tests.store.test_people_commands import Desk

PAGE = (PROJECT / "docs" / "reference" / "rights.md").read_text()
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.M | re.S)
_ROW = re.compile(r"^\| `([a-z- ]+)` \| (.+) \|$", re.M)
SECTIONS = {title: dict(_ROW.findall(body)) for title, body in _SECTION.findall(PAGE)}
WITH_RIGHT = {
    one: Right(right.strip("`")) for one, right in SECTIONS["Commands that take a right"].items()
}
FREE = SECTIONS["Commands that take none"]
CODED = SECTIONS["Forms that ask for a code"]
UNCODED = SECTIONS["Forms that ask for none"]
#: Forms that are put while a run waits, not when it is started.
ASKING = {"approve": [CodedDecision], "ask-operator": [CodedOutcome, CodedLate, CodedRest]}


def commands(here: click.Command, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the commands that can be run, e.g. `posts show`."""
    subs: dict[str, click.Command] = getattr(here, "commands", {})
    if words and (not subs or getattr(here, "invoke_without_command", False)):
        yield " ".join(words)
    for name, sub in subs.items():
        yield from commands(sub, (*words, name))


ALL = sorted(commands(typer.main.get_command(app)))


def test_every_command_takes_a_right_or_the_page_says_why_not() -> None:
    assert len(ALL) > 90
    assert sorted([*WITH_RIGHT, *FREE]) == ALL


def test_every_form_asks_for_a_code_or_the_page_says_why_not() -> None:
    forms = {one.flow.name: parameter_schema(one.flow).model_dump_json() for one in DEPLOYMENTS}
    assert sorted([*CODED, *UNCODED]) == sorted(forms)
    for name, schema in forms.items():
        asks = '"code":' in schema or name in ASKING
        assert asks == (name in CODED), name
    for one in (form for put in ASKING.values() for form in put):
        assert "code" in one.model_json_schema()["required"]


def test_every_right_is_explained_as_the_code_explains_it() -> None:
    known = {one.value for one in Right}
    source = Path(people.__file__).read_text()
    said = dict(re.findall(r'    [A-Z]+ = "([a-z]+)"\n    """(.+?)"""', source))
    assert said.keys() == known
    explained = dict(_ROW.findall(PAGE.partition("\n## ")[0]))
    assert explained == said
    assert set(WITH_RIGHT.values()) == set(Right)


POLICY = "kind: roles\nname: clickpost\ncodes_last: 10 min\nroles:\n" + "\n".join(
    f"  all-but-{one.value}:\n    title: All but one.\n"
    f"    may: [{', '.join(other.value for other in Right if other is not one)}]"
    for one in Right
)


async def filled(store: Store, desk: Desk, tmp_path: Path) -> dict[str, str]:
    """Make one thing of each kind, while nobody is declared; return their ids."""
    workspace = await store.workspace_id()
    post, unknown = await posted(store), await doubtful(store)
    await begin_series(store, ENGINE)
    (series,) = await store.all_series()
    draft = tmp_path / "post.yaml"
    draft.write_text("text: other\nto: [bluesky/studio]\n")
    await store.add_channel(workspace, NewChannel("ops", "webhook", {"url": "https://x.example"}))
    await store.add_hook(workspace, "shop", "secret")
    member = await store.add_member(workspace, "ann@example.org", "Ann", "owner", ENGINE)
    consent = await store.give_consent(member.id, "news", "v1", ENGINE)
    paid = await store.subscribe(workspace, "studio", None, ENGINE)
    ticket = await desk.json(
        "workspaces", "ticket", "open", "Help", "please", "--member", member.id
    )
    await desk.ran("privacy", "request", "erasure", "--address", "ann@example.org")
    held = await desk.json(
        "privacy", "hold", "workspace", workspace, "--kind", "legal", "--cite", "1"
    )
    planned = await desk.json("privacy", "plan", member.id)
    wait = await store.delivery(await waiting(store))
    return {
        "WORKSPACE": workspace,
        "POST": post,
        "UNKNOWN": (await store.delivery(unknown)).post_id,
        "WAITING": wait.post_id,
        "SERIES": series.id,
        "FILE": str(draft),
        "BACKUP": str(tmp_path / "backup"),
        "MEMBER": member.id,
        "CONSENT": consent.id,
        "SUBSCRIPTION": paid.id,
        "TICKET": ticket["ticket"],
        "REQUEST": (await store.subject_requests(closed=False))[0].id,
        "HOLD": held["hold"],
        "ERASURE": planned["erasure"],
        "LATER": f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d %H:%M}",
    }


#: What follows each command's name, so that nothing but the right stands in its way.
WORDS = {
    "publish": "--text hello --to bluesky/studio",
    "posts retry": "POST",
    "posts publish": "POST",
    "posts reschedule": "POST --at LATER --zone UTC",
    "posts edit": "POST FILE",
    "series resume": "SERIES",
    "connections slots": "bluesky/studio --add mon_09:00 --zone UTC",
    "people code": "POST",
    "posts cancel": "POST",
    "series pause": "SERIES",
    "series cancel": "SERIES",
    "platforms pause": "bluesky",
    "platforms resume": "bluesky",
    "approve": "WAITING",
    "posts settle": "UNKNOWN --to bluesky/studio --answer give-up",
    "posts takedown": "POST",
    "privacy plan": "MEMBER",
    "privacy again": "shop",
    "privacy approve": "ERASURE",
    "privacy erase": "ERASURE",
    "privacy vendors": "ERASURE --done stripe",
    "privacy purge": "--policy usage --apply",
    "privacy confirm": "REQUEST",
    "privacy extend": "REQUEST --why complex",
    "privacy pause": "REQUEST",
    "privacy resume": "REQUEST",
    "privacy refuse": "REQUEST --ground unfounded",
    "privacy answer": "REQUEST --note done",
    "privacy withdraw": "REQUEST",
    "privacy hold": "workspace WORKSPACE --kind legal --cite 1",
    "privacy release": "HOLD",
    "privacy who": "REQUEST",
    "privacy explain": "workspace WORKSPACE",
    "privacy export": "MEMBER",
    "workspaces member list": "",
    "workspaces consent list": "MEMBER",
    "workspaces preference list": "MEMBER",
    "workspaces ticket show": "TICKET",
    "workspaces ticket list": "",
    "privacy request": "access --address bob@example.org",
    "workspaces member add": "bob@example.org",
    "workspaces member left": "MEMBER",
    "workspaces consent give": "MEMBER news --wording v2",
    "workspaces consent withdraw": "CONSENT",
    "workspaces preference set": "MEMBER all email --unwanted",
    "workspaces ticket open": "Help please",
    "workspaces ticket say": "TICKET thanks",
    "workspaces ticket close": "TICKET",
    "workspaces subscription add": "studio",
    "workspaces subscription suspend": "SUBSCRIPTION",
    "workspaces subscription reactivate": "SUBSCRIPTION",
    "workspaces subscription end": "SUBSCRIPTION",
    "connect": "mastodon",
    "notify add": "chat --webhook https://x.example/hook",
    "notify remove": "ops",
    "notify test": "ops",
    "hooks add": "other",
    "hooks remove": "shop",
    "connections burst": "bluesky/studio --posts 9",
    "policy apply": "",
    "audit rotate-keys": "",
    "backup": "BACKUP",
    "restore": "BACKUP",
    "replay": "",
    "connections require-approval": "bluesky/studio on",
    "workspaces approval": "on",
    "people add": "new --role all-but-see",
    "people roles": "boss --role all-but-see",
    "people secret": "boss",
    "people remove": "boss",
}


async def test_who_has_all_rights_but_one_is_refused_what_takes_it(
    desk: Desk, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WORDS.keys() == WITH_RIGHT.keys()
    ids = await filled(store, desk, tmp_path)
    secrets = await declared(store, desk, tmp_path)
    # How slowly a secret is looked at is not what is tried here.
    monkeypatch.setattr(people, "fits", lambda secret, kept: True)
    let = []
    for command, right in sorted(WITH_RIGHT.items(), key=lambda pair: pair[1]):
        desk.sits(secrets[right])
        words = [ids.get(one, one.replace("_", " ")) for one in WORDS[command].split()]
        answer = await desk.tried(*command.split(), *words)
        if f"you may not {right.value}" not in answer.output or answer.exit_code != 1:
            let.append((command, answer.exit_code, answer.output))
    assert let == []
    assert not Path(ids["BACKUP"]).exists()


async def declared(store: Store, desk: Desk, tmp_path: Path) -> dict[Right, str]:
    """Declare somebody who lacks it for each right; return their secrets."""
    folder = tmp_path / "policies"
    shutil.copytree(PROJECT / "policies", folder)
    (folder / "roles" / "clickpost.yaml").write_text(POLICY)
    desk.given = desk.given.model_copy(update={"policies": folder})
    store.policies = folder
    boss = await store.add_person("boss", ["all-but-see"], "operator")
    made = {Right.SEE: boss.secret}
    for right in [one for one in Right if one is not Right.SEE]:
        by = people.actor_of(boss.person_id)
        named = await store.add_person(right.value, [f"all-but-{right.value}"], by)
        made[right] = named.secret
    return made


@pytest.fixture
def desk(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(settings, monkeypatch)


async def test_who_has_the_right_is_written_down_as_who_acted(desk: Desk, store: Store) -> None:
    keeper = await kept_by(desk, store, "keeper", "admin")
    await desk.ran("hooks", "add", "shop")
    await desk.ran("hooks", "remove", "shop")
    await desk.ran("notify", "add", "ops", "--webhook", "https://x.example/hook")
    await desk.ran("notify", "remove", "ops")
    query = text("SELECT DISTINCT actor FROM ledger WHERE action ~ '^(hook|channel)[.]'")
    async with store.engine.connect() as connection:
        assert list(await connection.scalars(query)) == [people.actor_of(keeper)]


async def kept_by(desk: Desk, store: Store, *roles: str) -> str:
    made = await store.add_person("kim", list(roles), "operator")
    desk.sits(made.secret)
    return made.person_id


async def test_a_restore_asks_whom_the_database_knows(
    desk: Desk, store: Store, tmp_path: Path
) -> None:
    await kept_by(desk, store, "admin")
    file = tmp_path / "backup"
    refused = await desk.ran("restore", str(file), "--replace", code=1)
    assert "you may not maintain: that takes the role keeper" in refused.output
    await desk.ran("people", "roles", "kim", "--role", "keeper", "--role", "admin")
    answer = await desk.tried("restore", str(file), "--replace")
    assert "you may not" not in answer.output
