"""Draws the data map as a picture: a card for each table, a colour for each category."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from clickpost.datamap import Line, lines
from clickpost.policy.privacy import CATEGORIES, DataMap

#: Colours that stay apart for people who do not see red and green (Okabe and Ito).
_COLOURS = dict(
    zip(
        CATEGORIES,
        ("#e69f00", "#56b4e9", "#009e73", "#0072b2", "#cc79a7", "#999999", "#d55e00", "#f0e442"),
        strict=True,
    )
)
_PLAIN = "#ffffff"
_WIDE, _ROW, _HEAD, _GAP, _ACROSS = 300, 15, 40, 20, 4


def as_svg(data_map: DataMap) -> str:
    """Return the map as SVG; personal places have their category's colour, others none."""
    by_table: dict[str, list[Line]] = {name: [] for name in data_map.tables}
    for line in lines(data_map):
        by_table[line.table].append(line)
    bottoms = [_GAP + 50] * _ACROSS
    cards = []
    for name, places in by_table.items():
        at = bottoms.index(min(bottoms))
        left, top = _GAP + at * (_WIDE + _GAP), bottoms[at]
        subject = ", ".join(data_map.tables[name].subject) or "nobody"
        cards.append(_card(name, subject, places, left, top))
        bottoms[at] = top + _HEAD + _ROW * len(places) + _GAP
    for name, store in data_map.stores.items():
        at = bottoms.index(min(bottoms))
        left, top = _GAP + at * (_WIDE + _GAP), bottoms[at]
        line = Line(name, store.ends[:52], store.category or "", "", "", store.purpose, "")
        cards.append(_card(name, store.where[:44], [line], left, top, word="in"))
        bottoms[at] = top + _HEAD + _ROW + _GAP
    wide, high = _GAP + _ACROSS * (_WIDE + _GAP), max(bottoms) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}"'
        f' viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fafafa"/>{_legend()}{"".join(cards)}</svg>\n'
    )


def _legend() -> str:
    parts = [f'<text x="{_GAP}" y="24" font-size="16" font-weight="bold">Data map</text>']
    for number, (name, said) in enumerate(CATEGORIES.items()):
        left, top = _GAP + 110 + number % 4 * 290, 14 + number // 4 * 22
        parts.append(
            f'<rect x="{left}" y="{top}" width="12" height="12" fill="{_COLOURS[name]}"/>'
            f'<text x="{left + 18}" y="{top + 10}">{escape(said)}</text>'
        )
    return "".join(parts)


def _card(
    name: str, subject: str, places: Sequence[Line], left: int, top: int, word: str = "about"
) -> str:
    high = _HEAD + _ROW * len(places)
    parts = [
        f'<rect x="{left}" y="{top}" width="{_WIDE}" height="{high}" rx="4" fill="#ffffff"'
        ' stroke="#888888"/>'
        f'<text x="{left + 8}" y="{top + 16}" font-size="13" font-weight="bold">{escape(name)}'
        f'</text><text x="{left + 8}" y="{top + 30}" fill="#555555">{word}: {escape(subject[:44])}'
        "</text>"
    ]
    for number, line in enumerate(places):
        y = top + _HEAD + number * _ROW
        colour = _COLOURS.get(line.category, _PLAIN)
        parts.append(
            f'<rect x="{left + 8}" y="{y}" width="10" height="10" fill="{colour}"'
            ' stroke="#cccccc"/>'
            f'<text x="{left + 24}" y="{y + 9}">{escape(line.place)}'
            f"<title>{escape(line.purpose)}</title></text>"
            f'<text x="{left + _WIDE - 8}" y="{y + 9}" text-anchor="end" fill="#777777">'
            f"{escape(line.treatment)}</text>"
        )
    return "".join(parts)
