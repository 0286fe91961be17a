"""Errors whose message is the whole story: shown in a notebook as one paragraph, without a traceback."""

from __future__ import annotations

__all__ = ["ExplainedError"]


class ExplainedError(RuntimeError):
    """Base of errors that say what was given, what is allowed and where; IPython prints the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
