"""Instagram: a token that has ended cannot be renewed; only Facebook's login may delete."""

from __future__ import annotations

from tests.contract.cases import Case

CASE = Case(
    publish_step="publish",
    refresh_step="refresh",
    delete_options={"login": "facebook"},
    hides_gone=True,  # Graph says only "does not exist", of what was never ours too.
)
