"""Bluesky: a record that we name ourselves, and short-lived tokens."""

from __future__ import annotations

from clickpost.errors import TokenExpired
from tests.contract.cases import Case

CASE = Case(publish_step="put_record", refresh_step="refresh", ended=TokenExpired)
