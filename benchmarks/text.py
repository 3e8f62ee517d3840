"""Fits a second over a mixed corpus, beside bare grapheme counting of the same texts."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import regex

from benchmarks._show import show
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT
from clickpost.wording import fit

CORPUS = (
    "Blue hour in the harbour. https://example.org/harbour_(evening) #harbour @bob.test",
    "Grüße aus dem Café 👩‍👩‍👧‍👦 und noch ein Satz, der etwas länger ist. " * 3,
    "港の夕暮れ。三艘の船と空。 #港 " * 8,
    "مرحبا بالعالم، هذا نص طويل من اليمين إلى اليسار. " * 6,
    "The quick brown fox jumps over the lazy dog. " * 30,
    "@a@example.social @b@example.social " * 10,
)
_GRAPHEME = regex.compile(r"\X")


def main(*, as_json: bool = False) -> None:
    """Measure and show."""
    policies = load_platforms(PROJECT / "policies")
    wanted = [policies[name] for name in ("bluesky", "mastodon", "instagram")]

    def ours() -> int:
        for text in CORPUS:
            for policy in wanted:
                fit(text, policy=policy, how="shorten", media=1)
        return len(CORPUS) * len(wanted)

    def floor() -> int:
        for text in CORPUS:
            for _ in wanted:
                len(_GRAPHEME.findall(text))
        return len(CORPUS) * len(wanted)

    rates = {name: _rate(work) for name, work in (("ours", ours), ("floor", floor))}
    row = {
        "measure": "fits a second",
        "value": round(rates["ours"]),
        "floor": f"{round(rates['floor'])} bare counts",
        "ratio": round(rates["ours"] / rates["floor"], 3),
        "aim": "as many as can be",
    }
    show("text", [row], as_json=as_json)


def _rate(work: object) -> float:
    assert callable(work)
    rates = []
    for _ in range(7):
        began, done = perf_counter(), 0
        while perf_counter() - began < 0.3:
            done += work()
        rates.append(done / (perf_counter() - began))
    return median(rates)
