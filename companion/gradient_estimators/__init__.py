"""Notebook 05: a lesson on first-order and zeroth-order gradients."""
