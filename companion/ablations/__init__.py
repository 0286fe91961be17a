"""Notebook 04: the ablations (Sec. 4.3, App. F)."""
