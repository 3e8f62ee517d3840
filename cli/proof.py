"""`clickpost privacy verify | certificate | public-key`: what others can check without us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from cli import _house
from cli._output import DONE, FAILED, AsJson, guarded, out, show_json
from clickpost import certificate as certificates
from clickpost import verify_certificate
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.store.certificates import Certificates
from clickpost.store.signer import Signer


@guarded
def verify(
    path: Path = typer.Argument(..., metavar="CERT", help="The certificate's JSON file."),
    key: Path = typer.Option(
        None, "--key", help="The public key (PEM) of who made it; else that of this house."
    ),
    as_json: bool = AsJson,
) -> None:
    """Check a certificate: its signature, its digest, its line of the ledger. Needs no network.

    Exits with 1 where it is not what was signed. `verify_certificate.py` does the same alone.
    """
    try:
        document = verify_certificate.read(path.read_bytes())
        public = (
            verify_certificate.read_key(key.read_bytes())
            if key
            else Signer.of(_house.settings()).public
        )
    except OSError as error:
        raise InvalidInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"no certificate or no key: {error}") from None
    wrong = verify_certificate.faults(document, public)
    if as_json:
        show_json({"valid": not wrong, "faults": wrong})
    elif wrong:
        out.print("[red]not valid[/]")
        for one in wrong:
            out.print(Text(f"  {one}"), soft_wrap=True)
    else:
        out.print("[green]valid[/]")
        out.print(Text(verify_certificate.told(document)), soft_wrap=True)
    raise typer.Exit(FAILED if wrong else DONE)


@guarded
def certificate(
    wanted: str = typer.Argument(..., metavar="ID", help="A certificate's id, or a request's."),
    target: Path = typer.Option(
        None, "--out", help="Write there: .json to be checked, .html to be read; else print JSON."
    ),
    as_json: bool = AsJson,
) -> None:
    """Hand out a certificate, as JSON or as a page."""
    if target is not None and target.suffix not in (".json", ".html"):
        raise InvalidInput(f"--out: {target.name} must end in .json or .html")
    document = _house.run(_document(_house.settings(), wanted))
    if target is None:  # As it was signed, with --json too.
        typer.echo(document)
        return
    page = certificates.as_html(json.loads(document)) if target.suffix == ".html" else document
    _write(target, page)
    if as_json:
        show_json({"file": str(target)})
    else:
        out.print(Text(str(target)), soft_wrap=True)


async def _document(given: Settings, wanted: str) -> str:
    async with _house.opened(given) as store:
        return (await Certificates(store.engine, store.vault).certificate(wanted)).document


@guarded
def public_key(
    target: Path = typer.Option(None, "--out", help="Write it there; else print it."),
    as_json: bool = AsJson,
) -> None:
    """Hand out the key by which certificates are checked: publish it where people find it."""
    signer = Signer.of(_house.settings())
    told: dict[str, Any] = {"key_id": signer.key_id, "pem": signer.pem}
    if target is not None:
        _write(target, signer.pem)
    if as_json:
        show_json(told)
    elif target is None:
        typer.echo(signer.pem, nl=False)
    else:
        out.print(Text(str(target)), soft_wrap=True)


def _write(target: Path, said: str) -> None:
    try:
        target.write_text(said, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror}") from None
