#!/usr/bin/env python3
"""Checks a ClickPost certificate without ClickPost: `python verify_certificate.py CERT KEY.pem`.

Needs nothing but Python 3.11 and the package `cryptography`, and no network. KEY.pem is the public
key of whoever made the certificate: get it from them by another way than the certificate itself.
The certificate is a JSON file: what is stated, the line of the audit log that names its digest,
the signed head of that log, and a signature over all three.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CHECKPOINT = "clickpost.checkpoint/1"
_PARTS = {"statement", "ledger", "checkpoint", "signature"}


def canonical(value: Any) -> bytes:
    """Return JSON as RFC 8785 writes it; raise ValueError for numbers that are not whole.

    Certificates hold texts, whole numbers, truth values and ASCII names only: for these it is the
    same as sorted names and no spaces.
    """
    _refuse_what_differs(value)
    said = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return said.encode()


def _refuse_what_differs(value: Any) -> None:
    match value:
        case dict():
            for name, inner in value.items():
                if not name.isascii():
                    raise ValueError("a name is not ASCII")
                _refuse_what_differs(inner)
        case list():
            for inner in value:
                _refuse_what_differs(inner)
        case bool() | str() | None:
            return
        case int() if abs(value) < 2**53:
            return
        case _:
            raise ValueError("holds a number that is not whole, or too large")


def faults(document: Any, key: Ed25519PublicKey) -> list[str]:
    """Return what is wrong with a certificate, [] where it is whole and signed with `key`."""
    if not isinstance(document, dict) or set(document) != _PARTS:
        return ["it is no certificate: it must hold statement, ledger, checkpoint and signature"]
    try:
        return list(_faults(document, key))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return [f"it is no certificate: {type(error).__name__} at {error}"]


def _faults(document: Mapping[str, Any], key: Ed25519PublicKey) -> Iterator[str]:
    signed = {name: document[name] for name in ("statement", "ledger", "checkpoint")}
    if not _is_signed(key, canonical(signed), document["signature"]["value"]):
        yield "its signature is not that of the key, or it was changed after it was signed"
    statement, ledger, point = document["statement"], document["ledger"], document["checkpoint"]
    line = json.loads(ledger["line"])
    said = hashlib.sha256(canonical(statement)).hexdigest()
    if line[5].get("sha256") != said or line[5].get("certificate") != statement["certificate"]:
        yield "the line of the audit log speaks of another statement"
    if line[0] != ledger["seq"]:
        yield "the line of the audit log has another number"
    linked = hashlib.sha256(bytes.fromhex(ledger["prev"]) + ledger["line"].encode()).hexdigest()
    if linked != ledger["hash"]:
        yield "the line of the audit log does not give the hash that is written beside it"
    if (point["seq"], point["hash"]) != (ledger["seq"], ledger["hash"]):
        yield "the signed head of the audit log is not this line"
    if not _is_signed(key, checkpoint_of(point), point["signature"]):
        yield "the head of the audit log is not signed with the key"


def checkpoint_of(point: Mapping[str, Any]) -> bytes:
    """Return the bytes that a checkpoint's signature is over."""
    said = {name: point[name] for name in ("seq", "hash", "at", "key_id")}
    return canonical({"type": CHECKPOINT, **said})


def _is_signed(key: Ed25519PublicKey, said: bytes, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), said)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_key(pem: bytes) -> Ed25519PublicKey:
    """Return the public key of a PEM file; raise ValueError for one that is no Ed25519 key."""
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the key is no Ed25519 key")
    return key


def read(text: str | bytes) -> Any:
    """Return a certificate's JSON; raise ValueError where it is none, or names a thing twice."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def told(document: Mapping[str, Any]) -> str:
    """Return what a certificate states, for people."""
    statement = document["statement"]
    lines = [f"{statement['certificate']}: {statement['action']}, {statement['result']}"]
    for one in statement["outcomes"]:
        until = f" until {one['until']}" if one.get("until") else ""
        why = f" ({one['rule']}{until})" if one.get("rule") else ""
        lines.append(f"  {one['location']}: {one['outcome']} {one['count']}{why}")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Check the certificate that is named; return 0 where all is well, 1 where not, 2 for usage."""
    if len(words) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        key = read_key(Path(words[1]).read_bytes())
        document = read(Path(words[0]).read_bytes())
    except (OSError, ValueError) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    if wrong := faults(document, key):
        print("NOT VALID\n" + "\n".join(f"  {one}" for one in wrong))
        return 1
    print(f"valid\n{told(document)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
