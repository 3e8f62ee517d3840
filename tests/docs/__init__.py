"""Promises about the documents."""
