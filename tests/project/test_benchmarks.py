"""What a benchmark started is stopped, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clickpost.settings import PROJECT

PROGRAM = """
import asyncio, os, pathlib, signal, sys
from benchmarks import _house

class Stack:
    def __init__(self, given):
        self.home = given.home
    def up(self, *, sandbox):
        pathlib.Path(sys.argv[1], "home").write_text(str(self.home))
    def down(self):
        os.kill(os.getpid(), signal.SIGTERM)  # Somebody is impatient.
        pathlib.Path(sys.argv[1], "down").touch()

async def measured():
    print("up", flush=True)
    await asyncio.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background ignores it.
_house.Stack = Stack
with _house.settings() as given, _house.stack(given):
    asyncio.run(measured())
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_benchmark_that_is_ended_leaves_nothing_behind(tmp_path: Path, end: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == b"up\n"
        bench.send_signal(end)
        code = bench.wait(20)
    assert code in (128 + end, -end)
    assert (tmp_path / "down").exists()
    assert not Path((tmp_path / "home").read_text()).exists()
