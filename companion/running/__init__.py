"""Runs that survive a kill, jobs on several processes, and parameters that check themselves."""
