"""Files that were made to do harm, a row each: one clear error or an honest result, and the process stays as it was.

A child process reads them one after another under a limit of memory and time, and looks at itself before and after each.
"""

import builtins
import collections
import io
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from companion.reporting.published import many_task_scores, training_runs
from pwmlib.baselines.released_models import load_released
from pwmlib.data import published_chunks as published
from pwmlib.data.checkpoints import load_state
from pwmlib.data.torch_files import read_torch_file
from pwmlib.errors import ExplainedError
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.tasks import MT30

MEMORY, SECONDS = 2**30, 10
READERS = {
    "torch": read_torch_file,
    "model": load_released,
    "chunk": lambda path: published.import_chunks([path], path.parent / "data", MT30, progress=False),
    "set": lambda path: published.task_set(path),
    "single": published.read_single_task_data,
    "curves": training_runs,
    "scores": many_task_scores,
    "state": load_state,
}


class Op(bytes):
    """Pickle opcodes that leave one value on the stack."""


def op(value):
    """The opcodes of a value, as torch.save would write them."""
    if isinstance(value, Op):
        return value
    if value is None or isinstance(value, bool):
        return Op({None: b"N", True: b"\x88", False: b"\x89"}[value])
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return Op(b"\x8a" + bytes([len(data)]) + data)
    if isinstance(value, str):
        return Op(b"X" + struct.pack("<I", len(value.encode())) + value.encode())
    if isinstance(value, tuple):
        return Op(b"(" + b"".join(map(op, value)) + b"t")
    if isinstance(value, list):
        return Op(b"](" + b"".join(map(op, value)) + b"e")
    return Op(b"}(" + b"".join(op(k) + op(v) for k, v in value.items()) + b"u")


def named(module, name):
    return Op(f"c{module}\n{name}\n".encode())


def call(function, *arguments, by=b"R"):
    return Op(op(function) + op(arguments) + by)


def build(target, state):
    return Op(op(target) + op(state) + b"b")


def storage(kind="Float", key="0", numel=4):
    return Op(op(("storage", named("torch", f"{kind}Storage"), key, "cpu", numel)) + b"Q")


REBUILD, SIZE, ORDERED = named("torch._utils", "_rebuild_tensor_v2"), named("torch", "Size"), named("collections", "OrderedDict")
TENSORDICT, MAKE_TD = named("tensordict.tensordict", "TensorDict"), named("tensordict._reductions", "_make_td")


def tensor(size, stride, offset=0, of=None):
    return call(REBUILD, of or storage(), offset, size, stride, False, call(ORDERED))


def zipped(*entries):
    """A zip archive; an entry is (name, data) or (name, stored bytes, method, flags, crc, size), which may lie."""
    body, directory = bytearray(), bytearray()
    for name, data, *more in entries:
        method, flags, crc, size = more or (0, 0, zlib.crc32(data), len(data))
        fixed = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 33, crc, len(data) if method else size, size, len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fixed + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\x03\x04" + fixed + name.encode() + data
    count = min(len(entries), 2**16 - 1)
    return bytes(body + directory) + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)


def archive(pickled, *entries, root="a", data=bytes(16)):
    whole = pickled if isinstance(pickled, tuple) else ("data.pkl", pickled)
    return zipped(*((f"{root}/{e[0]}", *e[1:]) for e in (whole, ("version", b"3\n"), ("data/0", data), *entries) if e[1] is not None))


def pt(value, *entries, **options):
    """A .pt file whose pickle makes `value`; its one storage, "0", has four float32 zeros."""
    return archive(b"\x80\x02" + op(value) + b".", *entries, **options)


def deflated_zeros(name, megabytes):
    """An entry that inflates to many zeros; the compressed block is made once and repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(megabytes):
        crc = zlib.crc32(bytes(2**20), crc)
    return (name, block * megabytes + packer.flush(), 8, 0, crc, megabytes * 2**20)


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Writer(torch.nn.Module):
    """As TorchScript: opening it fills a file of the reader's machine."""

    def __init__(self, path: str):
        super().__init__()
        self.path, self.filled = path, torch.zeros(4)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state[0], state[1]
        self.filled = torch.from_file(state[0], True, 4).copy_(torch.ones(4))

    def forward(self) -> str:
        return self.path


def torchscript(canary):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Writer(f"{canary}/kept.py")), file)
    return file.getvalue()


def shared_tuples(levels):
    """A tuple that holds the one before twice, so many times: short to write, endless to walk through."""
    return Op(b")q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(levels)))


def shared_dicts(levels):
    """The same of dictionaries, all of them in one."""
    each = (op(f"{i + 1}") + b"}(" + op("a") + b"h%c" % i + op("b") + b"h%cuq%c" % (i, i + 1) for i in range(levels))
    return Op(b"}(" + op("0") + b"}q\x00" + b"".join(each) + b"u")


def many_tensors():
    """As many as fit into a pickle of 1 MB: storage, function and arguments are named once."""
    arguments = b"h\x01K\x00(K\x04t(K\x01t\x89}"
    return Op(b"](" + REBUILD + b"q\x00" + storage() + b"q\x01(" + arguments + b"tq\x02" + b"h\x00h\x02R" * 200_000 + b"e")


def chunk(**changes):
    task = torch.full((2, 4), 10)
    return {"obs": torch.zeros(2, 4, 24), "action": torch.zeros(2, 4, 6), "reward": torch.zeros(2, 4), "task": task} | changes


def single(**changes):
    values = {"obs": torch.zeros(2, 4, 3), "action": torch.zeros(2, 4, 1), "reward": torch.zeros(2, 4)}
    return values | {"term": torch.zeros(2, 4, dtype=torch.bool)} | changes


TINY = WorldModelConfig(latent_dim=8, encoder_hidden=(8,), dynamics_hidden=(8, 8), reward_hidden=(8, 8), task_dim=8)


def model(changes=(), *, without=(), config=TINY):
    """A TD-MPC2 state_dict of a small model, some of it replaced; of any other model one whose tensors repeat a single zero."""
    torch.manual_seed(0)
    with torch.device("cpu" if config is TINY else "meta"):
        state = WorldModel(24, 6, tasks=30, config=config).state_dict()
    names = (("encoder.", "_encoder.state."), ("dynamics.", "_dynamics."), ("reward_head.", "_reward."), ("task_embedding", "_task_emb"))
    state = {theirs + k.removeprefix(ours): v for ours, theirs in names for k, v in state.items() if k.startswith(ours)}
    state = {k: torch.zeros(()).expand(v.shape) if v.is_meta else v for k, v in state.items()}
    return {k: v for k, v in (state | dict(changes)).items() if k not in without}


def layers(part, *shapes):
    return {f"{part}.{i}.weight": torch.zeros(*shape) for i, shape in enumerate(shapes)}


def agent(**changes):
    actor = {"logstd": torch.zeros(2), "mu_net.0.weight": torch.zeros(2, 8), "mu_net.0.bias": torch.zeros(2)}
    critic = {"params.0": torch.zeros(3, 1, 8), "params.1": torch.zeros(3, 1)}
    return {"world_model": model(), "actor": actor, "critic": critic} | changes


WIDE = {f"_dynamics.{i}.weight": torch.zeros(1, 1).expand(30_000, 1) for i in range(3)}
RUN = "touch {}/ran"
FLAT = {"__defaults__": (7,)}
FUNCTIONS = (
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"), ("tensordict._reductions", "_make_td"),
    ("collections", "OrderedDict"), ("torch", "Size"), ("torch", "device"), ("torch", "FloatStorage"), ("tensordict._td", "TensorDict"),
)  # fmt: skip
COMMANDS = {
    "os.system": ("posix", "system", RUN), "eval": ("builtins", "eval", "open('{}/ran', 'w')"), "exec": ("builtins", "exec", "1/0"),
    "Popen": ("subprocess", "Popen", RUN), "remove": ("os", "remove", "{}/kept.py"), "import": ("builtins", "__import__", "antigravity"),
    "torch.load": ("torch.serialization", "load", "{}/kept.py"), "torch.jit.load": ("torch.jit", "load", "{}/kept.py"),
    "from_file": ("torch", "from_file", "{}/kept.py"), "bytearray": ("builtins", "bytearray", "x"), "encode": ("_codecs", "encode", "x"),
    "namedtuple": ("collections", "namedtuple", "x"), "globals of a function": ("torch._utils", "_rebuild_tensor_v2.__globals__", "x"),
    "a small letter": ("tensordict.tensordict", "system", "x"), "a dotted record": ("tensordict.a", "T.b", "x"),
}  # fmt: skip

# Name: reader, what the error says (None: it is read, and honestly), content (a function of the canary folder, or bytes).
CASES = {f"name {name}": ("torch", "asks for", lambda c, m=m, n=n, a=a: pt({"x": call(named(m, n), a.format(c))}))
         for name, (m, n, a) in COMMANDS.items()}  # fmt: skip
CASES |= {f"build on {n}": ("torch", "is filled", pt([build(named(m, n), FLAT), tensor((4,), (1,))])) for m, n in FUNCTIONS}
CASES |= {f"slots on {n}": ("torch", "is filled", pt(build(named(m, n), (None, {"__module__": "x", "__setstate__": 7}))))
          for m, n in FUNCTIONS}  # fmt: skip
CASES |= {
    # Programs in other opcodes, and calls of what is no function.
    "protocol 4": ("torch", "opcode", lambda c: archive(b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + op((RUN.format(c),)) + b"R.")),
    "INST": ("torch", "opcode", lambda c: archive(b"(" + op(RUN.format(c)) + b"iposix\nsystem\n.")),
    "OBJ": ("torch", "asks for posix.system", lambda c: archive(b"(" + named("posix", "system") + op(RUN.format(c)) + b"o.")),
    "NEWOBJ of a command": ("torch", "asks for", lambda c: pt(call(named("subprocess", "Popen"), RUN.format(c), by=b"\x81"))),
    "EXT1": ("torch", "opcode", archive(b"\x80\x02\x82\x01.")),
    "PERSID": ("torch", "opcode", archive(b"Pstorage\n.")),
    "DUP": ("torch", "opcode", archive(b"\x80\x02]2a.")),
    "call of a tuple": ("torch", "not a function", pt(call((1, 2), 3))),
    "call of a tensor": ("torch", "not a function", pt(call(tensor((4,), (1,)), 3))),
    "call with a list": ("torch", "not a function", pt(Op(SIZE + op([1]) + b"R"))),
    "call of a storage type": ("torch", "in a way", pt(call(named("torch", "FloatStorage"), 10**10))),
    "OrderedDict of pairs": ("torch", "in a way", pt(call(ORDERED, [[1, 2]]))),
    "many tensors": ("torch", "in a file of", pt(many_tensors())),
    "a record with an endless name": ("torch", "asks for", pt([named("tensordict." + "a" * 500_000, "T")])),
    "a key that commands a terminal": ("model", r"\\x1b\[2J", lambda c: saved({"\x1b[2J\ud800": 1, "a" * 10**6: 2})),
    "an unknown record": ("torch", None, pt({"x": call(named("tensordict.any", "Thing"), 1)})),
    "a record of many states": ("torch", "more fields", pt([
        Op(op(dict.fromkeys(map(str, range(9000)))) + b"q\x00"), *[build(call(TENSORDICT, by=b"\x81"), Op(b"h\x00"))] * 9000])),
    "attributes of a dictionary": ("torch", None, pt(build({"a": 1}, {"items": 7, "__class__": 8}))),
    "build on a tensor": ("torch", "is filled", pt(build(tensor((4,), (1,)), (storage(), 0, (4,), (1,))))),
    "build on a list": ("torch", "is filled", pt(build([1], {"a": 1}))),
    "TensorDict of a tuple": ("torch", "without entries", pt(call(MAKE_TD, TENSORDICT, {"_tensordict": (1, 2)}))),
    # Archives that are more, or less, than torch.save writes.
    "TorchScript": ("torch", "TorchScript", torchscript),
    "TorchScript as a chunk": ("chunk", "TorchScript", torchscript),
    "TorchScript as a model": ("model", "TorchScript", torchscript),
    "TorchScript behind a plain archive": ("torch", "TorchScript", lambda c: pt({}) + torchscript(c)),
    "a plain archive behind TorchScript": ("torch", None, lambda c: torchscript(c) + pt({"a": 1})),
    "constants": ("torch", "TorchScript", pt({}, ("constants.pkl", b"\x80\x02]."))),
    "code": ("torch", "TorchScript", pt({}, ("code/__torch__.py", b"1"))),
    "constants in another folder": ("torch", "TorchScript", zipped(("a/data.pkl", b"}."), ("b/constants.pkl", b")."))),
    "an unknown entry": ("torch", "holds the entry", pt({}, ("evil.py", b"1"))),
    "a path upwards": ("torch", "holds the entry", pt({}, ("../../evil", b"1"))),
    "two pickles": ("torch", "holds the entry", pt({}, ("data.pkl", b"]."))),
    "encrypted": ("torch", "compressed or encrypted", archive(("data.pkl", b"}.", 0, 1, 0, 2))),
    "deflated pickle": ("torch", "compressed or encrypted", lambda c: archive(deflated_zeros("data.pkl", 1500))),
    "deflated storage": ("torch", "compressed or encrypted", lambda c: pt({}, deflated_zeros("data/1", 1500))),
    "deflated chunk": ("chunk", "compressed or encrypted", lambda c: pt({}, deflated_zeros("data/1", 1500))),
    "a pickle of 2 MB": ("torch", "at most", archive(b"\x80\x02" + b"N" * 2**21 + b".")),
    "a size beyond the file": ("torch", "which are not", pt(
        {"x": tensor((4,), (1,), of=storage(numel=10**8))}, ("data/0", b"", 0, 0, 0, 4 * 10**8), data=None)),
    "a huge directory": ("torch", "not a complete", lambda c: zipped(*[("a/data/0", b"")] * 120_000)),
    "a damaged pickle": ("torch", "cannot be read|not a complete", archive(("data.pkl", b"}.", 0, 0, 1, 2))),
    "no pickle": ("torch", "no data.pkl", zipped(("a/version", b"3\n"))),
    "big-endian": ("torch", "byte order", pt({}, ("byteorder", b"big"))),
    "no header before the numbers": ("torch", "which are not", b"PK\x03\x05".join(
        pt({"x": tensor((4,), (1,))}).rsplit(b"PK\x03\x04", 1))),
    "an old file": ("torch", "not a complete", lambda c: b"\x80\x02" + call(named("posix", "system"), RUN.format(c)) + b"."),
    "empty": ("torch", "not a complete", b""),
    "cut in half": ("torch", "not a complete", pt({"x": tensor((4,), (1,))})[:150]),
    "text": ("model", "not a complete", b"PK\x05\x06 but text" * 99),
    # Sizes, memory and time.
    "a chunk of 108 GB": ("chunk", "in a file of", pt({
        "obs": tensor((10**6, 1000, 24), (0, 0, 0)), "action": tensor((10**6, 1000, 6), (0, 0, 0)), "reward": tensor((10**6, 1000), (0, 0)),
        "task": tensor((10**6, 1000), (0, 0), of=storage("Long", numel=2))})),
    "a model of gigabytes": ("model", "in a file of", lambda c: saved(
        {"model": model(config=replace(TINY, encoder_hidden=(20_000, 20_000)))})),
    "one storage many times": ("model", "in a file of", pt({"model": {
        f"_encoder.state.{i}.weight": tensor((1024, 1024), (1024, 1), of=storage(numel=2**20)) for i in range(300)}}, data=bytes(2**22))),
    "layers that make gigabytes": ("model", "consecutive layers", lambda c: saved({"model": model(WIDE)})),
    "statistics of many tasks": ("model", "make no world model", lambda c: saved({"model": model(
        {"_task_emb.weight": torch.zeros(200_000, 1)} | layers("_encoder.state", (8, 200_000), (8, 8)))})),
    "shared dictionaries": ("torch", None, pt(shared_dicts(200))),
    "shared dictionaries as a model": ("model", "expected a TD-MPC2", pt(shared_dicts(200))),
    "shared dictionaries as a chunk": ("chunk", "a chunk holds", pt(shared_dicts(200))),
    "a dictionary in itself": ("chunk", "a chunk holds", pt(Op(b"}q\x00" + op("obs") + b"h\x00s"))),
    "shared tuples as a key": ("torch", "belongs", pt(Op(b"}" + shared_tuples(200) + b"Ns"))),
    "shared tuples as a shape": ("torch", "belongs", pt(call(SIZE, shared_tuples(200)))),
    "shared tuples as a device": ("model", "expected a TD-MPC2", pt({"a": call(named("torch", "device"), shared_tuples(200))})),
    "keys that collide": ("torch", "belongs", pt(Op(b"}(" + b"".join(op(i * (2**61 - 1)) + b"N" for i in range(1, 60_000)) + b"u"))),
    "a list as a key": ("torch", "belongs", pt(Op(b"}" + op([]) + b"Ns"))),
    "a far memo": ("torch", None, pt(Op(op(7) + b"r" + struct.pack("<I", 2**32 - 1)))),
    "a million opcodes": ("torch", "cannot be read", archive(b"\x80\x02" + b"]" * 1_000_000 + b".")),
    "many marks": ("torch", "cannot be read", archive(b"\x80\x02" + b"(" * 300_000 + b".")),
    "a deep list": ("torch", None, archive(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")),
    "a deep list as a model": ("model", "found a list", archive(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")),
    "a text of 4 GB": ("torch", "cannot be read", archive(b"\x80\x02X\xff\xff\xff\xffabc.")),
    "huge lengths": ("torch", "belongs", pt(tensor((2**2000,) * 9, (0,) * 9))),
    "many dimensions": ("torch", "a shape", pt(tensor((1,) * 100_000, (0,) * 100_000))),
    # Tensors that are not what they claim.
    "a negative length": ("torch", "a shape", pt(tensor((-4,), (1,)))),
    "a negative stride": ("torch", "a shape", pt(tensor((4,), (-1,), 3))),
    "an offset beyond": ("torch", "ends at number 5", pt(tensor((1,), (1,), 4))),
    "a stride beyond": ("torch", "ends at number", pt(tensor((2, 2), (2**47, 1)))),
    "no numbers, huge": ("torch", None, pt(tensor((0, 2**47, 2**47), (1, 1, 1)))),
    "a length that is true": ("torch", "belongs", pt(tensor((True,), (1,)))),
    "shape and stride differ": ("torch", "cannot be read", pt(tensor((4,), (1, 1)))),
    "more numbers than bytes": ("torch", "which are not", pt(tensor((9,), (1,), of=storage(numel=9)))),
    "another type": ("torch", "which are not", pt(tensor((4,), (1,), of=storage("Double")))),
    "an unknown storage": ("torch", "cannot be read", pt(tensor((4,), (1,), of=storage(key="7")))),
    "a storage outside": ("torch", "cannot be read", pt(tensor((4,), (1,), of=storage(key="../version")))),
    "a storage of no type": ("torch", "no known type", pt(Op(op(("storage", SIZE, "0", "cpu", 4)) + b"Q"))),
    "a storage that is a number": ("torch", "cannot be read", pt(Op(op(7) + b"Q"))),
    "a tensor of no storage": ("torch", "without a storage", pt(tensor((4,), (1,), of=op({"dtype": 1})))),
    "no STOP": ("torch", "cannot be read", archive(b"\x80\x02}")),
    "an empty stack": ("torch", "cannot be read", archive(b"\x80\x02\x86.")),
    "an unknown memo": ("torch", "cannot be read", archive(b"\x80\x02h\x07.")),
    "an open mark": ("torch", "cannot be read", archive(b"\x80\x02K\x01(.")),
    "a name that is no text": ("torch", "cannot be read|asks for", archive(b"\x80\x02c\xff\xfe\n\xff\n.")),
    # Contents that are no model.
    "model None": ("model", "its model must be", lambda c: saved({"model": None})),
    "model list": ("model", "its model must be", lambda c: saved({"model": [torch.zeros(2)]})),
    "model tensor": ("model", "its world_model must be", lambda c: saved({"world_model": torch.zeros(2)})),
    "a list": ("model", "found a list", lambda c: saved([1, 2])),
    "integer keys": ("model", "Tensors: nothing", lambda c: saved({"model": dict(enumerate(model().values()))})),
    "whole numbers": ("model", "Tensors: nothing", lambda c: saved({"model": {k: v.int() for k, v in model().items()}})),
    "no bias": ("model", "absent", lambda c: saved({"model": model(without=("_dynamics.0.bias",))})),
    "embedding of one dimension": ("model", "task embedding", lambda c: saved({"model": model({"_task_emb.weight": torch.zeros(30)})})),
    "no width": ("model", "consecutive layers", lambda c: saved({"model": model(layers("_encoder.state", (0, 32), (8, 0)))})),
    "no observations": ("model", "0 observations", lambda c: saved({"model": model(layers("_encoder.state", (8, 8)))})),
    "two layers of one number": ("model", "do not fit", lambda c: saved({"model": model({"_dynamics.00.weight": torch.zeros(8, 22)})})),
    "a layer of many digits": ("model", "do not fit", lambda c: saved({"model": model(
        {f"_dynamics.{'9' * 5000}.weight": torch.zeros(8, 8)})})),
    "actor None": ("model", "its actor must be", lambda c: saved(agent(actor=None))),
    "actor without bias": ("model", "absent", lambda c: saved(agent(actor={
        "logstd": torch.zeros(2), "mu_net.0.weight": torch.zeros(2, 8)}))),
    "actor that makes gigabytes": ("model", "consecutive layers", lambda c: saved(agent(actor={"logstd": torch.zeros(2)} | {
        f"mu_net.{3 * i}.weight": torch.zeros(100_000, 1) for i in range(2)}))),
    "critic of vectors": ("model", "not a stack", lambda c: saved(agent(critic={"params.0": torch.zeros(3), "params.1": torch.zeros(3)}))),
    "critic without one": ("model", "not a stack", lambda c: saved(agent(critic={
        "params.1": torch.zeros(3, 1), "params.2": torch.zeros(3)}))),
    "critic of a million members": ("model", "not a stack", lambda c: saved(agent(critic={
        "params.0": torch.zeros(10**6, 1, 1), "params.1": torch.zeros(10**6, 1)}))),
    # Contents that are no episodes.
    "chunk of a list": ("chunk", "found a list", lambda c: saved([1])),
    "task ids in halves": ("chunk", "task must be", lambda c: saved(chunk(task=torch.full((2, 4), 0.5)))),
    "task ids NaN": ("chunk", "task must be", lambda c: saved(chunk(task=torch.full((2, 4), torch.nan)))),
    "task ids true": ("chunk", "task must be", lambda c: saved(chunk(task=torch.ones(2, 4, dtype=torch.bool)))),
    "task ids below 0": ("chunk", "task must be", lambda c: saved(chunk(task=torch.full((2, 4), -1)))),
    "task ids beyond": ("chunk", "task must be", lambda c: saved(chunk(task=torch.full((2, 4), 30)))),
    "zero episodes": ("chunk", "one or more episodes", lambda c: saved({k: v[:0] for k, v in chunk().items()})),
    "zero rows": ("chunk", "one or more episodes", lambda c: saved({k: v[:, :0] for k, v in chunk().items()})),
    "obs a list": ("chunk", "obs list", lambda c: saved(chunk(obs=[1.0]))),
    "obs None": ("chunk", "obs NoneType", lambda c: saved(chunk(obs=None))),
    "obs a number": ("chunk", "a chunk holds", lambda c: saved(chunk(obs=torch.tensor(1.0)))),
    "obs whole numbers": ("chunk", "floating-point", lambda c: saved(chunk(obs=torch.zeros(2, 4, 24, dtype=torch.int64)))),
    "reward infinite": ("chunk", "not finite", lambda c: saved(chunk(reward=torch.full((2, 4), torch.inf)))),
    "obs NaN": ("chunk", "not finite", lambda c: saved(chunk(obs=torch.full((2, 4, 24), torch.nan)))),
    "obs beyond float32": ("chunk", "not finite", lambda c: saved(chunk(obs=torch.full((2, 4, 24), 1e300, dtype=torch.float64)))),
    "set of a chunk without obs": ("set", "a chunk holds", lambda c: saved({"action": torch.zeros(2)})),
    "set of a list": ("set", "found a list", lambda c: saved([1])),
    "single of a list": ("single", "found a list", lambda c: saved([1])),
    "single without tensors": ("single", "obs NoneType", lambda c: saved(single(obs=None))),
    "single of one dimension": ("single", "expected floating-point", lambda c: saved(single(obs=torch.zeros(2)))),
    "single of zero episodes": ("single", "expected floating-point", lambda c: saved({k: v[:0] for k, v in single().items()})),
    "single of other lengths": ("single", "expected floating-point", lambda c: saved(single(reward=torch.zeros(2, 5)))),
    "single with a float end": ("single", "true-or-false", lambda c: saved(single(term=torch.zeros(2, 4)))),
    # The other formats that are read: tables, and safetensors.
    "curves of zeros": ("curves", "expected a column", bytes(4096)),
    "curves that are a pickle": ("curves", "", lambda c: b"\x80\x02" + call(named("posix", "system"), RUN.format(c)) + b"."),
    "scores that are binary": ("scores", "", bytes(range(256)) * 16),
    "scores empty": ("scores", "not a CSV table", b""),
    "a state that is a pickle": ("state", "safetensors", lambda c: b"\x80\x02" + call(named("posix", "system"), RUN.format(c)) + b"."),
    "a state of a huge header": ("state", "safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "a state beyond the file": ("state", "safetensors", struct.pack("<Q", 62)
        + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}1234'),
}  # fmt: skip


def process():
    """What a file could have altered: functions, classes and names of modules, imports, settings."""
    seen = {"modules": sorted(sys.modules), "folder": os.getcwd(), "environment": dict(os.environ), "dtype": torch.get_default_dtype()}
    seen["safe globals"] = torch.serialization.get_safe_globals()
    own = [m for name, m in sorted(sys.modules.items()) if name.startswith("pwmlib.")]
    for module in (builtins, collections, io, os, torch, torch._utils, torch.serialization, torch.storage, *own):
        for name, value in vars(module).items():
            if name == "__warningregistry__":
                continue
            seen[module.__name__, name] = id(value)
            if isinstance(value, type):
                seen[module.__name__, name, "class"] = {k: id(v) for k, v in vars(value).items()}
            elif hasattr(value, "__code__"):
                parts = (value.__code__, value.__defaults__, value.__kwdefaults__, *value.__dict__.values())
                seen[module.__name__, name, "function"] = [id(part) for part in parts]
    return seen


def contents(folder):
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def child(folder, todo):
    """Read the files of `todo`, a reader's name and a path each; a line of JSON before and after each."""
    warnings.simplefilter("ignore")
    for path in sorted((folder / "honest").glob("*.pt")):  # so that what is imported late is there
        READERS[path.stem](path)
    b"x".decode("cp437")  # zipfile's other code for names
    events = []

    def watch(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (writes and "/data/" not in str(arguments[0])) or event in (
            "exec",
            "compile",
            "import",
            "os.system",
            "subprocess.Popen",
            "os.remove",
        ):
            events.append(f"{event} {arguments[:1]}"[:200])

    sys.addaudithook(watch)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
    after = process()
    for name, reader, file in todo:
        print(json.dumps({"name": name}), flush=True)
        (folder / "canary" / "kept.py").write_text("kept = 'as it was'\n")
        before, kept, start = after, contents(folder / "canary"), time.process_time()
        events.clear()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # processor time, so that a busy machine fails nothing; the signal ends the process
        try:
            READERS[reader](folder / file)
            found, message = "read", ""
        except ExplainedError as error:
            found, message = "explained", str(error)
        except BaseException as error:
            found, message = f"raw {type(error).__name__}", str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds, after = time.process_time() - start, process()
        changed = [str(key) for key in before | after if before.get(key) != after.get(key)]
        changed += ["canary"] if contents(folder / "canary") != kept else []
        line = {"name": name, "found": found, "message": message, "seconds": seconds, "changed": changed, "events": events}
        print(json.dumps(line), flush=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of every case: what was found, the message, what changed; a file that ends the child is its own result."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("canary", "honest"):
        (folder / name).mkdir()
    (folder / "canary" / "kept.py").write_text("kept = 'as it was'\n")
    honest = {"torch": saved(single()), "model": saved(agent()), "chunk": saved(chunk()), "single": saved(single())}
    for reader, data in honest.items():
        (folder / "honest" / f"{reader}.pt").write_bytes(data)
    todo = []
    for number, (name, (reader, _, content)) in enumerate(CASES.items()):
        (folder / f"{number}.pt").write_bytes(content(str(folder / "canary")) if callable(content) else content)
        todo.append((name, reader, f"{number}.pt"))
    found = {}
    while todo:
        command = [sys.executable, __file__, str(folder), json.dumps(todo)]
        environment = os.environ | {"PYTHONPATH": str(Path(published.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        assert lines, ended.stderr
        found |= {line["name"]: line for line in lines}
        if "found" not in lines[-1]:
            found[lines[-1]["name"]] |= {"found": f"ended by signal {-ended.returncode}", "message": "", "changed": [], "events": []}
        todo = [case for case in todo if case[0] not in found]
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_does_nothing(results, name):
    _, said, _ = CASES[name]
    result = results[name]
    assert not result["changed"] and not result["events"], result
    assert result["found"] == ("read" if said is None else "explained"), result
    assert not re.search("alloc|memory", result["message"]), result  # the limit was met, not kept
    if said is not None:
        assert re.search(said, result["message"]) and ".pt" in result["message"] and len(result["message"]) < 10_000, result


if __name__ == "__main__":
    child(Path(sys.argv[1]), json.loads(sys.argv[2]))
