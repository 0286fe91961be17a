"""Notebook 03: one world model of many tasks, one policy a task (Sec. 4.2, App. E)."""
