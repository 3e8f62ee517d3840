"""What handles other people's files has an end: of memory, of time, of what it writes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from clickpost.errors import ContentRejected
from clickpost.media import video
from clickpost.media.limited import Limits

ENOUGH = Limits(memory=4_000_000_000, seconds=60, written=10_000_000)


def ran(limits: Limits, code: str) -> subprocess.CompletedProcess[str]:
    words = limits.around([sys.executable, "-c", code])
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_within_its_limits_a_program_is_itself() -> None:
    done = ran(ENOUGH, "import sys; print('said'); sys.exit(3)")
    assert (done.returncode, done.stdout) == (3, "said\n")


def test_memory_has_an_end() -> None:
    done = ran(replace(ENOUGH, memory=500_000_000), "bytearray(1_000_000_000)")
    assert "MemoryError" in done.stderr


def test_time_has_an_end() -> None:
    assert ran(replace(ENOUGH, seconds=1), "while True: pass").returncode == -signal.SIGKILL


def test_what_is_written_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    restore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"
    code = f"{restore}; open({str(path)!r}, 'wb').write(bytes(20_000_000))"
    assert ran(ENOUGH, code).returncode == -signal.SIGXFSZ
    assert path.stat().st_size <= ENOUGH.written


def test_many_threads_start_it_at_once() -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(ran(ENOUGH, "").returncode)) for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert codes == [0] * 8


@pytest.mark.parametrize(
    ("code", "said"),
    [(1, "[x] Cannot allocate memory"), (-signal.SIGXFSZ, ""), (1, "File too large")],
)
def test_a_file_that_wants_too_much_is_refused_and_not_tried_again(code: int, said: str) -> None:
    with pytest.raises(ContentRejected):
        video._judge(code, said)
