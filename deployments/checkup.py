"""Looks at the whole house, part by part; one that is broken hides none of the others."""

from __future__ import annotations

import asyncio
import contextlib
import re
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import imageio_ffmpeg

import connectors
from clickpost.errors import ClickPostError, PolicyError
from clickpost.policy.load import check, load_platforms
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import Store, address
from clickpost.store.database import versions
from clickpost.store.tables import Connection
from connectors import _mailbox
from deployments import health, logfiles
from deployments.health import MOST_SKEW, Part
from tasks import watching

_PATIENCE = 5.0


async def look(settings: Settings) -> list[Part]:
    """Return how every part is."""
    alone = [disk, logs, master_key, policies, ffmpeg, mailbox]
    told = [asyncio.to_thread(_guarded, made, settings) for made in alone]
    asked = [_database(settings), _prefect(settings), gateway(settings)]
    return [one for parts in await asyncio.gather(*asked, *told) for one in parts]


def _guarded(made: Callable[[Settings], Part], settings: Settings) -> list[Part]:
    try:
        return [made(settings)]
    except Exception as error:  # A check that breaks is told like a part that does.
        return [Part(made.__name__.replace("_", " "), False, type(error).__name__, "see the logs")]


async def _database(settings: Settings) -> list[Part]:
    try:
        address(settings)
    except FileNotFoundError:
        return [Part("database", False, "was never started here", "clickpost up")]
    try:
        store = await Store.of(settings)
    except Exception as error:
        return [Part("database", False, str(error), "see the master key below")]
    try:
        found = await health.database(store)
        if not found.well:
            return [found]
        return [found, *await _inside(settings, store)]
    finally:
        await store.close()


async def _inside(settings: Settings, store: Store) -> list[Part]:
    """Return what only the database can tell; nothing more where its tables are too old."""
    tables = await asyncio.to_thread(migrations, settings)
    if not tables.well:
        return [tables]
    begun = datetime.now(UTC)
    theirs = await store.clock()
    skew = theirs - (begun + (datetime.now(UTC) - begun) / 2)
    told = [tables, clock("clock of the database", skew), await channels(store)]
    try:
        return [*told, await tokens(settings, store), await stuck(settings, store)]
    except PolicyError:
        do = "clickpost policy check"
        return [*told, Part("accounts", False, "cannot be told without sound policies", do)]


def migrations(settings: Settings) -> Part:
    """Say whether the tables are those of this version."""
    has, wants = versions(address(settings))
    if has == wants:
        return Part("tables", True, f"version {has}")
    says = f"version {has or 'none'}, this program wants {wants}"
    return Part("tables", False, says, "clickpost up brings them up to date")


def clock(name: str, skew: timedelta | None) -> Part:
    """Say whether two clocks agree."""
    if skew is None:
        return Part(name, True, "it does not tell the time")
    says = f"{skew.total_seconds():+.1f} s from ours"
    do = "" if abs(skew) <= MOST_SKEW else "set both clocks by NTP: posts go by them"
    return Part(name, not do, says, do)


async def tokens(settings: Settings, store: Store) -> Part:
    """Say whether every account can be used, and goes on to."""
    now = datetime.now(UTC)
    platforms, bad = load_platforms(settings.policies), []
    rows = await store.connections()
    for row in rows:
        if row.status != "active":
            bad.append(f"{row.ref} is {row.status}")
        elif (ends := row.expires_at) and ends - now < _margin(store, row, platforms[row.platform]):
            bad.append(f"the token of {row.ref} ends {ends:%Y-%m-%d %H:%M} UTC")
    if bad:
        return Part("accounts", False, "; ".join(bad), "clickpost connect PLATFORM --name NAME")
    return Part("accounts", True, f"{len(rows)} connected")


def _margin(store: Store, row: Connection, policy: PlatformPolicy) -> timedelta:
    """Return how long before its end a token that still is not renewed needs somebody."""
    if policy.tokens is not None:
        return max(policy.tokens.renew - timedelta(days=1), timedelta())
    renews = any(name.startswith("refresh") for name in store.opened(row).secrets)
    # A session that is renewed at the next send may have ended long ago.
    return -timedelta(days=36500) if renews else timedelta(days=3)


async def channels(store: Store) -> Part:
    """Say whether there is somebody to tell, and whether they were told."""
    rows, untold = await store.channels(), await store.untold(datetime.now(UTC))
    if not rows:
        do = "clickpost notify add NAME --email ADDRESS"
        return Part("channels", True, "nobody is told of trouble", do)
    if untold:
        names = sorted({one.channel for one in untold})
        says = f"{len(untold)} notices were not taken: {', '.join(names)}"
        return Part("channels", False, says, f"clickpost notify test {names[0]}")
    return Part("channels", True, f"{len(rows)} take what we tell")


async def stuck(settings: Settings, store: Store) -> Part:
    """Say whether deliveries wait that should have gone on."""
    found = await watching.found(settings, store)
    if found:
        return Part("deliveries", False, f"{len(found)} are stuck", "clickpost status")
    return Part("deliveries", True, "nothing is stuck")


async def _prefect(settings: Settings) -> list[Part]:
    async with health.prefect_client(settings) as http:
        parts = await health.prefect(http)
        if parts[0].well:
            with contextlib.suppress(httpx.HTTPError):
                parts.append(clock("clock of Prefect", (await health.hear(http)).skew))
    return parts


async def gateway(settings: Settings) -> list[Part]:
    """Say whether the gateway answers here, and where platforms look for it."""
    here = settings.model_copy(update={"public_url": None}).gateway_url
    parts = [await _answers("gateway", here, "clickpost up")]
    if settings.public_url:
        do = "look at the proxy, DNS and certificate of CLICKPOST_PUBLIC_URL"
        parts.append(await _answers("gateway from outside", settings.public_url.rstrip("/"), do))
    return parts


async def _answers(name: str, base: str, do: str) -> Part:
    async with httpx.AsyncClient(timeout=_PATIENCE, trust_env=False) as http:
        try:
            status = (await http.get(f"{base}/livez")).status_code
        except httpx.HTTPError as error:
            return Part(name, False, f"does not answer ({type(error).__name__})", do)
    if status != httpx.codes.OK:
        return Part(name, False, f"answers {status}", do)
    return Part(name, True)


def disk(settings: Settings) -> Part:
    """Say whether there is room."""
    return health.disk(settings)


def logs(settings: Settings) -> Part:
    """Say how much room the log files of this machine take, and whether somebody packs them."""
    found, wanted = logfiles.size(settings.home), logfiles.rules(settings.policies)
    says = f"{found.bytes / 1_000_000:.1f} MB in {found.files} files"
    if found.largest > logfiles.NEGLECTED * wanted.rotate_at:
        says += f", one of {found.largest / 1_000_000:.0f} MB"
        return Part(
            "logs", False, says, "a worker packs them (clickpost up), if it may write there"
        )
    return Part("logs", True, says)


def mailbox(settings: Settings) -> Part:
    """Say whether the mailbox for people's requests lets us in, where one is named."""
    if settings.imap_host is None:
        do = "CLICKPOST_IMAP_HOST, where people's requests shall come by mail"
        return Part("mailbox", True, "none is named", do)
    try:
        _mailbox.look(settings)
    except ClickPostError as error:
        do = "look at the mail server, then at CLICKPOST_IMAP_*"
        return Part("mailbox", False, str(error), do)
    return Part("mailbox", True)


def master_key(settings: Settings) -> Part:
    """Say whether the key that opens all secrets is there, and for us alone."""
    if settings.master_key is not None:
        return Part("master key", True, "from the environment")
    path = settings.home / "master.key"
    if not path.exists():
        return Part("master key", False, "there is none yet", "clickpost up makes one")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Part("master key", False, f"mode {mode:04o}: others read it", f"chmod 600 {path}")
    return Part("master key", True, f"mode {mode:04o}; have a copy elsewhere")


def policies(settings: Settings) -> Part:
    """Say whether the policies hold together."""
    report = check(settings.policies, datetime.now(UTC).date(), connectors.capabilities())
    if report.problems:
        says = f"{len(report.problems)} faults"
        return Part("policies", False, says, "clickpost policy check")
    return Part("policies", True, f"{len(report.warnings)} warnings" if report.warnings else "ok")


def ffmpeg(settings: Settings) -> Part:
    """Say whether there is an ffmpeg that runs."""
    try:
        done = subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-version"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE * 4,
            check=True,
        )
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        do = "install imageio-ffmpeg again (make setup)"
        return Part("ffmpeg", False, f"does not run ({type(error).__name__})", do)
    found = re.match(r"ffmpeg version (\S+)", done.stdout)
    return Part("ffmpeg", True, found[1] if found else "ok")
