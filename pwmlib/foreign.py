"""Reading other people's torch files without running anything that is in them.

A .pt file is a pickle, which can name any function to be called. Only what rebuilds tensors is allowed here; objects of known classes
(TensorDict, running statistics) become inert records of their fields, every other name is refused. Needs none of their packages.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from .errors import ExplainedError

__all__ = ["ForeignFileError", "Record", "file_sha256", "read_torch_file"]


class ForeignFileError(ExplainedError):
    """A published file that is truncated, not what was expected, or asks for code to be run; the message names it."""


class Record:
    """The fields of an object whose class is not needed (or not trusted): its state, nothing else."""

    def __init__(self, *arguments: Any):
        self.state: Any = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _make_record(_class: type, state: Any) -> Record:
    """What newer TensorDict files call to rebuild themselves."""
    record = Record()
    record.state = state
    return record


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("tensordict._reductions", "_make_td"): _make_record,
}
_RECORDS = ("tensordict.", "pwm.utils.running_mean_std")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.startswith(_RECORDS) and name[:1].isupper():
            return Record
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


class _RestrictedPickle(types.ModuleType):
    """What torch.load needs of a pickle module."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Unpickler(file, **options).load()

    @staticmethod
    def loads(data: bytes, **options: Any) -> Any:
        return _Unpickler(io.BytesIO(data), **options).load()


_PICKLE = _RestrictedPickle("restricted_pickle")


def read_torch_file(path: str | Path) -> Any:
    """The content of a .pt file: tensors (memory-mapped), containers, plain values; TensorDicts as dictionaries.

    Raises ForeignFileError for a missing, truncated or legacy file, and for one that names anything but tensors and known records.
    """
    path = Path(path)
    if not path.is_file():
        raise ForeignFileError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ForeignFileError(f"{path}: not a complete file of torch.save (a zip archive); it may be truncated, or older than torch 1.6")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False, pickle_module=_PICKLE)
    except pickle.UnpicklingError as error:
        raise ForeignFileError(f"{path}: refused, {error}. Only tensors and their containers are read; nothing was executed.") from None
    except (RuntimeError, EOFError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ForeignFileError(f"{path}: cannot be read as a file of torch.save ({error})") from None
    return _plain(content)


def _plain(value: Any) -> Any:
    """TensorDict records as dictionaries of their entries."""
    if isinstance(value, Record) and isinstance(value.state, dict) and "_tensordict" in value.state:
        value = value.state["_tensordict"]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
