"""Thin shells around one decision: load, decide, act, record."""
