"""Carries one chat message through apprise, in a process that reaches checked addresses alone.

apprise speaks to its services through many libraries, each of which opens its own connections. So
the process as a whole is held: what Python tells its audit hooks (PEP 578) before every connection
is refused, unless the address came out of a lookup here that found only addresses which we may
call. A redirect, and a name that changes its meaning, come to the same door. The process knows
none of our secrets but the one address, and goes when its time is over.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clickpost.errors import Refused, Transient
from clickpost.reach import Allowed, permitted

#: How the process ends, beside 0: the message was taken.
_NOT_TAKEN, _REFUSED, _UNKNOWN = 1, 3, 4
_PROJECT = Path(__file__).resolve().parent.parent
#: What a client needs of our environment; a proxy's address and our secrets are left out.
_NEEDED = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_CALLS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")


async def carry(url: str, title: str, text: str, receivers: str, patience: float) -> None:
    """Send a message to the service at an apprise URL, within `patience` seconds.

    `receivers` are the private networks and hosts that an operator allows. Raises Refused for a
    service that is somewhere else inside, Transient where it did not take the message.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connectors._chat"),
        cwd=_PROJECT,
        env=_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    given = {"url": url, "title": title, "text": text, "receivers": receivers}
    try:
        async with asyncio.timeout(patience):
            await process.communicate(json.dumps(given).encode())
    except TimeoutError:
        raise Transient("the chat service did not take it (TimeoutError)") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    _judge(process.returncode)


def _judge(code: int | None) -> None:
    if code == _REFUSED:
        raise Refused(
            "the chat service is inside a private network; an operator can allow it:"
            " CLICKPOST_RECEIVERS"
        )
    if code == _UNKNOWN:
        raise Transient("apprise does not know the channel's address")
    if code != 0:
        raise Transient("the chat service did not take it")


def _environment() -> dict[str, str]:
    known = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    # Passwords of a `.netrc` are for nobody here.
    return known | {"PYTHONPATH": str(_PROJECT), "NETRC": os.devnull}


class Doorman:
    """Knows which addresses were looked up and may be called; refuses every other one."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._known: set[str] = set()
        self._look_up = socket.getaddrinfo
        self.refused = False

    def stand(self) -> None:
        """Guard this process, from now on and for good."""
        socket.getaddrinfo = self.look_up
        sys.addaudithook(self.hear)

    def look_up(self, host: Any, port: Any, *args: Any, **more: Any) -> Any:
        """Look a host up, and remember its addresses if all of them may be called."""
        found = self._look_up(host, port, *args, **more)
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        self._known.update(permitted(name, [str(one[4][0]) for one in found], self._allowed))
        return found

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Raise PermissionError before a connection that may not be."""
        if event in _STARTS:
            raise PermissionError(event)
        if event not in _CALLS:
            return
        line, address = args[0], args[1]
        inet = line.family in (socket.AF_INET, socket.AF_INET6)
        if inet and (not address or address[0] in self._known):
            return  # Without an address it was connected before.
        self.refused = True
        raise PermissionError("not to be called")


def _sent(given: Mapping[str, str]) -> int:
    import apprise

    doorman = Doorman(Allowed.of(given["receivers"]))
    chat = apprise.Apprise()
    if not chat.add(given["url"]):
        return _UNKNOWN
    doorman.stand()
    done = chat.notify(title=given["title"], body=given["text"])
    if doorman.refused:
        return _REFUSED
    return 0 if done else _NOT_TAKEN


if __name__ == "__main__":
    sys.exit(_sent(json.load(sys.stdin)))
