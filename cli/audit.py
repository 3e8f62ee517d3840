"""`clickpost audit verify | rotate-keys`: the ledger's chain, and the master key."""

from __future__ import annotations

from dataclasses import replace

import typer

from cli import _house
from cli._actor import permitted
from cli._output import DONE, FAILED, AsJson, guarded, out, show_json
from clickpost.people import Right
from clickpost.settings import Settings
from clickpost.store.certificates import Certificates
from clickpost.store.ledger import Walked
from clickpost.store.processors import Processors
from clickpost.store.signer import Signer
from clickpost.store.tombstones import Tombstones
from clickpost.store.vault import Vault, add_key, forget_former

app = typer.Typer(no_args_is_help=True, help="Check the ledger; rotate the master key.")


@app.command()
@guarded
def verify(as_json: bool = AsJson) -> None:
    """Walk the ledger's chain and its signed heads, and name the first broken line."""
    walked = _house.run(_walked(_house.settings()))
    broken = walked.broken
    if as_json:
        found = {"line": broken.seq, "why": broken.why} if broken else None
        show_json({"lines": walked.lines, "head": walked.head, "broken": found})
    elif broken:
        out.print(f"[red]broken[/] at line {broken.seq}: {broken.why}")
    else:
        out.print(f"{walked.lines} lines, unbroken; head {walked.head[:16]}")
    raise typer.Exit(FAILED if broken else DONE)


async def _walked(given: Settings) -> Walked:
    async with _house.opened(given) as store:
        walked = await store.verify()
        if walked.broken is None:
            key = Signer.of(given).public
            broken = await Certificates(store.engine, store.vault).wrong_checkpoint(key)
            walked = replace(walked, broken=broken)
        return walked


@app.command()
@guarded
def checkpoint(as_json: bool = AsJson) -> None:
    """Sign the ledger's head now; each certificate and each nightly purge does it too."""
    seq = _house.run(_signed(_house.settings()))
    if as_json:
        show_json({"signed": seq})
    else:
        out.print(f"line {seq} is signed" if seq else "the head is signed already")


async def _signed(given: Settings) -> int | None:
    async with _house.opened(given) as store:
        return await Certificates(store.engine, store.vault).checkpoint(Signer.of(given))


@app.command("rotate-keys")
@guarded
def rotate_keys(as_json: bool = AsJson) -> None:
    """Seal every secret anew under a new master key.

    With a key file a new key is appended, everything is sealed anew, then the old key is
    forgotten: a kill in between loses nothing, run it again. With CLICKPOST_MASTER_KEY, set the
    new key there and the old one in CLICKPOST_MASTER_KEY_OLD, then run this.
    """
    given = _house.settings()
    permitted(Right.MAINTAIN)
    path = given.home / "master.key"
    if given.master_key is None:
        add_key(path)
    count = _house.run(_sealed(given))
    vault = Vault.of(given)
    Tombstones(given.tombstones_root, vault).seal_anew()
    if given.master_key is None:
        forget_former(path)
    if as_json:
        show_json({"sealed": count})
    else:
        out.print(f"{count} connections and channels sealed under a new key")
        if given.master_key is not None:
            out.print("restart what runs with the new key: clickpost down; clickpost up")


async def _sealed(given: Settings) -> int:
    async with _house.opened(given) as store:
        return sum(
            [
                await store.seal_anew(),
                await store.seal_channels_anew(),
                await store.seal_invitations_anew(),
                await store.seal_requests_anew(),
                await Processors.beside(store).seal_asks_anew(),
            ]
        )
