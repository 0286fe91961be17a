"""What is written so that it can be read back: whole files only, each with a checksum; checkpoints as safetensors, never unpickled.

The checksum is CRC-32, as in zip and PNG files: it finds every single wrong bit and every burst of up to 32, and misses any other damage
once in four billion times. It is no protection against somebody who changes a file on purpose. It lies in the file's own JSON or metadata,
or, for the other files of a folder, in the folder's JSON file. Files from before there were checksums are read without one.
"""

import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pwmlib.errors import ExplainedError

__all__ = [
    "CheckpointError", "WriteError", "check_file", "checksums", "described", "file_sha256", "load_state", "locked", "read_json",
    "save_state", "write_atomic", "write_json",
]  # fmt: skip

_FORMAT = "pwmlib-state-1"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
_checked: set[tuple[Path, int, int, int]] = set()


class CheckpointError(ExplainedError):
    """A file is missing, damaged or another one than expected; the message names it."""


class WriteError(ExplainedError):
    """A file could not be written, such as on a full disk; the old content is still there."""


def write_atomic(path: str | Path, data: bytes | memoryview | str) -> None:
    """Write a file so that a killed process or a full disk leaves the old content, never a part of the new one. Raises WriteError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # made by open(), so that it has the permissions of any new file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise WriteError(f"{path}: could not be written ({error.strerror or error}); what was there before is unchanged") from error
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes in a folder, made if needed; what a killed one left there half written is removed.

    Raises WriteError where files cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink()
        except OSError as error:
            raise WriteError(f"{folder}: files cannot be written there ({error.strerror or error}); choose another folder") from error
        yield
    finally:
        lock.release()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with the checksum of its content as one more entry, "crc32"."""
    write_atomic(path, json.dumps({**content, "crc32": zlib.crc32(json.dumps(content).encode())}, indent=1))


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote; raises CheckpointError where that is not what the file holds."""
    try:
        content = json.loads(path.read_text())
        checksum = content.pop("crc32", None)
        if checksum is not None and checksum != zlib.crc32(json.dumps(content).encode()):
            raise ValueError("its checksum is another one")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    return content


def checksums(folder: Path, *, but: str) -> dict[str, int]:
    """Compute the CRC-32 of every file of a folder but the one that they are written to; none of hidden files."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.name != but and not path.name.startswith("."))
    return {path.name: _file_checksum(path) for path in found}


def _file_checksum(path: Path) -> int:
    """CRC-32 of a file's content."""
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(2**22):
            checksum = zlib.crc32(part, checksum)
    return checksum


def check_file(path: Path, checksum: int) -> None:
    """Raise CheckpointError unless the file has this CRC-32. A process reads it once; again only if it was written since."""
    try:
        state = path.stat()
        key = (path, state.st_size, state.st_mtime_ns, checksum)
        if key not in _checked and _file_checksum(path) != checksum:
            raise CheckpointError(f"{path}: damaged (its checksum is another one)")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    _checked.add(key)


def _split(value: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by references into `tensors`; keep plain values."""
    if isinstance(value, Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {"$tensor": prefix}
    if isinstance(value, Mapping):
        return {"$map": [[k, _split(v, f"{prefix}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "$list" if isinstance(value, list) else "$tuple"
        return {kind: [_split(v, f"{prefix}/{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"save_state: {prefix or 'the state'} holds a {type(value).__name__}; only tensors, containers and plain values are kept"
    )


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$map":
        return {k: _join(v, tensors) for k, v in content}
    joined = [_join(v, tensors) for v in content]
    return joined if kind == "$list" else tuple(joined)


def _checksum(tree: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(tree.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return str(checksum)


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a nested state (tensors, dicts, lists, tuples, numbers, strings, None) as one safetensors file, atomically."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors))
    write_atomic(path, save(tensors, metadata={"format": _FORMAT, "tree": tree, "crc32": _checksum(tree, tensors)}))


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU. Raises CheckpointError for a missing, damaged or foreign file; runs no code from it."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path}: a safetensors file, but not one of this library's states (format {_FORMAT!r} expected)")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if "crc32" in metadata and metadata["crc32"] != _checksum(metadata["tree"], tensors):
            raise CheckpointError(f"{path}: damaged (its checksum is another one)")
        return _join(json.loads(metadata["tree"]), tensors)
    except (CheckpointError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes safetensors, JSON and `_join` raise what they like
        raise CheckpointError(f"{path}: not a complete safetensors state ({type(error).__name__}: {error})") from None


def described(content: Any) -> str:
    """List the first fifty names in a file's content with their shapes or types, for error messages."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    found = [f"{k} {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for k, v in content.items()]
    return ", ".join(sorted(found)[:50]) + (f" and {len(found) - 50} more" if len(found) > 50 else "") or "nothing"


def file_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file that others published, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
