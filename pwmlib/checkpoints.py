"""Checkpoints as safetensors: nested states of tensors and plain values in one file, written atomically, never unpickled."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import ExplainedError

__all__ = ["CheckpointError", "WriteError", "load_state", "save_state", "write_atomic"]

_FORMAT = "pwmlib-state-1"


class CheckpointError(ExplainedError):
    """A checkpoint that cannot be used; the message names the file and what was expected."""


class WriteError(ExplainedError):
    """A file could not be written, such as on a full disk; the old content is still there."""


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write a file so that a killed process or a full disk leaves the old content, never a part of the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # made by open(), so that it has the permissions of any new file
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(f"{path}: could not be written ({error.strerror}); what was there before is unchanged") from error
        raise


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


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a nested state (tensors, dicts, lists, tuples, numbers, strings, None) as one safetensors file, atomically."""
    tensors: dict[str, Tensor] = {}
    tree = _split(state, "", tensors)
    write_atomic(path, save(tensors, metadata={"format": _FORMAT, "tree": json.dumps(tree)}))


def load_state(path: str | Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save_state` wrote. Raises CheckpointError for a missing, truncated or foreign file; runs no code from it."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path}: a safetensors file, but not one of this library's states (format {_FORMAT!r} expected)")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return _join(json.loads(metadata["tree"]), tensors)
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors state ({error}); delete it to start that stage again") from None
