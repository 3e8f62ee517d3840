"""What people gave us to call is called at an address that was checked, at no other."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from clickpost.errors import Refused
from clickpost.reach import Allowed
from clickpost.settings import Settings
from clickpost.telling import Event, Said
from connectors import _channels
from connectors._outward import Outward, outward

PUBLIC, INSIDE = "93.184.216.34", "169.254.169.254"


class Names:
    """A resolver that answers what it is told, one answer after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0)


def client(names: Names, handle: object, *, follow: bool = False) -> httpx.AsyncClient:
    inner = httpx.MockTransport(handle)  # type: ignore[arg-type]
    transport = Outward(Allowed(), inner, names)
    return httpx.AsyncClient(transport=transport, follow_redirects=follow)


async def test_the_checked_address_is_called_under_the_hosts_name() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async with client(Names([PUBLIC]), handle) as http:
        await http.post("https://hooks.example.com:8443/a?b=c", content=b"x")
    [request] = seen
    assert str(request.url) == f"https://{PUBLIC}:8443/a?b=c"
    assert request.headers["host"] == "hooks.example.com:8443"
    assert request.extensions["sni_hostname"] == "hooks.example.com"
    assert request.read() == b"x"


async def test_a_name_that_changes_its_meaning_is_asked_once_for_each_call() -> None:
    """DNS rebinding: public when it is checked, inside when it is called."""
    names = Names([PUBLIC], [INSIDE])
    async with client(names, lambda request: httpx.Response(200)) as http:
        assert (await http.get("http://rebind.example/")).status_code == 200
        with pytest.raises(Refused):
            await http.get("http://rebind.example/")


@pytest.mark.parametrize("answer", [[INSIDE], ["::1"], [PUBLIC, "10.0.0.1"], ["::ffff:7f00:1"]])
async def test_nothing_goes_inside(answer: list[str]) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was called")

    async with client(Names(answer), never) as http:
        with pytest.raises(Refused) as caught:
            await http.get("http://hooks.example.com/canary")
    assert "canary" not in str(caught.value)
    assert answer[0] not in str(caught.value)


async def test_a_redirect_inside_is_refused() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://metadata.example/latest"})

    async with client(Names([PUBLIC], [INSIDE]), handle, follow=True) as http:
        with pytest.raises(Refused):
            await http.get("https://feeds.example/rss")


async def test_a_dead_address_gives_way_to_the_hosts_next_one() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host == PUBLIC:
            raise httpx.ConnectError("down")
        return httpx.Response(200)

    async with client(Names([PUBLIC, "8.8.8.8"]), handle) as http:
        assert (await http.get("http://x.example/")).status_code == 200


async def test_a_host_without_an_address_is_a_failed_connect() -> None:
    async with client(Names([]), lambda request: httpx.Response(200)) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("http://nowhere.example/")


@pytest.fixture
def receiver() -> object:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:7f00:1]"]
)
async def test_a_webhook_to_loopback_needs_to_be_allowed_however_it_is_written(
    receiver: int, host: str, tmp_path: object
) -> None:
    secrets = {"url": f"http://{host}:{receiver}/x", "secret": "whsec_" + "A" * 32}
    said = Said("note_1", Event.TEST, "chan_1", {}, datetime.now(UTC))
    async with outward(Settings()) as http:
        with pytest.raises(Refused):
            await _channels.send_webhook(secrets, said, http, "http://ui")
    async with outward(Settings(receivers="127.0.0.0/8, ::1")) as http:
        await _channels.send_webhook(secrets, said, http, "http://ui")


async def test_certificates_are_checked() -> None:
    made = outward(Settings())
    transport = made._transport
    assert isinstance(transport, Outward)
    from connectors._outward import _trusted

    assert _trusted().verify_mode is ssl.CERT_REQUIRED
    assert _trusted().check_hostname
    await made.aclose()
