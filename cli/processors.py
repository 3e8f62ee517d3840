"""`clickpost privacy vendors`: how vendors stand in an erasure, and what a person does about it."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from cli import _house
from cli._actor import As, actor
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.store.processors import Processors
from clickpost.store.tables import ProcessorAsk


@guarded
def vendors(
    erasure_id: str = typer.Argument(..., metavar="ERASURE", help="Its id, as the plan shows it."),
    again: str | None = typer.Option(
        None, "--again", metavar="VENDOR", help="Ask this one once more: what it refused is mended."
    ),
    done: str | None = typer.Option(
        None, "--done", metavar="VENDOR", help="Say that you saw to it there yourself."
    ),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Show what each vendor was asked to erase, and how that stands; times are UTC.

    Who it is about is not shown: only that, and how many records.
    """
    if again is not None and done is not None:
        raise InvalidInput("--again or --done, not both")
    given = _house.settings()
    rows = _house.run(_changed(given, erasure_id, again, done, actor(name)))
    told = [line_of(row) for row in rows]
    if as_json:
        show_json(told)
        return
    if not told:
        out.print("no vendor is asked in this erasure")
        return
    table = Table(box=None, pad_edge=False)
    for key in told[0]:
        table.add_column(key)
    for line in told:
        table.add_row(*(Text(str(value)) for value in line.values()))
    out.print(table)


async def _changed(
    given: Settings, erasure_id: str, again: str | None, done: str | None, by: str
) -> list[ProcessorAsk]:
    async with _house.opened(given) as store:
        asks = Processors.beside(store)
        await asks.erasure(erasure_id)
        if again is not None:
            await asks.ask_again(erasure_id, again, by)
        if done is not None:
            await asks.settle(erasure_id, done, by)
        return list(await asks.asks(erasure_id))


def line_of(row: ProcessorAsk) -> dict[str, object]:
    """Return one line about an ask: ids, states, counts and times."""
    return {
        "ask": row.id,
        "vendor": row.processor,
        "state": row.state,
        "step": row.step or "",
        "erased": row.erased,
        "calls": row.calls,
        "again": f"{row.again_at:%Y-%m-%d %H:%M}" if row.again_at else "",
        "due": f"{row.due_at:%Y-%m-%d}",
        "why": row.reason or "",
    }
