"""Runs a program with limits on memory, processor time and the size of what it writes.

`python limited.py BYTES SECONDS BYTES PROGRAM …` limits itself, then becomes the program. A hook
between fork and exec (`preexec_fn`) would do the same, and may hang a process that has threads.
It imports nothing of ours: it has to start within milliseconds.
"""

import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass

#: A rendition gives way to sends that are due, where both want a processor.
_GIVES_WAY = 10


@dataclass(frozen=True)
class Limits:
    """Bytes of memory, seconds of processor time over all cores, bytes of each file written."""

    memory: int
    seconds: int
    written: int

    def around(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs `words` within these limits."""
        given = [str(one) for one in (self.memory, self.seconds, self.written)]
        # Isolated, without site packages: nothing of the environment leads it astray.
        return [sys.executable, "-I", "-S", __file__, *given, *words]


def main(memory: str, seconds: str, written: str, *words: str) -> None:
    """Limit this process and become the program."""
    wanted = (
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_CPU, int(seconds)),
        (resource.RLIMIT_FSIZE, int(written)),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in wanted:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS has no limit of address space.
            continue
    os.nice(_GIVES_WAY)
    os.execv(words[0], words)  # noqa: S606 - a list of arguments that we built.


if __name__ == "__main__":
    main(*sys.argv[1:])
