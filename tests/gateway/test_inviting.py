"""An owner connects an account in a browser: once, in their own browser, as the right account."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from typer.testing import CliRunner

from cli import _browser, _house
from cli.main import app
from clickpost import invitation
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import Transient
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewPost, Store
from clickpost.store.tables import Connection
from connectors._oauth import Door
from sandbox.testing import serve
from tasks import connecting, inviting
from tests.gateway.conftest import Prefect, serving

PLATFORMS = load_platforms(PROJECT / "policies")
APPS = {
    "youtube": {"client_id": "sandbox-client", "client_secret": "sandbox-secret"},
    "instagram": {"client_id": "990602627938098", "client_secret": "sandbox-app-secret"},
    "x": {"client_id": "sandbox-client", "client_secret": "sandbox-secret"},
    "mastodon": None,
}
#: Where people go in, the sandbox's accounts they choose from, and the software's own path.
WAYS = ["mastodon", "gotosocial", "pixelfed", "youtube", "instagram", "x"]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("sandbox")) as base:
        yield base


@pytest.fixture(autouse=True)
def well_behaved(sandbox: str) -> None:
    httpx.delete(f"{sandbox}/control/misbehave")


@dataclass
class Person:
    """Somebody with a browser, who got a link and has an account at a platform."""

    settings: Settings
    store: Store
    sandbox: str
    gateway: httpx.AsyncClient
    web: httpx.AsyncClient
    pages: list[str] = field(default_factory=list)

    async def invited(self, way: str, name: str = "main") -> str:
        """Get a link."""
        platform = way if way in APPS else "mastodon"
        wish = connecting.Wish(platform, name, {}, f"{self.sandbox}/{way}")
        made = await inviting.invite(self.settings, self.store, wish, APPS[platform])
        return path_of(made.url)

    async def opened(self, link: str) -> str:
        """Open the link and press the button; return where the platform asks."""
        shown = await self.gateway.get(link)
        assert shown.status_code == 200, shown.text
        self.pages.append(shown.text)
        mark = re.search(r'name="form_mark" value="([^"]+)"', shown.text)
        assert mark is not None
        going = await self.gateway.post(link, data={"form_mark": mark[1]})
        assert going.status_code == 200, going.text
        address = re.search(r'<a class="button" href="([^"]+)"', going.text)
        assert address is not None
        return address[1].replace("&amp;", "&")

    async def decided(self, address: str, account: str = "studio", **form: Any) -> httpx.URL:
        """Decide on the platform's page; return where it sends the person back."""
        asked = await self.web.get(address)
        assert asked.status_code == 200, asked.text
        ticket = re.search(r'name="ticket" value="([^"]+)"', asked.text)
        chosen = re.search(rf'<option value="([^"]+)">@?{account}</option>', asked.text)
        assert ticket is not None
        assert chosen is not None
        said = {"ticket": ticket[1], "account": chosen[1], "decision": "allow"}
        said["scope"] = re.findall(r'name="scope" value="([^"]+)"', asked.text)  # type: ignore[assignment]
        answer = await self.web.post(address, data=said | form)
        assert answer.status_code == 302, answer.text
        return httpx.URL(answer.headers["location"])

    async def back(self, address: httpx.URL) -> httpx.Response:
        """Follow the platform's redirect to our callback."""
        answer = await self.gateway.get(address.raw_path.decode())
        self.pages.append(answer.text)
        return answer

    async def connects(self, way: str, name: str = "main", **said: Any) -> httpx.Response:
        """Go the whole way."""
        address = await self.opened(await self.invited(way, name))
        return await self.back(await self.decided(address, **said))

    async def requests(self, step: str) -> int:
        """Return how often the sandbox was asked for a step."""
        rows = (await self.web.get(f"{self.sandbox}/control/requests")).json()
        return sum(row["step"] == step for row in rows)

    async def ordered(self, platform: str, step: str, what: str, times: int = 1) -> None:
        """Let the platform misbehave."""
        order = {"platform": platform, "step": step, "what": what, "times": times}
        (await self.web.post(f"{self.sandbox}/control/misbehave", json=order)).raise_for_status()


def path_of(url: str) -> str:
    return urlsplit(url).path


def title_of(answer: httpx.Response) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", answer.text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest_asyncio.fixture
async def person(
    settings: Settings, store: Store, prefect: Prefect, sandbox: str
) -> AsyncIterator[Person]:
    async with serving(settings) as gateway, httpx.AsyncClient() as web:
        yield Person(settings, store, sandbox, gateway, web)


async def only(store: Store) -> Connection:
    (row,) = await store.connections()
    return row


@pytest.mark.parametrize("way", WAYS)
async def test_the_whole_way(person: Person, way: str) -> None:
    answer = await person.connects(way)
    assert (answer.status_code, title_of(answer)) == (200, "Connected")
    row = await only(person.store)
    assert (row.status, row.handle) == ("active", "@studio" if way == "youtube" else "studio")
    account = await person.store.account(row.id)
    assert account.secrets["access_token"]
    if way in ("youtube", "x"):
        assert account.secrets["refresh_token"]
        assert row.expires_at is not None
    if way == "instagram":
        assert row.expires_at is not None
        left = row.expires_at - datetime.now(UTC)
        assert timedelta(days=59) < left < timedelta(days=60), "Meta's own word, no guess"
        assert row.app_user_id == f"24{row.remote_id}"
        assert "client_secret" not in account.secrets, "it is the app's, and needed for nothing"
    assert row.connected_at is not None


@pytest.mark.parametrize("way", WAYS)
async def test_the_page_says_what_will_be_asked_and_why(person: Person, way: str) -> None:
    address = await person.opened(await person.invited(way))
    platform = PLATFORMS[way if way in APPS else "mastodon"]
    assert platform.oauth is not None
    for scope in (*platform.oauth.scopes, *platform.oauth.optional):
        assert platform.scopes[scope] in person.pages[0]
    query = parse_qs(urlsplit(address).query)
    assert ("code_challenge" in query) is platform.oauth.pkce
    assert query["redirect_uri"] == [inviting.callback_of(person.settings, platform.name)]
    assert query["scope"][0].split(platform.oauth.separator) == (
        ["read", "write"] if way == "pixelfed" else platform.oauth.scopes + platform.oauth.optional
    )


async def test_a_replayed_state_asks_the_platform_nothing(person: Person) -> None:
    back = await person.decided(await person.opened(await person.invited("mastodon")))
    assert title_of(await person.back(back)) == "Connected"
    asked = await person.requests("token")
    again = await person.back(back)
    assert title_of(again) == "Connected", "who loads the page again is told what became of it"
    forged = await person.back(back.copy_set_param("code", "another"))
    assert title_of(forged) == "Connected"
    assert await person.requests("token") == asked
    assert len(await person.store.connections()) == 1


async def test_a_wrong_state_is_not_known(person: Person) -> None:
    back = await person.decided(await person.opened(await person.invited("mastodon")))
    for wrong in (back.copy_set_param("state", "x" * 43), back.copy_remove_param("state")):
        answer = await person.back(wrong)
        assert (answer.status_code, title_of(answer)) == (400, "This sign-in is not known")
    elsewhere = back.raw_path.decode().replace("/mastodon/", "/youtube/")
    answer = await person.gateway.get(elsewhere)
    assert title_of(answer) == "This sign-in is not known", "a code goes to nobody else"
    assert await person.store.connections() == []
    assert title_of(await person.back(back)) == "Connected", "a guess uses nothing up"


async def test_a_state_is_worth_nothing_in_another_browser(person: Person) -> None:
    """Who gets somebody to open his own way back would have them publish as him."""
    back = await person.decided(await person.opened(await person.invited("mastodon")))
    async with serving(person.settings) as other:
        answer = await other.get(back.raw_path.decode())
    assert answer.status_code == 400
    assert title_of(answer) == "This sign-in was begun in another browser"
    assert "/connect/" not in answer.text, "the link is not shown to a stranger"
    assert await person.store.connections() == []


async def test_an_expired_state_is_told(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inviting, "STATE_LIVES", timedelta(seconds=-1))
    link = await person.invited("mastodon")
    back = await person.decided(await person.opened(link))
    asked = await person.requests("token")
    answer = await person.back(back)
    assert (answer.status_code, title_of(answer)) == (400, "This took too long")
    assert link in answer.text, "there is a way on"
    assert await person.requests("token") == asked


async def test_the_latest_sign_in_counts(person: Person) -> None:
    link = await person.invited("mastodon")
    first = await person.opened(link)
    second = await person.opened(link)
    answer = await person.back(await person.decided(first))
    assert title_of(answer) == "This sign-in is not known"
    assert title_of(await person.back(await person.decided(second))) == "Connected"


async def test_a_link_works_once_and_for_its_time(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await person.invited("mastodon")
    await person.back(await person.decided(await person.opened(link)))
    assert title_of(await person.gateway.get(link)) == "This account is connected already"
    monkeypatch.setattr(inviting, "LINK_LIVES", timedelta(seconds=-1))
    late = await person.gateway.get(await person.invited("mastodon", "late"))
    assert (late.status_code, title_of(late)) == (404, "This link does not work any more")
    nobodys = await person.gateway.get("/connect/" + "x" * 43)
    assert (nobodys.status_code, nobodys.text) == (404, late.text), "one tells as little as other"


async def test_a_button_that_was_not_ours_does_nothing(person: Person) -> None:
    link = await person.invited("mastodon")
    assert (await person.gateway.post(link, data={})).status_code == 403
    await person.gateway.get(link)
    refused = await person.gateway.post(link, data={"form_mark": "0" * 64})
    assert (refused.status_code, title_of(refused)) == (403, "Please press the button again")


async def test_no_is_an_answer(person: Person) -> None:
    for way in ("mastodon", "instagram"):
        link = await person.invited(way, way)
        denied = await person.decided(await person.opened(link), decision="deny")
        answer = await person.back(denied)
        assert (answer.status_code, title_of(answer)) == (400, "Not connected")
        assert "You chose not to let ClickPost in" in answer.text
        assert link in answer.text
        again = await person.back(await person.decided(await person.opened(link)))
        assert title_of(again) == "Connected", "who changes their mind may"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("temporarily_unavailable", "has trouble of its own"),
        ("invalid_scope", "does not offer to this app"),
        ("<script>alert(1)</script>", "ended the sign-in"),
        ("", "ended the sign-in"),
    ],
)
async def test_a_platforms_errors_are_told_in_plain_words(
    person: Person, error: str, says: str
) -> None:
    address = await person.opened(await person.invited("mastodon"))
    state = parse_qs(urlsplit(address).query)["state"][0]
    said = {"state": state, "error": error, "error_description": "<b>oh</b>"}
    answer = await person.gateway.get("/connect/mastodon/callback", params=said)
    assert says in answer.text
    assert "script" not in answer.text
    assert "oh</b>" not in answer.text


async def test_what_is_needed_and_was_not_granted_is_named(person: Person) -> None:
    auth = "https://www.googleapis.com/auth/"
    answer = await person.connects("youtube", scope=[auth + "youtube.readonly"])
    assert (answer.status_code, title_of(answer)) == (400, "Not connected")
    assert "to upload videos (https://www.googleapis.com/auth/youtube.upload)" in answer.text
    assert await person.store.connections() == []
    upload = [auth + "youtube.upload", auth + "youtube.readonly"]
    answer = await person.connects("youtube", scope=upload)
    assert title_of(answer) == "Connected"
    assert "it cannot do: to take videos down" in answer.text


async def another_account(sandbox: str, platform: str, name: str) -> None:
    said = {"platform": platform, "name": name}
    async with httpx.AsyncClient() as http:
        (await http.post(f"{sandbox}/control/accounts", json=said)).raise_for_status()


@pytest.mark.parametrize("way", ["mastodon", "youtube", "instagram", "x"])
async def test_a_connection_stays_that_of_its_account(person: Person, way: str) -> None:
    await another_account(person.sandbox, way, "stranger")
    await person.connects(way)
    before = await only(person.store)
    secrets = (await person.store.account(before.id)).secrets
    answer = await person.connects(way, account="stranger")
    assert (answer.status_code, title_of(answer)) == (400, "Not connected")
    assert f"This link is for {before.handle}, and you signed in as" in answer.text
    assert "stranger" in answer.text
    assert f"<strong>{before.handle}</strong>" in person.pages[-2], "it was said before"
    after = await only(person.store)
    assert (after.remote_id, after.updated_at) == (before.remote_id, before.updated_at)
    assert (await person.store.account(after.id)).secrets == secrets


async def test_connecting_again_releases_what_waited(person: Person) -> None:
    await person.connects("mastodon")
    row = await only(person.store)
    made = await person.store.create_post(NewPost(PostFile(text="waits"), (), (row.id,)))
    delivery_id = (await person.store.deliveries_of(made.post_id))[0].id
    async with person.store.transaction() as session:
        held = (
            "UPDATE delivery SET state = 'held', who_acts = 'the account''s owner' WHERE id = :id"
        )
        await session.execute(text(held), {"id": delivery_id})
    await person.store.set_connection_status(row.id, "paused", "revoked")
    assert title_of(await person.connects("mastodon")) == "Connected"
    assert (await only(person.store)).status == "active"
    assert (await person.store.delivery(delivery_id)).state is State.PLANNED


async def test_a_code_works_once_and_with_its_verifier(person: Person) -> None:
    """The stand-in is strict: what it lets through is right, and it lets nothing else through."""
    address = await person.opened(await person.invited("mastodon"))
    back = await person.decided(address)
    stolen = dict(parse_qsl(back.query.decode()))["code"]
    asked = parse_qs(urlsplit(address).query)
    kept = await person.store.client(
        inviting.Sought(await person.store.workspace_id(), "mastodon", f"{person.sandbox}/mastodon")
    )
    assert kept is not None
    app = person.store.client_secrets(kept)
    form = {
        "grant_type": "authorization_code",
        "client_id": app["client_id"],
        "client_secret": app["client_secret"],
        "redirect_uri": asked["redirect_uri"][0],
        "code": stolen,
        "code_verifier": invitation.new_word(),
    }
    thief = await person.web.post(f"{person.sandbox}/mastodon/oauth/token", data=form)
    assert (thief.status_code, thief.json()["error"]) == (400, "invalid_grant")
    answer = await person.back(back)
    assert "did not accept the sign-in" in answer.text
    assert await person.store.connections() == []


async def test_an_app_or_an_address_that_is_not_known_is_sent_nobody(person: Person) -> None:
    address = httpx.URL(await person.opened(await person.invited("mastodon")))
    for wrong in (
        address.copy_set_param("client_id", "nobody"),
        address.copy_set_param("redirect_uri", "https://evil.example/"),
        address.copy_set_param("redirect_uri", address.params["redirect_uri"] + "/"),
    ):
        answer = await person.web.get(wrong)
        assert (answer.status_code, answer.headers.get("location")) == (400, None)
    narrowed = address.copy_set_param("scope", "write:statuses admin:write")
    assert "invalid_scope" in (await person.web.get(narrowed)).headers["location"]


@pytest.mark.parametrize("what", ["drop_before", "drop_after", "server_error", "garbage"])
async def test_a_line_that_breaks_is_told_and_the_code_is_sent_once(
    person: Person, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Door.change, []

    async def counted(door: Door, *said: Any) -> Any:
        calls.append(said)
        return await real(door, *said)

    monkeypatch.setattr(Door, "change", counted)
    await person.ordered("mastodon", "token", what)
    link = await person.invited("mastodon")
    answer = await person.back(await person.decided(await person.opened(link)))
    assert (answer.status_code, title_of(answer)) == (400, "Not connected")
    assert "The line to Mastodon broke" in answer.text
    assert link in answer.text
    assert len(calls) == 1, "an answer that got lost is not asked for again"
    again = await person.back(await person.decided(await person.opened(link)))
    assert title_of(again) == "Connected"


async def test_a_call_that_never_left_is_made_again(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Door.change, []

    async def blip(door: Door, *said: Any) -> Any:
        calls.append(said)
        if len(calls) == 1:
            raise Transient("POST /oauth/token never left (ConnectError)")
        return await real(door, *said)

    monkeypatch.setattr(Door, "change", blip)
    assert title_of(await person.connects("mastodon")) == "Connected"
    assert len(calls) == 2


async def test_an_app_is_registered_once_and_anew_where_the_server_forgot_it(
    person: Person,
) -> None:
    before = await person.requests("apps")
    await person.connects("mastodon", "one")
    await person.connects("mastodon", "two")
    assert await person.requests("apps") == before + 1
    link = await person.invited("mastodon", "three")
    back = await person.decided(await person.opened(link))
    (await person.web.post(f"{person.sandbox}/control/reset")).raise_for_status()
    answer = await person.back(back)
    assert "does not know our app any more" in answer.text
    again = await person.back(await person.decided(await person.opened(link)))
    assert title_of(again) == "Connected"


async def test_a_server_that_is_away_is_told_before_anybody_leaves(person: Person) -> None:
    wish = connecting.Wish("mastodon", "main", {}, "http://127.0.0.1:9")
    link = path_of((await inviting.invite(person.settings, person.store, wish)).url)
    shown = await person.gateway.get(link)
    mark = re.search(r'name="form_mark" value="([^"]+)"', shown.text)
    assert mark is not None
    answer = await person.gateway.post(link, data={"form_mark": mark[1]})
    assert (answer.status_code, title_of(answer)) == (502, "Mastodon cannot be reached")


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_secret_is_kept_in_clear(
    person: Person, way: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG", logger="clickpost")
    link = await person.invited(way)
    address = await person.opened(link)
    back = await person.decided(address)
    await person.back(back)
    account = await person.store.account((await only(person.store)).id)
    query = parse_qs(urlsplit(address).query)
    secrets = [link.rsplit("/", 1)[1], query["state"][0], back.params["code"]]
    secrets += [account.secrets["access_token"]]
    seen = str(await everything(person.store)) + caplog.text + "".join(capfd.readouterr())
    seen += "".join(person.pages[1:])
    for one in secrets:
        assert one not in seen
    (invited,) = await rows(person.store, "invitation")
    assert (invited["status"], invited["secrets"], invited["data_key"]) == ("done", b"", b"")


async def rows(store: Store, table: str) -> list[Any]:
    async with store.session() as session:
        found = await session.execute(text(f'SELECT * FROM "{table}"'))
        return list(found.mappings().all())


async def everything(store: Store) -> list[Any]:
    tables = ("invitation", "oauth_client", "connection", "ledger", "notice")
    return [row for table in tables for row in await rows(store, table)]


async def test_a_new_master_key_seals_invitations_and_apps_too(person: Person) -> None:
    address = await person.opened(await person.invited("mastodon"))
    assert await person.store.seal_invitations_anew() == 2
    assert title_of(await person.back(await person.decided(address))) == "Connected"
    assert await person.store.seal_invitations_anew() == 1, "what is done holds nothing"


def signed(user_id: str, at: datetime, secret: str = "sandbox-app-secret") -> dict[str, str]:
    """Return what Meta posts when somebody removed the app."""
    said = {"algorithm": "HMAC-SHA256", "issued_at": int(at.timestamp()), "user_id": user_id}
    payload = coded(json.dumps(said).encode())
    mark = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).digest()
    return {"signed_request": f"{coded(mark)}.{payload}"}


def coded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_who_removes_our_app_is_not_published_for_any_more(person: Person) -> None:
    await person.connects("instagram")
    row = await only(person.store)
    address = "/callbacks/instagram/deauthorize"
    now = datetime.now(UTC) + timedelta(seconds=1)
    known_as = str(row.app_user_id)
    for forged in (
        {},
        {"signed_request": "x.y"},
        signed(known_as, now, "another secret"),
    ):
        assert (await person.gateway.post(address, data=forged)).status_code == 404
    elsewhere = await person.gateway.post(
        "/callbacks/mastodon/deauthorize", data=signed(known_as, now)
    )
    assert elsewhere.status_code == 404
    stranger = await person.gateway.post(address, data=signed("1", now))
    assert stranger.status_code == 200, "who it is, is nobody's business"
    assert (await only(person.store)).status == "active"

    for _ in range(2):
        assert (await person.gateway.post(address, data=signed(known_as, now))).status_code == 200
    ended = await only(person.store)
    assert ended.status == "revoked"
    assert "its owner removed ClickPost at Instagram" in str(ended.status_reason)
    told = [one for one in await rows(person.store, "notice") if one["event"].endswith("revoked")]
    assert [one["subject"] for one in told] == [row.id], "the owner is told, and once"

    assert title_of(await person.connects("instagram")) == "Connected"
    late = datetime.now(UTC) - timedelta(minutes=5)
    assert (await person.gateway.post(address, data=signed(known_as, late))).status_code == 200
    assert (await only(person.store)).status == "active", "the word of before came late"


runner = CliRunner(env={"COLUMNS": "250"})


@pytest.fixture
def links(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the command meet the test's house; the links that it shows."""
    shown: list[str] = []
    monkeypatch.setattr(_house, "settings", lambda: settings)
    monkeypatch.setattr(_browser, "_LOOK", 0.05)
    monkeypatch.setattr(_browser, "shown", lambda given, made: shown.append(path_of(made.url)))
    return shown


async def called(*words: str, code: int = 0) -> str:
    answer = await asyncio.to_thread(runner.invoke, app, list(words))
    assert answer.exit_code == code, answer.output
    return answer.output


async def test_the_command_waits_and_says_who_is_connected(
    person: Person, links: list[str]
) -> None:
    server = ("--api-base", f"{person.sandbox}/mastodon")
    waiting = asyncio.create_task(called("connect", "mastodon", *server, "--browser"))
    while not links:
        await asyncio.sleep(0.02)
    denied = await person.decided(await person.opened(links[0]), decision="deny")
    await person.back(denied)
    await asyncio.sleep(0.2)
    await person.back(await person.decided(await person.opened(links[0])))
    said = await waiting
    assert "not connected: You chose not to let ClickPost in" in said
    assert "connected mastodon/main as studio" in said
    again = json.loads(
        await called("connect", "mastodon", "--browser", "--no-wait", "--json")
    )  # The server is the one of before.
    assert "connect it again" not in str(again)
    page = await person.gateway.get(path_of(again["link"]))
    assert "<strong>studio</strong>" in page.text


async def test_an_app_is_asked_for_once(
    person: Person, links: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("connect", "youtube", "--api-base", f"{person.sandbox}/youtube", "--browser")
    assert "--client-id-env VARIABLE" in await called(*there, "--no-wait", code=2)
    monkeypatch.setenv("GOOGLE_ID", "sandbox-client")
    monkeypatch.setenv("GOOGLE_SECRET", "sandbox-secret")
    named = ("--client-id-env", "GOOGLE_ID", "--client-secret-env", "GOOGLE_SECRET")
    await called(*there, *named, "--no-wait")
    await called(*there, "--no-wait", "--name", "second")
    address = await person.opened(links[1])
    assert title_of(await person.back(await person.decided(address))) == "Connected"
    assert (await only(person.store)).ref == "youtube/second"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bluesky",), "Bluesky is not connected in a browser"),
        (("mastodon",), "every server is its own"),
        (("instagram", "--access-token-env", "HOME"), "with --browser the owner signs in"),
        (("instagram", "--client-id-env", "HOME", "--client-secret-env", "HOME"),
         "sends people back to https addresses only"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_said_before_anybody_gets_a_link(
    person: Person, links: list[str], words: tuple[str, ...], says: str
) -> None:
    assert says in await called("connect", *words, "--browser", code=2)
    assert links == []
