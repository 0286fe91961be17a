"""Notebook 02: single tasks on the differentiable simulator (Sec. 4.1, App. D)."""
