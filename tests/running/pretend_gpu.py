"""A GPU that is not there: tensors on the CPU that carry another device's name, and refuse what a real one would refuse.

`PretendGPU` is a torch function mode. Under it `device="cuda"` makes ordinary tensors that are remembered as being on the GPU; everything
computed from them is there as well, `.cpu()` brings a copy back, and an operation on tensors of both devices raises as torch does. So code
that runs under it has put each tensor where it belongs; what its kernels compute on a GPU is another question.
"""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


class WrongDeviceError(RuntimeError):
    pass


def on_gpu(x):
    return getattr(x, "_on_gpu", False)


def put(x, gpu):
    """Name the device of each tensor in x."""
    for t in tree_flatten(x)[0]:
        if isinstance(t, torch.Tensor):
            t._on_gpu = gpu
            if isinstance(t, torch.nn.Parameter) and t.grad is not None:
                t.grad._on_gpu = gpu
    return x


class Generator(torch.Generator):
    """Of either device; on the CPU in truth."""

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls)
        generator.pretended = torch.device(device)
        return generator

    @property
    def device(self):
        return self.pretended


class PretendGPU(TorchFunctionMode):
    """See above."""

    COPIES = ("copy_", "__setitem__", "fill_")
    HOST_ONLY = ("numpy", "__array__", "data_ptr")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name == "__get__" or name == "__set__":
            return self._attribute(func, args, kwargs)
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        asked = self._asked(name, args, kwargs)
        args, kwargs = self._without_device(args, kwargs, asked)
        if name in self.HOST_ONLY and on_gpu(args[0]):
            raise WrongDeviceError(f"{name} of a tensor on the GPU")
        if name == "__deepcopy__":  # its second argument is the memory of all copies made before
            return put(func(*args), on_gpu(args[0]))
        if name == "cpu":
            return put(func(args[0]).clone(), False)
        self._check(name, args, tensors, kwargs.get("generator"), asked)
        result = func(*args, **kwargs)
        if name in ("tolist", "item", "size", "dim", "numel", "__len__") or not tree_flatten(result)[0]:
            return result
        if asked is not None:
            gpu = asked.type == "cuda"
            if name == "to" and on_gpu(args[0]) != gpu:
                result = result.clone()
        elif name in self.COPIES or name == "__getitem__":
            gpu = on_gpu(args[0])
        else:
            gpu = any(on_gpu(t) for t in tensors)
        return put(result, gpu)

    @staticmethod
    def _attribute(func, args, kwargs):
        names = {"device": lambda t: GPU if on_gpu(t) else CPU, "is_cuda": on_gpu, "is_cpu": lambda t: not on_gpu(t)}
        of = getattr(func, "__self__", None)
        attribute = getattr(of, "__name__", "")
        if attribute in names and func.__name__ == "__get__":
            return names[attribute](args[0])
        result = func(*args, **kwargs)
        if func.__name__ == "__get__" and isinstance(result, torch.Tensor):
            put(result, on_gpu(args[0]))
        if func.__name__ == "__set__" and attribute == "data":
            put(args[0], on_gpu(args[1]))
        return result

    @staticmethod
    def _asked(name, args, kwargs):
        """The device that a call names."""
        found = kwargs.get("device")
        if name == "to" and found is None:
            found = next((a for a in args[1:] if isinstance(a, str | torch.device)), None)
            if found is None and len(args) > 1 and isinstance(args[1], torch.Tensor):
                found = GPU if on_gpu(args[1]) else CPU
        return None if found is None else torch.device(found)

    @staticmethod
    def _without_device(args, kwargs, asked):
        if asked is None:
            return args, kwargs
        given = (torch.device, str)
        return tuple(CPU if isinstance(a, given) else a for a in args), {k: CPU if k == "device" else v for k, v in kwargs.items()}

    def _check(self, name, args, tensors, generator, asked):
        if name in ("to", "backward", "grad", "_has_compatible_shallow_copy_type"):
            return
        if generator is not None:
            gpu = asked.type == "cuda" if asked is not None else any(map(on_gpu, tensors))
            if (generator.device.type == "cuda") != gpu:
                raise WrongDeviceError(f"{name}: generator on {generator.device}, result on {'cuda' if gpu else 'cpu'}")
        elif asked is not None and not tensors:
            return
        counted = [t for t in tensors if t.dim() > 0 or on_gpu(t)]  # a scalar on the CPU may go anywhere
        if name in (*self.COPIES, "__getitem__"):
            counted = [args[0]]  # a value may come from the other device
            if name in ("__setitem__", "__getitem__"):  # an index on the CPU may be used on the GPU
                index = [t for t in tree_flatten(args[1])[0] if isinstance(t, torch.Tensor)]
                counted += [t for t in index if on_gpu(t)]
        if len({on_gpu(t) for t in counted}) > 1:
            raise WrongDeviceError(f"{name}: expected all tensors on one device, got {[(tuple(t.shape), on_gpu(t)) for t in tensors]}")


@contextlib.contextmanager
def really():
    """Within the mode, as if it was not there."""
    with torch.overrides._pop_mode_temporarily():
        yield


class PretendSimulator:
    """A simulator on the CPU that takes and gives tensors of the device it was asked for."""

    made = None

    def __init__(self, *args, device=None, **options):
        self.device = torch.device(device if device is not None else "cpu")
        with really():
            self.real = type(self).made(*args, device="cpu", **options)
        self.gpu = self.device.type == "cuda"
        put(self.real.counters, self.gpu)
        put([self.real.pool, self.real.pool_obs], self.gpu)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def step(self, state, action):
        for what, x in (("state", state), ("action", action)):
            if on_gpu(x) != self.gpu:
                raise WrongDeviceError(f"simulator on {self.device}: {what} on {x.device}")
        with really():
            step = self.real.step(state, action)
        return type(step)(*put(tuple(step), self.gpu))

    def start(self):
        with really():
            return put(self.real.start(), self.gpu)

    def seed(self, seed):
        with really():
            self.real.seed(seed)


@contextlib.contextmanager
def pretended_gpu(monkeypatch):
    """Run the code below on a GPU that is not there, the simulator included."""
    from pwmlib.sim import env
    from pwmlib.sim.engine.bridge import Simulator

    monkeypatch.setattr(PretendSimulator, "made", Simulator)
    monkeypatch.setattr(env, "Simulator", PretendSimulator)
    monkeypatch.setattr(torch, "Generator", Generator)
    parameter = torch.nn.Parameter.__new__
    monkeypatch.setattr(
        torch.nn.Parameter, "__new__", lambda cls, data=None, requires_grad=True: put(parameter(cls, data, requires_grad), on_gpu(data))
    )
    with PretendGPU():
        yield
