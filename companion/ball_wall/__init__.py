"""Notebook 00: the ball and the wall (Sec. 3.1, App. A)."""
