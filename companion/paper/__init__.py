"""Notebook 06: every figure from stored tables, and the claims ledger."""
