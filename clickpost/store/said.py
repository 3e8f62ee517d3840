"""Says in SQL what of a row is searched for names, and by which index names are found there.

The index has no word: of each two words that follow each other it has a number. A GIN index never
forgets its keys, and nobody's name may stay in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from clickpost.store.treatments import quoted

_PAIRS = "privacy_pairs("
#: What stands in the index's expression beside the columns.
_NOT_COLUMNS = re.compile(r"::\w+|\bAS text\b|\b(CAST|VARIADIC|ARRAY|privacy_\w+)\b", re.IGNORECASE)


def text_of(column: str, kind: str, row: str = "") -> str:
    """Return what people wrote in a column, as one text; between the texts of JSON stands \\x01."""
    name = f"{row}{quoted(column)}"
    return f"privacy_said({name})" if kind == "json" else f"CAST({name} AS text)"


def pairs_of(columns: Sequence[str], kinds: Mapping[str, str], row: str = "") -> str:
    """Return the numbers of all that is written in these columns: what the index is made of."""
    said = ", ".join(text_of(one, kinds[one], row) for one in columns)
    return f"{_PAIRS}VARIADIC ARRAY[{said}])"


def columns_of(expressions: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of the index by which names are found, in its order; () for none."""
    names = set(known)
    for one in expressions:
        if one.startswith(_PAIRS):
            words = re.findall(r"\w+", _NOT_COLUMNS.sub(" ", one))
            return tuple(word for word in words if word in names)
    return ()
