"""`clickpost posts settle`: an operator says what no look can tell."""

from __future__ import annotations

from typing import Any

import typer

from cli import _house
from cli._actor import As, actor
from cli._arguments import POST
from cli._output import AsJson, guarded, out, show_json
from cli._publishing import report_of, shown, started
from clickpost.asking import Answer, checked
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Delivery
from deployments import runs
from tasks import answering

To = typer.Option(..., "--to", metavar="PLATFORM/NAME", help="Which of its accounts.")
Said = typer.Option(
    ...,
    "--answer",
    help="Sent, and nobody knows: there, again or give-up. Late, and to be asked: publish or skip."
    " Part of a thread is there: again (the rest) or give-up.",
)
Url = typer.Option(None, "--url", help="Where it is, with the answer `there`.")


@guarded
def settle(
    post_id: str = POST,
    to: str = To,
    answer: Answer = Said,
    url: str = Url,
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Answer what no look can tell; the question that waits in the Prefect UI ends."""
    given = _house.settings()
    by = actor(name)
    report = _house.run(settled(given, post_id, to, answer, checked(url), by, quiet=as_json))
    if as_json:
        show_json(report)


async def settled(
    given: Settings,
    post_id: str,
    to: str,
    answer: Answer,
    url: str | None,
    by: str = "operator",
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Take the answer, end the question's run, and send at once what it lets go."""
    more: dict[str, Any] = {}
    async with _house.opened(given) as store:
        seen = await _delivery(store, post_id, to)
        decision = await answering.settle(store, seen, answer, url, actor=by)
        await _ended(given, store, seen, answer)
        if decision.sends:
            more["run"] = await started(given, store, post_id, None)
        if not quiet:
            out.print(shown(await store.lines(post_id)))
            if more:
                out.print(f"run: {more['run']}")
        return await report_of(store, post_id) | more


async def _delivery(store: Store, post_id: str, to: str) -> Delivery:
    await store.post(post_id)
    lines = await store.lines(post_id)
    for line in lines:
        if to == line.ref:
            return await store.delivery(line.id)
    known = ", ".join(line.ref for line in lines)
    raise InvalidInput(f"{post_id} does not go to {to}; it goes to: {known}")


async def _ended(given: Settings, store: Store, seen: Delivery, answer: Answer) -> None:
    """End the run that waits for the answer; where Prefect is away, `reconcile-deliveries` does."""
    if seen.question_run_id is None:
        return
    message = f"answered on the command line: {answer}"
    if runs.complete(given, seen.question_run_id, message):
        await store.set_question(seen.id, None)
