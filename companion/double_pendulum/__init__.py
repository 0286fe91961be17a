"""Notebook 01: variance and ESNR of gradient estimators against the horizon (Sec. 3.2, App. B)."""
