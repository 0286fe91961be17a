"""What a file holds in a few words, and its checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["described", "file_sha256"]


def described(content: Any) -> str:
    """List the first fifty names in a file's content with their shapes or types, for error messages."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    found = [f"{k} {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for k, v in content.items()]
    return ", ".join(sorted(found)[:50]) + (f" and {len(found) - 50} more" if len(found) > 50 else "") or "nothing"


def file_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
