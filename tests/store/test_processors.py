"""Vendors are asked once, write-ahead, looked at again, and never complete before they are."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from ruamel.yaml import YAML
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.compliance import Light
from clickpost.policy import processors as policies
from clickpost.requests import Clocks, Door, Kind
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewRequest, Store
from clickpost.store.erasures import Erasures
from clickpost.store.processors import Processors
from tasks import _wiring, compliance, erasing, processors
from tasks._wiring import House
from tasks.erasing import Wanted
from tests.store.test_erasure import PERSONAL, add, everything, person, rows
from tests.vendors import KEY, Vendors, digest_of, serve

ANN, BOB = "ann@example.org", "bob@example.org"


@pytest.fixture(scope="module")
def running() -> Iterator[Vendors]:
    with serve() as vendors:
        yield vendors


@pytest.fixture
def vendors(running: Vendors) -> Vendors:
    """The stand-ins, empty again."""
    base = running.base
    running.__init__(base)  # type: ignore[misc]
    return running


@pytest.fixture
def settings(
    database_url: str, tmp_path: Path, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A house whose vendors are the stand-ins, each as its shipped policy says."""
    folder = tmp_path / "policies"
    shutil.copytree(PROJECT / "policies", folder)
    places = {"stripe": "stripe", "stripe_redaction": "stripe", "zendesk": "zendesk"}
    for name in ("stripe", "stripe_redaction", "zendesk", "mailchimp"):
        change(folder, name, base=f"{vendors.base}/{places.get(name, name)}", enabled=False)
    known = {
        "STRIPE_KEY": KEY, "STRIPE_REDACTION_KEY": KEY, "ZENDESK_SUBDOMAIN": "acme",
        "ZENDESK_AGENT": "desk@example.com", "ZENDESK_TOKEN": KEY, "MAILCHIMP_CENTER": "us6",
        "MAILCHIMP_LISTS": "news, offers", "MAILCHIMP_KEY": KEY,
    }  # fmt: skip
    for name, value in known.items():
        monkeypatch.setenv(f"CLICKPOST_PROCESSOR_{name}", value)
    return Settings(
        home=tmp_path / "home", database_url=database_url, policies=folder, receivers="127.0.0.1"
    )


@pytest_asyncio.fixture
async def house(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    """A house of the test's own."""
    opened = await _wiring._open(settings)

    async def given() -> House:
        return opened

    monkeypatch.setattr(_wiring, "house", given)
    yield opened
    await opened.client.aclose()
    await opened.store.close()


def change(folder: Path, name: str, **values: Any) -> None:
    """Write an operator's changes into a processor's file."""
    file = folder / "processors" / f"{name}.yaml"
    yaml = YAML()
    said = yaml.load(file.read_text())
    said.update(values)
    said.pop("pace", None)  # The stand-ins take any.
    with file.open("w") as out:
        yaml.dump(said, out)


def enable(settings: Settings, *names: str) -> None:
    for name in names:
        change(settings.policies, name, enabled=True)


async def someone(house: House, who: str = "ann") -> None:
    file = house.settings.media_root / "attachments" / f"{who}.png"
    await person(house.store, who, file=str(file))


async def approved(house: House, wanted: Wanted) -> str:
    row, _ = await erasing.plan(house.settings, house.store, wanted)
    erasures = Erasures(house.store.engine, house.vault)
    if row.state == "planned":
        await erasures.approve(row.id, "engine")
    return row.id


async def outcomes(store: Store, erasure_id: str) -> dict[str, tuple[str, int]]:
    row = await Erasures(store.engine, store.vault).erasure(erasure_id)
    return {
        one["location"]: (one["outcome"], one["count"])
        for one in row.outcomes
        if one["location"].startswith("vendor ")
    }


async def later(store: Store) -> None:
    """Let what is looked at again later be due now."""
    await rows(store, "UPDATE processor_ask SET again_at = now() WHERE again_at IS NOT NULL")


def at_home(house: House, vendors: Vendors) -> None:
    """Let all three know Ann and Bob."""
    vendors.customers = {"cus_ann": ANN, "cus_ann2": ANN, "cus_bob": BOB}
    vendors.users = {
        1: {"email": ANN, "role": "end-user", "stands": "active"},
        2: {"email": BOB, "role": "end-user", "stands": "active"},
        3: {"email": f"x{ANN}", "role": "end-user", "stands": "active"},
        4: {"email": ANN, "role": "agent", "stands": "active"},
    }
    vendors.members = {
        "news": {digest_of(ANN), digest_of(BOB)}, "offers": {digest_of(ANN)}
    }  # fmt: skip


async def test_three_vendors_erase_one_person_and_no_other(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    at_home(house, vendors)
    enable(house.settings, "stripe", "zendesk", "mailchimp")
    await someone(house)
    await someone(house, "bob")
    row, _ = await erasing.plan(house.settings, store, Wanted("person", "member_ann"))
    told = {(one["location"], one["then"]): one["count"] for one in row.plan}
    assert told[("vendor stripe", "asked")] == 1
    assert vendors.calls == []
    done = await erasing.carry_out(house, await approved(house, Wanted("person", "member_ann")))
    assert done.state == "complete", done.said
    assert vendors.deleted == {"cus_ann", "cus_ann2"}
    assert [one["stands"] for one in vendors.users.values()] == ["gone", *["active"] * 3]
    assert vendors.members == {"news": {digest_of(BOB)}, "offers": set()}
    assert await outcomes(store, row.id) == {
        "vendor stripe": ("erased", 2),
        "vendor zendesk": ("erased", 1),
        "vendor mailchimp": ("erased", 2),
    }
    said = await everything(store)
    assert not [word for word in (*PERSONAL[:2], digest_of(ANN), "cus_ann", KEY) if word in said]
    asks = await Processors(store.engine, store.vault).asks(row.id)
    assert {(one.state, one.secrets, one.digest) for one in asks} == {("erased", b"", None)}


async def test_a_vendor_that_works_on_it_is_looked_at_until_it_is_done(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    at_home(house, vendors)
    vendors.erasing = 1
    enable(house.settings, "zendesk")
    await someone(house)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    done = await erasing.carry_out(house, erasure_id)
    assert done.state == "parked"
    assert await outcomes(store, erasure_id) == {"vendor zendesk": ("vendor_pending", 1)}
    certificate = await Erasures(store.engine, store.vault).certificate(erasure_id)
    statement = json.loads(certificate.document)["statement"]
    assert statement["result"] == "complete, except for what others were asked to do"
    [line] = [one for one in statement["outcomes"] if one["location"] == "vendor zendesk"]
    assert datetime.fromisoformat(line["until"]) > datetime.fromisoformat(
        statement["times"]["certified"]
    )
    assert await rows(store, "SELECT 1 FROM member WHERE id = 'member_ann'") == []
    assert await erasing.resume() == []  # It is not time to look again.
    await later(store)
    [ended] = await erasing.resume()
    assert ended.state == "complete"
    assert await outcomes(store, erasure_id) == {"vendor zendesk": ("erased", 1)}


async def test_a_vendor_that_is_away_blocks_and_is_asked_again_though_the_rows_are_gone(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    at_home(house, vendors)
    call = "DELETE /stripe/v1/customers/cus_ann"
    vendors.fail = {call: [503, 503, 503, 429]}
    enable(house.settings, "stripe")
    await someone(house)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    done = await erasing.carry_out(house, erasure_id)
    assert (done.state, done.certificate) == ("waiting", None)
    assert "vendor stripe: HTTP 503" in done.said
    assert vendors.calls.count(call) == 3  # Tried anew at once, as nothing was done.
    assert await rows(store, "SELECT 1 FROM member WHERE id = 'member_ann'") == []
    assert await outcomes(store, erasure_id) == {"vendor stripe": ("unreachable", 1)}
    said = await everything(store)
    assert not [word for word in (ANN, "cus_ann") if word in said]  # It is sealed.
    for _ in range(2):  # Once it is told to slow down, then it is heard.
        await later(store)
        ended = await erasing.resume()
    assert [one.state for one in ended] == ["complete"]
    assert vendors.deleted == {"cus_ann", "cus_ann2"}


async def test_a_run_that_was_cut_short_goes_on_where_it_was(
    store: Store,
    house: House,
    vendors: Vendors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_home(house, vendors)
    enable(house.settings, "stripe")
    await someone(house)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    keep = Processors.keep

    async def killed(self: Processors, row: Any, ask: Any) -> Any:
        if row.step == "delete":
            raise KeyboardInterrupt  # After the call, before it is written down.
        return await keep(self, row, ask)

    monkeypatch.setattr(Processors, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        await erasing.carry_out(house, erasure_id)
    [ask] = await Processors(store.engine, store.vault).asks(erasure_id)
    assert (ask.state, ask.step) == ("asking", "delete")
    monkeypatch.undo()
    monkeypatch.setenv("CLICKPOST_PROCESSOR_STRIPE_KEY", KEY)
    done = await erasing.carry_out(house, erasure_id)
    assert done.state == "complete"
    assert vendors.deleted == {"cus_ann", "cus_ann2"}
    assert len(await Processors(store.engine, store.vault).asks(erasure_id)) == 1


async def test_a_lost_answer_is_looked_for_where_twice_would_be_an_error(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    vendors.customers = {"cus_ann": ANN}
    vendors.lose = {"run"}
    enable(house.settings, "stripe_redaction")
    await someone(house)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    await erasing.carry_out(house, erasure_id)
    assert await outcomes(store, erasure_id) == {"vendor stripe_redaction": ("vendor_pending", 1)}
    for status in ("ready", "succeeded"):
        vendors.jobs["prj_0"]["status"] = status
        await later(store)
        ended = await erasing.resume()
    assert [one.state for one in ended] == ["complete"]
    assert len(vendors.jobs) == 1
    runs = [one for one in vendors.calls if one.endswith("/run")]
    assert len(runs) == 1


async def test_what_a_vendor_refuses_waits_for_a_person(
    store: Store,
    house: House,
    vendors: Vendors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_home(house, vendors)
    vendors.fail = {"DELETE /zendesk/api/v2/users/1": [422]}
    enable(house.settings, "zendesk")
    await someone(house)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    done = await erasing.carry_out(house, erasure_id)
    assert (done.state, done.certificate) == ("blocked", None)
    row = await Erasures(store.engine, store.vault).erasure(erasure_id)
    [line] = [one for one in row.outcomes if one["location"] == "vendor zendesk"]
    assert line["outcome"] == "unsupported"
    assert "open" in line["rule"]
    assert await erasing.resume() == []
    monkeypatch.setattr(_house, "settings", lambda: house.settings)
    runner = CliRunner(env={"COLUMNS": "250"})
    vendors_ = ["privacy", "vendors", erasure_id]
    listed = await asyncio.to_thread(runner.invoke, app, [*vendors_, "--json"])
    assert [one["state"] for one in json.loads(listed.stdout)] == ["refused"]
    again = await asyncio.to_thread(runner.invoke, app, [*vendors_, "--again", "zendesk"])
    assert again.exit_code == 0, again.output
    [ended] = await erasing.resume()
    assert ended.state == "complete"


async def test_a_person_may_say_that_they_saw_to_it(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    (house.settings.policies / "processors" / "stripe.yaml").write_text(
        "kind: processor\nname: stripe\ntitle: A filing cabinet\nenabled: true\n"
        "who: [member.email]\nby_hand: take their file out\ndue: 7 d\n"
        "source: https://example.com\nchecked: 2026-11-24\n"
    )
    await someone(house)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    assert (await erasing.carry_out(house, erasure_id)).state == "blocked"
    await Processors(store.engine, store.vault).settle(erasure_id, "stripe", "engine")
    [ended] = await erasing.resume()
    assert ended.state == "complete"
    assert vendors.calls == []


async def test_what_a_hold_keeps_here_is_kept_there(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    at_home(house, vendors)
    enable(house.settings, "stripe")
    await someone(house)
    hold = await add(
        store, "hold", id="hold_1", kind="dispute", scope="member", target="member_ann",
        cite="case 7", placed_by="engine", placed_at=datetime.now().astimezone(),
    )  # fmt: skip
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    done = await erasing.carry_out(house, erasure_id)
    assert done.state == "parked"
    assert await outcomes(store, erasure_id) == {"vendor stripe": ("held", 1)}
    assert vendors.deleted == set()
    await rows(store, "UPDATE hold SET ended_at = now() WHERE id = :id", id=hold)
    await rows(store, "UPDATE erasure SET again_at = now() - interval '1 s'")
    [ended] = await erasing.resume()
    assert ended.state == "complete"
    assert vendors.deleted == {"cus_ann", "cus_ann2"}


async def test_of_an_account_that_goes_a_member_of_another_one_stays(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    at_home(house, vendors)
    enable(house.settings, "stripe")
    await rows(
        store, "INSERT INTO workspace (id, name, created_at) VALUES ('ws_other', 'other', now())"
    )
    await someone(house)
    await someone(house, "bob")
    await add(
        store, "member", id="member_too", workspace_id="ws_other", email=ANN, email_digest="d-ann",
        role="publisher", created_at=datetime.now().astimezone(),
    )  # fmt: skip
    erasure_id = await approved(house, Wanted("account", "ws_default"))
    await erasing.carry_out(house, erasure_id)
    assert vendors.deleted == {"cus_bob"}
    document = json.loads(
        (await Erasures(store.engine, store.vault).certificate(erasure_id)).document
    )
    [line] = [one for one in document["statement"]["remains"] if "stripe" in one]
    assert line.startswith("1 addresses stay at stripe")


@pytest.mark.parametrize("trusted", [True, False])
async def test_who_is_known_by_a_request_alone_is_erased_and_what_it_names_where_that_is_trusted(
    store: Store, house: House, vendors: Vendors, trusted: bool
) -> None:
    vendors.customers = {"cus_x": "somebody@example.net", "cus_y": "other@example.net"}
    change(house.settings.policies, "stripe", enabled=True, references=trusted)
    moment = datetime.now().astimezone()
    row, _ = await store.open_request(
        NewRequest(
            Kind.ERASURE, Door.API, "gdpr", Clocks(moment, moment),
            address="somebody@example.net", references={"stripe": "cus_y"},
        )
    )  # fmt: skip
    wanted = Wanted("person", row.id, request=row.id, digest=row.address_digest)
    done = await erasing.carry_out(house, await approved(house, wanted))
    assert vendors.deleted == ({"cus_x", "cus_y"} if trusted else {"cus_x"}), done.said


async def test_what_is_not_set_or_not_let_in_is_said_and_nobody_is_asked(
    store: Store,
    house: House,
    vendors: Vendors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_home(house, vendors)
    enable(house.settings, "stripe")
    await someone(house)
    monkeypatch.delenv("CLICKPOST_PROCESSOR_STRIPE_KEY")
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    await erasing.carry_out(house, erasure_id)
    [ask] = await Processors(store.engine, store.vault).asks(erasure_id)
    assert "CLICKPOST_PROCESSOR_STRIPE_KEY is not set" in str(ask.reason)
    file = house.settings.home / "stripe.key"
    file.write_text(f"{KEY}\n")
    monkeypatch.setenv("CLICKPOST_PROCESSOR_STRIPE_KEY_FILE", str(file))
    shut = house.settings.model_copy(update={"receivers": ""})
    closed = replace(house, settings=shut)
    await later(store)
    await processors.look_again(closed)
    [ask] = await Processors(store.engine, store.vault).asks(erasure_id)
    assert "CLICKPOST_RECEIVERS" in str(ask.reason)
    assert vendors.calls == []
    await later(store)
    await processors.look_again(house)
    assert vendors.deleted == {"cus_ann", "cus_ann2"}


async def test_who_is_not_asked_in_one_run_is_asked_by_the_next(
    store: Store, house: House, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home(house, vendors)
    enable(house.settings, "stripe")
    await someone(house)
    monkeypatch.setattr("tasks.processors.PATIENCE", -1.0)
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    done = await erasing.carry_out(house, erasure_id)
    assert (done.state, done.said) == ("waiting", "vendor stripe: not asked yet")
    assert vendors.calls == []
    monkeypatch.setattr("tasks.processors.PATIENCE", 60.0)
    [ended] = await erasing.resume()
    assert ended.state == "complete"
    assert vendors.deleted == {"cus_ann", "cus_ann2"}


async def test_what_is_overdue_is_told_once(
    store: Store,
    house: House,
    vendors: Vendors,
) -> None:
    at_home(house, vendors)
    vendors.erasing = 9
    enable(house.settings, "zendesk")
    await someone(house)
    await erasing.carry_out(house, await approved(house, Wanted("person", "member_ann")))
    await rows(store, "UPDATE processor_ask SET due_at = now() - interval '1 s'")
    for _ in range(2):
        await processors.look_again(house)
    found = await compliance.look(store, house.settings, datetime.now().astimezone())
    assert [one.light for one in found if one.check == "vendors"] == [Light.RED]
    told = await rows(store, "SELECT facts FROM notice WHERE event = 'trigger.alert'")
    assert len(told) == 1
    assert told[0].facts["where"] == "vendor zendesk"


def test_every_shipped_processor_is_off_and_says_who_says_so() -> None:
    shipped = policies.load(PROJECT / "policies")
    assert set(shipped) == {"stripe", "stripe_redaction", "zendesk", "mailchimp"}
    for one in shipped.values():
        assert not one.enabled
        assert one.keeps
        assert str(one.base).startswith("https://")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("base: https://api.stripe.com", "base: http://api.stripe.com", "must start with https"),
        ('path: "/v1/customers/{id}"', 'path: "/v1/customers/{idd}"', "nothing fills in {idd}"),
        ("means: gone", "means: gon", "must be one of"),
        ("who: [member.email", "who: [member.emial", "member.emial is no column of text"),
        ("enabled: false", "enabled: no", "must be true or false"),
        ("due: 7 d", "due: 7", "needs a number with a unit"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    from clickpost.store.schema import in_code

    folder = tmp_path / "processors"
    folder.mkdir()
    text = (PROJECT / "policies/processors/stripe.yaml").read_text()
    line = text[: text.index(old)].count("\n") + 1
    (folder / "stripe.yaml").write_text(text.replace(old, new, 1))
    problems = policies.check(tmp_path, in_code()).problems
    assert problems
    assert any(said in one.said for one in problems), [one.said for one in problems]
    assert problems[0].line == line
