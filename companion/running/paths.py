"""Where things lie: the project's folders, whatever the working directory of the notebook."""

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from pwmlib.errors import ExplainedError

_ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = (_ROOT / "pyproject.toml").is_file()
"""Whether this is the repository, and not a plain install without it."""

PROJECT = _ROOT if CHECKOUT else Path.cwd()
"""What relative paths begin at: the repository root in an editable install (what `make` sets up), else the folder of the process."""

DATA = _ROOT / "data" if CHECKOUT else _ROOT / "companion" / "shipped"
"""What comes with the project: models, results, published numbers."""


class OutputFolderError(ExplainedError):
    """A folder that results should go to cannot be written."""


def resolve(path: str | Path) -> Path:
    """Absolute path; relative ones are taken from `PROJECT`, so that notebooks of a checkout agree wherever they are started."""
    return PROJECT / Path(path).expanduser()


def shown(path: Path) -> str:
    """The path as messages have it: inside the repository from its root."""
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a table that people write. Raises ExplainedError, which names the file, where it is not TOML."""
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ExplainedError(f"{shown(path)}: not a TOML file ({error})") from None


def writable_folder(path: str | Path, parameter: str) -> Path:
    """The folder, created if needed. Raises OutputFolderError naming the notebook parameter when files cannot be written there."""
    folder = resolve(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputFolderError(
            f"{parameter}={str(path)!r}: files cannot be written in {folder} ({error.strerror or error}). Allowed is any folder that "
            f"you can create files in; set it with -p {parameter} FOLDER or in the notebook's parameters cell."
        ) from None
    return folder
