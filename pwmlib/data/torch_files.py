"""Reading other people's torch files without running anything that is in them.

A .pt file is a zip archive of tensors and of a pickle, a program that can name any function to be called. That program is evaluated here
by the few opcodes that torch.save writes. What it names is compared with a list and never looked up, so it reaches tensors, containers,
plain values and inert records, and nothing else in the process. Sizes are checked against the file before memory is taken.

torch.load(weights_only=True) checks names too, but takes the memory and time that a file claims (a bytearray of any length, shared tuples
as keys). fickling judges a pickle that something else then runs; safetensors, which keeps this library's own states, does not read pickles.
"""

import io
import math
import pickletools
import re
import struct
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwmlib.errors import ExplainedError

__all__ = ["ForeignFileError", "Record", "read_torch_file"]

_MB = 2**20
_PICKLE_LIMIT = _MB
"""Room for five thousand tensors; the published files need 10 kB."""
_DIRECTORY_LIMIT = 4 * _MB
_ENTRIES = re.compile(r"data\.pkl|byteorder|version|data/[0-9]{1,9}|\.data/serialization_id|\.format_version|\.storage_alignment")
_DTYPES = {
    f"torch {name}Storage": dtype
    for name, dtype in (
        ("Double", torch.float64), ("Float", torch.float32), ("Half", torch.float16), ("BFloat16", torch.bfloat16), ("Long", torch.int64),
        ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8), ("Bool", torch.bool),
    )
}  # fmt: skip
_CALLS = {
    "collections OrderedDict", "torch Size", "torch device", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    "tensordict._reductions _make_td",
}  # fmt: skip
_RECORDS = re.compile(r"(tensordict\.\S{1,99}|pwm\.utils\.running_mean_std) [A-Z]\w{0,99}")


class ForeignFileError(ExplainedError):
    """A published file is truncated, not what was expected, or asks for code to be run; the message names it."""

    def __init__(self, message: str):
        # Names in the file may be endless, or commands to a terminal.
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message[:8000]))


class Record(dict):
    """The fields of an object whose class is not needed (or not trusted); of a TensorDict, its entries."""


@dataclass(frozen=True)
class _Name:
    """What the pickle calls a class or function: text."""

    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    bytes: torch.UntypedStorage


class _BoundedFile(io.FileIO):
    """zipfile reads an archive's directory at once, however long it claims to be."""

    def read(self, size: int = -1) -> bytes:
        return super().read(min(size, _DIRECTORY_LIMIT) if size >= 0 else _DIRECTORY_LIMIT)


def read_torch_file(path: str | Path) -> Any:
    """Read the content of a .pt file: tensors (memory-mapped), containers, plain values; TensorDicts as dictionaries.

    Raises ForeignFileError for a missing, truncated or legacy file, for a TorchScript archive, for one that names anything but tensors and
    known records, and for one whose tensors are larger than what the file holds.
    """
    path = Path(path)
    if not path.is_file():
        raise ForeignFileError(f"{path}: no such file")
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            return _Reader(path, file, archive).content()
    except zipfile.BadZipFile as error:
        raise ForeignFileError(
            f"{path}: not a complete file of torch.save (a zip archive; {error}); it may be truncated, or older than torch 1.6"
        ) from None
    except ForeignFileError:
        raise
    except (OSError, EOFError, LookupError, OverflowError, RuntimeError, TypeError, ValueError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise ForeignFileError(f"{path}: cannot be read as a file of torch.save ({reason})") from None


class _Reader:
    """One archive: its entries, and the evaluation of its pickle."""

    def __init__(self, path: Path, file: io.FileIO, archive: zipfile.ZipFile):
        self.path, self.file = path, file
        self.size = path.stat().st_size
        self.entries = self._entries(archive)
        if "data.pkl" not in self.entries:
            raise ValueError("no data.pkl in it")
        if "byteorder" in self.entries and self._read(archive, "byteorder", 16) != sys.byteorder.encode():
            raise ValueError(f"its numbers are not in this machine's byte order, {sys.byteorder}")
        self.pickle = self._read(archive, "data.pkl", _PICKLE_LIMIT)
        self.storages: dict[tuple[str, str], _Storage] = {}
        self.tensor_bytes = self.fields = 0

    def refused(self, reason: str) -> ForeignFileError:
        return ForeignFileError(f"{self.path}: refused, {reason}. Only tensors and their containers are read; nothing was executed.")

    def _entries(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        """By name without the archive's own folder; nothing but what torch.save writes, none of it compressed, none twice."""
        entries: dict[str, zipfile.ZipInfo] = {}
        folder = None
        for info in archive.infolist():
            own, _, name = info.filename.partition("/")
            folder = own if folder is None else folder
            if name == "constants.pkl" or name.startswith("code/"):
                raise self.refused(f"it is a TorchScript archive, which holds programs ({name!r})")
            if own != folder or name in entries or not _ENTRIES.fullmatch(name):
                raise self.refused(f"it holds the entry {info.filename[:80]!r}, which torch.save does not write there (or not twice)")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
                raise self.refused(f"its entry {info.filename[:80]!r} is compressed or encrypted, which torch.save never does")
            entries[name] = info
        return entries

    def _read(self, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
        if self.entries[name].file_size > limit:
            raise self.refused(f"its {name} has {self.entries[name].file_size} bytes, of at most {limit}")
        return archive.read(self.entries[name])

    @cached_property
    def _mapped(self) -> torch.UntypedStorage:
        return torch.from_file(str(self.path), shared=False, size=self.size, dtype=torch.uint8).untyped_storage()

    def _storage(self, identity: Any) -> _Storage:
        """The mapped bytes that a persistent id ("storage", type, key, device, length) stands for."""
        _, kind, key, _, length = identity
        if not isinstance(kind, _Name) or kind.text not in _DTYPES:
            raise ValueError("a storage of no known type")
        if (kind.text, _short(key, str)) in self.storages:
            return self.storages[kind.text, key]
        dtype, entry = _DTYPES[kind.text], self.entries[f"data/{key}"]
        self.file.seek(entry.header_offset)
        magic, name, extra = struct.unpack("<4s22x2H", self.file.read(30))
        start = entry.header_offset + 30 + name + extra
        if magic != b"PK\x03\x04" or _short(length, int) * dtype.itemsize != entry.file_size or start + entry.file_size > self.size:
            raise ValueError(
                f"{entry.filename} has {entry.file_size} bytes, which are not the {length} {dtype} numbers that it is said to hold"
            )
        self.storages[kind.text, key] = _Storage(dtype, self._mapped[start : start + entry.file_size])
        return self.storages[kind.text, key]

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        size, stride, (offset,) = _lengths(size), _lengths(stride), _lengths((offset,))
        count, held = math.prod(size), storage.bytes.nbytes() // storage.dtype.itemsize
        end = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1 if count else offset
        if end > held:
            raise ValueError(f"a tensor of shape {size} ends at number {end} of a storage of {held}")
        # Tensors may share a storage, or repeat its numbers with a stride of 0; whoever copies them needs memory for all of them.
        self.tensor_bytes += count * storage.dtype.itemsize
        if self.tensor_bytes > 2 * self.size + _MB:
            raise self.refused(f"its tensors are {self.tensor_bytes / _MB:.0f} MB or more, in a file of {self.size / _MB:.3g} MB")
        return torch.empty(0, dtype=storage.dtype, device="cpu").set_(storage.bytes, offset, size, stride)

    def _built(self, record: Record, state: Any) -> Record:
        fields = state.get("_tensordict", state) if isinstance(state, dict) else {"state": state}
        if not isinstance(fields, dict):
            raise ValueError("a TensorDict without entries")
        self.fields += len(fields)
        if self.fields > len(self.pickle):  # every field takes a byte or more where it is written; only repetition needs fewer
            raise self.refused(f"its records have more fields than it has bytes ({self.fields})")
        record.update(fields)
        return record

    def _called(self, name: Any, arguments: Any) -> Any:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise self.refused("it calls something that is not a function")
        match name.text, arguments:
            case "collections OrderedDict", ():
                return {}
            case "torch Size", (size,):
                return torch.Size(_lengths(size))
            case "torch device", _:
                return arguments
            case "torch._utils _rebuild_tensor_v2", (storage, offset, size, stride, _, _) | (storage, offset, size, stride, _, _, _):
                return self._tensor(storage, offset, size, stride)
            case "torch._utils _rebuild_parameter", (Tensor() as data, _, _):
                return data
            case "tensordict._reductions _make_td", (_, state):
                return self._built(Record(), state)
            case text, _ if _RECORDS.fullmatch(text):
                return Record()
        raise self.refused(f"it calls {name.text.replace(' ', '.')} in a way that torch.save does not")

    def content(self) -> Any:
        """Evaluate the pickle."""
        stack: list[Any] = []
        outer: list[list[Any]] = []  # the stacks below each open mark
        memo: dict[object, Any] = {}
        for opcode, argument, _ in pickletools.genops(self.pickle):
            match opcode.name:
                case "PROTO":
                    pass
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(argument)
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
                case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                    stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(reversed([stack.pop() for _ in range(int(opcode.name[-1]))])))
                case "MARK":
                    outer.append(stack)
                    stack = []
                case "TUPLE":
                    items, stack = stack, outer.pop()
                    stack.append(tuple(items))
                case "APPEND":
                    item = stack.pop()
                    _container(stack, list).append(item)
                case "APPENDS":
                    items, stack = stack, outer.pop()
                    _container(stack, list).extend(items)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _container(stack, dict, Record)[_short(key, str, int)] = value
                case "SETITEMS":
                    items, stack = stack, outer.pop()
                    target = _container(stack, dict, Record)
                    for key, value in zip(items[::2], items[1::2], strict=True):
                        target[_short(key, str, int)] = value
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    name = str(argument)
                    if name not in _CALLS and name not in _DTYPES and not _RECORDS.fullmatch(name):
                        raise self.refused(f"it asks for {name.replace(' ', '.')[:200]}")
                    stack.append(_Name(name))
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "REDUCE" | "NEWOBJ":
                    arguments = stack.pop()
                    stack.append(self._called(stack.pop(), arguments))
                case "BUILD":
                    state = stack.pop()
                    target = _container(stack, dict, Record)
                    if type(target) is Record:  # what a state_dict carries besides its entries is not needed
                        self._built(target, state)
                case "STOP":
                    (result,) = stack
                    return result
                case unknown:
                    raise self.refused(f"it has the pickle opcode {unknown}, which torch.save does not write")


def _container(stack: list[Any], *kinds: type) -> Any:
    """The container on top of the stack."""
    if type(stack[-1]) not in kinds:
        raise ValueError(f"a {type(stack[-1]).__name__} is filled as if it were a {kinds[0].__name__}")
    return stack[-1]


def _short(value: Any, *kinds: type) -> Any:
    """A name or a number of everyday size: others make dictionaries and products slow."""
    if type(value) not in kinds or (type(value) is int and abs(value) >= 2**48):
        raise ValueError(f"a {type(value).__name__} where {' or '.join(k.__name__ for k in kinds)} below 2^48 belongs")
    return value


def _lengths(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > 16 or not all(_short(n, int) >= 0 for n in value):
        raise ValueError("a shape that is not a few numbers of at least 0")
    return value
