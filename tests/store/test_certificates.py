"""A certificate says what was done and proves it offline; whoever changes a letter is found out."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost import certificate, verify_certificate
from clickpost.certificate import Outcome, Statement
from clickpost.errors import Unavailable
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.store._base import append
from clickpost.store.certificates import Certificates
from clickpost.store.signer import Signer

AT = datetime(2026, 11, 24, 3, tzinfo=UTC)
runner = CliRunner(env={"COLUMNS": "250"})

STATEMENT = Statement(
    certificate="cert_1",
    action="erasure",
    request="erasure_1",
    outcomes=(
        Outcome("ticket", "A conversation with support.", "erased", 3),
        Outcome("invoice", "A bill.", "held", 1, "invoices: § 147 AO", AT),
    ),
    policy="person",
    policy_sha256="ab" * 32,
    asked_at=AT,
    begun_at=AT,
    read_back_at=AT,
    certified_at=AT,
    remains=("Withdraw the grant at Parrot.",),
)


async def issued(store: Store, signer: Signer) -> dict[str, Any]:
    certificates = Certificates(store.engine, store.vault)
    async with certificates.transaction() as session:
        return await certificates.issue(session, STATEMENT, signer)


async def test_a_certificate_is_valid_and_a_script_alone_can_tell(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    signer = Signer.of(settings)
    document = await issued(store, signer)
    (tmp_path / "cert.json").write_bytes(certificate.canonical(document))
    (tmp_path / "key.pem").write_text(signer.pem)
    # Alone: elsewhere, and with none of our packages in reach.
    script = tmp_path / "alone.py"
    script.write_text((PROJECT / "clickpost" / "verify_certificate.py").read_text())
    done = await asyncio.to_thread(_alone, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete, except for what a rule holds" in done.stdout
    assert "ticket: erased 3" in done.stdout

    (tmp_path / "cert.json").write_bytes(
        certificate.canonical(document).replace(b'"count":3', b'"count":2')
    )
    done = await asyncio.to_thread(_alone, script)
    assert done.returncode == 1
    assert "NOT VALID" in done.stdout


def _alone(script: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(script), "cert.json", "key.pem"]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for name, one in value.items() for leaf in _leaves(one, (*path, name))]
    if isinstance(value, list):
        return [leaf for number, one in enumerate(value) for leaf in _leaves(one, (*path, number))]
    return [path]


def _changed(value: Any) -> Any:
    match value:
        case str() if value:
            return value[:-1] + ("A" if value[-1] != "A" else "B")
        case int():
            return value + 1
        case _:
            return "x"


async def test_whatever_is_changed_is_found_out(store: Store, settings: Settings) -> None:
    signer = Signer.of(settings)
    document = await issued(store, signer)
    assert verify_certificate.faults(document, signer.public) == []
    unseen = {("signature", "algorithm"), ("signature", "key_id")}  # Said for people only.
    for path in set(_leaves(document)) - unseen:
        bad = copy.deepcopy(document)
        at = bad
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = _changed(at[path[-1]])
        assert verify_certificate.faults(bad, signer.public), path


async def test_a_part_added_or_taken_away_is_found_out(store: Store, settings: Settings) -> None:
    signer = Signer.of(settings)
    document = await issued(store, signer)
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda d: d["statement"]["outcomes"].pop(),
        lambda d: d["statement"].update(note="fine"),
        lambda d: d.update(note="fine"),
        lambda d: d.pop("checkpoint"),
        lambda d: d.pop("signature"),
        lambda d: d["statement"].pop("times"),
        lambda d: d.update(ledger=None),
        lambda d: d["ledger"].update(line="[]"),
    ]
    for change in changes:
        bad = copy.deepcopy(document)
        change(bad)
        assert verify_certificate.faults(bad, signer.public)
    assert verify_certificate.faults([], signer.public)
    assert verify_certificate.faults("x", signer.public)
    with pytest.raises(ValueError, match="twice"):
        verify_certificate.read('{"statement": 1, "statement": 2}')


async def test_another_key_proves_nothing(store: Store, settings: Settings) -> None:
    document = await issued(store, Signer(Ed25519PrivateKey.generate()))
    assert verify_certificate.faults(document, Signer.of(settings).public)


_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_VALUES)
def test_the_script_writes_json_as_rfc_8785_does(value: Any) -> None:
    assert verify_certificate.canonical(value) == certificate.canonical(value)


@pytest.mark.parametrize("value", [1.5, {"ä": 1}, 2**60, [float("nan")]])
def test_the_script_refuses_what_it_might_write_otherwise(value: Any) -> None:
    with pytest.raises(ValueError, match="not"):
        verify_certificate.canonical(value)


async def test_a_ledger_that_was_written_anew_is_found_out(
    store: Store, settings: Settings
) -> None:
    signer = Signer.of(settings)
    certificates = Certificates(store.engine, store.vault)
    async with certificates.transaction() as session:
        await append(session, "post.created", "post_1", {})
    assert await certificates.checkpoint(signer) == 1
    assert await certificates.checkpoint(signer) is None
    assert await certificates.wrong_checkpoint(signer.public) is None

    # Somebody with the database in hand writes another history, hash by hash.
    async with store.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE ledger DISABLE TRIGGER ledger_append_only"))
        await connection.execute(text("DELETE FROM ledger"))
        await connection.execute(
            text("UPDATE ledger_head SET seq = 0, hash = decode(repeat('00', 32), 'hex')")
        )
        await connection.execute(text("SELECT ledger_append('engine', 'post.created', 'p', '{}')"))
    assert (await store.verify()).broken is None
    broken = await certificates.wrong_checkpoint(signer.public)
    assert broken is not None
    assert (broken.seq, broken.why) == (1, "it is not what was signed")


async def test_a_signed_head_cannot_be_changed_or_forged(store: Store, settings: Settings) -> None:
    signer = Signer.of(settings)
    certificates = Certificates(store.engine, store.vault)
    await issued(store, signer)
    async with store.engine.connect() as connection:
        for query in ("DELETE FROM checkpoint", "UPDATE checkpoint SET signature = ''"):
            with pytest.raises(Exception, match="append-only"):
                await connection.execute(text(query))
            await connection.rollback()
    async with store.engine.begin() as connection:
        await connection.execute(
            text("ALTER TABLE checkpoint DISABLE TRIGGER checkpoint_append_only")
        )
        await connection.execute(text("UPDATE checkpoint SET signature = 'AAAA'"))
    broken = await certificates.wrong_checkpoint(signer.public)
    assert broken is not None
    assert broken.why == "its signature is wrong"


def test_the_key_is_made_once_and_is_for_its_owner_alone(settings: Settings) -> None:
    first = Signer.of(settings)
    assert Signer.of(settings).key_id == first.key_id
    file = settings.home / "signing.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in settings.home.iterdir()] == ["signing.key"]
    file.chmod(0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        Signer.of(settings)


def test_what_blocks_is_never_certified() -> None:
    for kind in certificate.BLOCKING:
        bad = Statement(**{**vars(STATEMENT), "outcomes": (Outcome("x", "X.", kind, 1),)})
        with pytest.raises(ValueError, match="complete"):
            bad.as_json()


async def test_the_commands_hand_out_and_check(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_house, "settings", lambda: settings)
    await issued(store, Signer.of(settings))
    await store.engine.dispose()

    def called(*words: str, code: int = 0) -> str:
        answer = runner.invoke(app, list(words))
        assert answer.exit_code == code, answer.output
        return answer.output

    async def shown(*words: str, code: int = 0) -> str:
        return await asyncio.to_thread(called, *words, code=code)

    cert, page, key = tmp_path / "c.json", tmp_path / "c.html", tmp_path / "k.pem"
    await shown("privacy", "certificate", "erasure_1", "--out", str(cert))
    await shown("privacy", "certificate", "cert_1", "--out", str(page))
    await shown("privacy", "public-key", "--out", str(key))
    assert "valid" in await shown("privacy", "verify", str(cert))
    assert "valid" in await shown("privacy", "verify", str(cert), "--key", str(key))
    assert json.loads(await shown("privacy", "verify", str(cert), "--json")) == {
        "valid": True, "faults": [],
    }  # fmt: skip
    html = page.read_text()
    for word in ("A conversation with support.", "§ 147 AO", "Withdraw the grant", "cert_1"):
        assert word in html
    cert.write_text(cert.read_text().replace("erasure_1", "erasure_2"))
    assert "not valid" in await shown("privacy", "verify", str(cert), code=1)
    await shown("privacy", "verify", str(page), code=2)
    await shown("privacy", "certificate", "cert_9", code=2)
    assert "1 lines, unbroken" in await shown("audit", "verify")
    assert "already" in await shown("audit", "checkpoint")
