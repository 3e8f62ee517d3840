"""A folder with one sound policy, to be broken by each test in its own way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from clickpost.policy.load import Problem, check
from clickpost.settings import PROJECT

SHIPPED = sorted((PROJECT / "policies" / "platforms").glob("*.yaml"))
ALL = sorted((PROJECT / "policies").rglob("*.yaml"))
TODAY = date(2026, 11, 24)

#: The smallest sound policy; its lines are counted by the tests.
SOUND = """\
kind: platform
name: parrot
title: Parrot
api: {version: v1, source: "https://parrot.example/api", checked: 2026-09-01}
capabilities: [whoami, publish]
credentials: {token: {why: from the settings}}
scopes: {write: to publish}
text:
  limit: 280
  source: https://parrot.example/limits
  checked: 2026-09-01
media: {source: "https://parrot.example/media", checked: 2026-09-01}
images:
  max: 4
  bytes: 5 MB
  formats: [jpeg, png]
  source: https://parrot.example/media
  checked: 2026-09-01
video:
  max: 1
  containers: [mp4]
  codecs: [h264]
  audio: [aac]
  lasts: {min: 1 s, max: 2 min}
  source: https://parrot.example/media
  checked: 2026-09-01
alt: {limit: 1000, source: "https://parrot.example/media", checked: 2026-09-01}
thread:
  supported: true
  source: https://parrot.example/threads
  checked: 2026-09-01
budget:
  - {per: account, what: posts, total: 300, window: 3 h,
     source: "https://parrot.example", checked: 2026-09-01}
unknown: {find: by_key, settle: 10 s, source: "https://parrot.example/keys", checked: 2026-09-01}
prepared: {lives: 1 h, source: "https://parrot.example/media", checked: 2026-09-01}
processing: {poll: 1 s, give_up: 30 min, source: "https://parrot.example/jobs", checked: 2026-09-01}
errors:
  source: https://parrot.example/errors
  checked: 2026-09-01
  rules:
    - {status: 401, means: revoked}
    - {status: 429, means: rate_limited, retry_after: 5 min}
duties: []
"""


def changed(old: str, new: str) -> str:
    """Return the sound policy with one piece changed."""
    assert SOUND.count(old) == 1, old
    return SOUND.replace(old, new)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of policies, seen from its parent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies" / "platforms").mkdir(parents=True)
    return tmp_path / "policies"


Faults = Callable[[str | bytes], list[Problem]]


@pytest.fixture
def faults(folder: Path) -> Faults:
    """Write one policy file and return what is wrong with it."""

    def of(content: str | bytes) -> list[Problem]:
        raw = content.encode() if isinstance(content, str) else content
        (folder / "platforms" / "parrot.yaml").write_bytes(raw)
        return check(folder, TODAY).problems

    return of
