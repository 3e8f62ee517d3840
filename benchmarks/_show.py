"""How a benchmark shows what it measured."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print `rows` (measure, value, floor, ratio, aim) as a table, or as JSON."""
    if as_json:
        sys.stdout.write(json.dumps({"benchmark": title, "rows": rows}, indent=2) + "\n")
        return
    table = Table("measure", "value", "floor", "ratio", "aim", title=title, title_justify="left")
    for row in rows:
        table.add_row(
            *(str(row.get(key, "")) for key in ("measure", "value", "floor", "ratio", "aim"))
        )
    Console().print(table)
