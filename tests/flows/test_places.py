"""Whose runs go nowhere: a worker that is no more, here or on another machine."""

from __future__ import annotations

import os
import socket

import pytest

from deployments import warm_worker

HERE = socket.gethostname()
#: No process id is as large as this.
NOBODY = 2**22 + 1


@pytest.mark.parametrize(
    ("place", "dead"),
    [
        (f"{HERE}/warm:{NOBODY}", True),
        (f"{HERE}/warm:{os.getpid()}", True),  # Us, reborn: nothing of ours runs yet.
        (f"{HERE}/warm:{os.getppid()}", True),  # That number is somebody else's by now.
        (f"not-{HERE}/awake:{NOBODY}", False),
        (f"not-{HERE}/silent:{NOBODY}", True),
        (f"not-{HERE}/unheard-of:{NOBODY}", False),
        ("what-another-kind-of-worker-writes", False),
    ],
    ids=["gone", "us", "another's", "awake", "silent", "unheard-of", "no place"],
)
def test_a_place_is_dead_where_its_process_is_gone_or_gives_no_sign(place: str, dead: bool) -> None:
    workers = {"awake": "ONLINE", "silent": "OFFLINE", "warm": "ONLINE"}
    assert warm_worker.is_dead(place, workers) is dead
