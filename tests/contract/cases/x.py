"""X: no key, texts that may not repeat, and tokens of two hours."""

from __future__ import annotations

from clickpost.errors import TokenExpired
from tests.contract.cases import Case

CASE = Case(publish_step="create", refresh_step="token", ended=TokenExpired)
