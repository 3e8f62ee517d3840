"""YouTube: the last byte publishes, and short-lived tokens."""

from __future__ import annotations

from clickpost.errors import TokenExpired
from tests.contract.cases import Case

CASE = Case(publish_step="bytes", refresh_step="token", ended=TokenExpired)
