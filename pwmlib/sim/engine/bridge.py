"""The simulator as a torch function: one kernel launch forward, one backward, a trajectory buffer in between."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, NoReturn

import torch
import warp as wp
from torch import Tensor

from .build import CUDA_BLOCK, Buffer, Kernels, Part, build_kernels, one_device
from .model import Material
from .rules import StepRules, split
from .scalars import from_columns, stack_columns
from .source import CONFIG, CONTACT_COLUMNS, SEGMENT_COLUMNS, trajectory_items

__all__ = ["Simulator", "Step"]

_HANDOFF = 2e-4
"""Seconds that sharing must save before another thread is woken, which itself takes about 80 microseconds."""
_COUNTERS = ("steps", "resets", "exploded", "dropped")


class Step(NamedTuple):
    """What one control step gives; E environments."""

    state: Tensor
    """q and qd after the step, after a reset where the episode ended, [E, nq + nd]."""
    obs: Tensor
    """Observation of `state`, [E, obs_dim]."""
    final_obs: Tensor
    """Observation before any reset, [E, obs_dim]: what a value bootstraps from."""
    reward: Tensor
    """Of each environment, [E]."""
    terminated: Tensor
    """Bool [E]: the episode failed (its value is 0), or its state exploded."""
    truncated: Tensor
    """Bool [E]: the episode reached its length; its value goes on."""


class Simulator:
    """`count` environments of one model with its rules on one device; float32 whatever torch's default dtype is.

    Memory: a step that needs gradients keeps one buffer until its graph is freed, then the buffer is used again. One simulator must not
    be stepped from two threads at once.

    Args:
        rules: model, actuation, observation, reward, termination, reset.
        count: environments, E below.
        substeps: of a control step.
        interval: substeps between updates of the mass matrix (1 is exact; more holds H constant in between).
        dt: control step [s].
        episode_length: control steps until truncation with automatic reset; 0: never reset, for gradients of plain rollouts.
        material: of the contacts, the model's own by default.
        seed: of the pool of reset states, 16 for each environment and one more, so that every environment walks through all of them.
        threads: CPU threads that share the packs of environments, no more than there are packs.
        device: "cpu", "cuda" (the current GPU) or one GPU; torch's default device by default.

    Raises:
        ValueError: something does not fit together, or torch cannot use the device.
        RuntimeError: it is stepped in a forked process although it has threads or a GPU, which do not live on there.
        TypeError: it is copied or pickled.
    """

    def __init__(
        self,
        rules: StepRules,
        count: int,
        *,
        substeps: int,
        interval: int,
        dt: float = 1 / 60,
        episode_length: int = 0,
        material: Material | None = None,
        seed: int = 0,
        threads: int = 1,
        device: str | torch.device | None = None,
    ):
        if count < 1 or substeps < 1 or not 1 <= interval <= substeps:
            raise ValueError(
                f"Simulator: need count >= 1, substeps >= 1 and 1 <= interval <= substeps, got {count}, {substeps}, {interval}"
            )
        if threads < 1:
            raise ValueError(f"Simulator: threads must be at least 1, got {threads}")
        self.rules, self.count, self.device = rules, count, one_device(device)
        self.substeps, self.interval, self.dt, self.episode_length = substeps, interval, dt, episode_length
        self.kernels: Kernels = build_kernels(rules, self.device)
        self.state_dim, self.action_dim, self.obs_dim = rules.model.nq + rules.model.nd, rules.action_dim, rules.obs_dim
        self._items = trajectory_items(rules, substeps, interval)
        self.packs = -(-count // self.kernels.width)
        self._shapes = torch.Size((count, self.state_dim)), torch.Size((count, self.action_dim))
        self._cuda = self.device.type == "cuda"
        self._free: list[Tensor] = []
        self.counters = {name: self._table([0] * count, dtype=torch.int32) for name in _COUNTERS}
        """steps: of the current episode; resets; exploded: states; dropped: non-finite gradients. int32 [E] each."""
        self.pool, self.pool_obs = (
            torch.empty(16 * count + 1, n, dtype=torch.float32, device=self.device) for n in (self.state_dim, self.obs_dim)
        )
        """Reset states, [pool, nq + nd], and their observations."""
        self.seed(seed)
        self._configure(material or rules.model.material)
        self._threads = 1 if self._cuda else min(threads, self.packs)
        self._workers = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._process = os.getpid() if self._workers is not None or self._cuda else None
        """The only process that may launch, if what launches does not survive a fork."""
        self._forward = self._record(self.kernels.forward)
        self._backward = self._record(self.kernels.backward)
        simulator = self

        class ControlStep(torch.autograd.Function):
            @staticmethod
            def forward(ctx, state: Tensor, action: Tensor):
                ctx.buffer = buffer = simulator._take()
                ctx.set_materialize_grads(False)
                return simulator._run(buffer, state, action)

            @staticmethod
            def backward(ctx, g_next, g_obs, g_final, g_reward, _):
                if torch.is_grad_enabled():
                    raise RuntimeError("the simulator is differentiable once: call backward or grad without create_graph=True")
                return simulator._run_backward(ctx.buffer, g_next, g_obs, g_final, g_reward)

        self._step = ControlStep.apply

    def __repr__(self) -> str:
        return (
            f"Simulator({self.rules.model.name}, {self.count} environments on {self.device}, {self.substeps} substeps, "
            f"mass matrix every {self.interval})"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: keep its environment's state_dict() and load it into a new environment")

    @property
    def bytes_per_step(self) -> int:
        """How many bytes one differentiable control step keeps until its backward pass."""
        return self.packs * self._items * self.kernels.width * 4

    def step(self, state: Tensor, action: Tensor) -> Step:
        """Take one control step in all environments.

        Gradients of state, obs, final_obs and reward flow to state and action; they are cut where the episode ended. A non-finite
        gradient of an environment is set to zero and counted in `counters["dropped"]`.

        Args:
            state: q and qd, [E, nq + nd], float32 on the simulator's device.
            action: [E, action_dim], as the state; clipped to [-1, 1].

        Raises:
            ValueError: shape, dtype or device of one of them is another.
        """
        for name, value, shape in (("state", state, self._shapes[0]), ("action", action, self._shapes[1])):
            if value.shape != shape:
                raise ValueError(f"{self!r}: {name} has shape {tuple(value.shape)}, expected {tuple(shape)}")
            if value.dtype is not torch.float32 or value.device != self.device:
                raise ValueError(f"{self!r}: {name} is {value.dtype} on {value.device}, expected torch.float32 on {self.device}")
        if torch.is_grad_enabled() and (state.requires_grad or action.requires_grad):
            next_state, obs, final_obs, reward, flags = self._step(state, action)
        else:
            buffer = self._take()
            next_state, obs, final_obs, reward, flags = self._run(buffer, state.detach(), action.detach())
        return Step(next_state, obs, final_obs, reward, *flags.unbind(0))

    def start(self) -> tuple[Tensor, Tensor]:
        """Begin all episodes anew, with states [E, nq + nd] from the reset pool and their observations."""
        rows = (torch.arange(self.count, device=self.device) + self.count * self.counters["resets"].long()) % len(self.pool)
        self.counters["resets"] += 1
        self.counters["steps"].zero_()
        return self.pool[rows].clone(), self.pool_obs[rows].clone()

    def seed(self, seed: int) -> None:
        """Draw the pool of reset states anew; episodes and counters are left alone, but the walk through the pool begins again."""
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.rand(len(self.pool), self.rules.noise_dim, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
        q, qd = self.rules.reset(from_columns(noise))
        model = self.rules.model
        if (len(q), len(qd)) != (model.nq, model.nd):
            raise ValueError(f"{model.name}: reset() gives {len(q)} q and {len(qd)} qd, the model has {model.nq} and {model.nd}")
        state = stack_columns([*q, *qd], noise)
        self.pool.copy_(state)
        self.pool_obs.copy_(self.observe(state))
        self.counters["resets"].zero_()

    def observe(self, state: Tensor, action: Tensor | None = None) -> Tensor:
        """Observe any states in plain torch, [..., obs_dim]; action: the last one, zeros by default."""
        action = state.new_zeros(*state.shape[:-1], self.action_dim) if action is None else action
        return stack_columns(self.rules.observe(*split(self.rules.model, state), from_columns(action)), state)

    def set_material(self, material: Material) -> None:
        """Use other contact parameters from now on (call it between rollouts: backward reads them again); no kernel is rebuilt."""
        values = [material.ke, material.kd, material.kf, material.mu]
        self.contact_table[:, 4:] = torch.tensor(values, dtype=torch.float32, device=self.device)
        self.material = material

    def _take(self) -> Buffer:
        capturing = self._cuda and torch.cuda.is_current_stream_capturing()
        if self._free and not capturing:
            return Buffer(self._free, self._free.pop())
        # A CUDA graph writes to its buffers at every replay: they belong to it alone.
        free = [] if capturing else self._free
        size = self.packs * self._items * self.kernels.width
        return Buffer(free, torch.empty(size, dtype=torch.float32, device=self.device))

    def _run(self, buffer: Buffer, state: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        state, action = state.contiguous(), action.contiguous()
        next_state = torch.empty_like(state)
        obs = state.new_empty(self.count, self.obs_dim)
        final_obs, reward = torch.empty_like(obs), state.new_empty(self.count)
        flags = torch.empty(2, self.count, dtype=torch.bool, device=self.device)
        self._launch(self._forward, buffer.memory, state, action, next_state, obs, final_obs, reward, flags)
        return next_state, obs, final_obs, reward, flags

    def _run_backward(self, buffer: Buffer, *gradients: Tensor | None) -> tuple[Tensor, Tensor]:
        given = [None if g is None else g.contiguous() for g in gradients]
        g_state = buffer.memory.new_empty(self.count, self.state_dim)
        g_action = buffer.memory.new_empty(self.count, self.action_dim)
        self._launch(self._backward, buffer.memory, *given, g_state, g_action)
        return g_state, g_action

    def _record(self, kernel: wp.Kernel) -> list[Part]:
        """The launch of a kernel for each thread's share of the packs."""
        device, parts = wp.device_from_torch(self.device), []
        for part in range(self._threads):
            first, last = (self.packs * (part + i) // self._threads for i in (0, 1))
            dim = self.packs * self.kernels.width if self._cuda else last - first
            inputs = [first, self._config.data_ptr(), *[0] * (len(kernel.adj.args) - 2)]
            command = wp.launch(kernel, dim, inputs, device=device, block_dim=CUDA_BLOCK if self._cuda else 1, record_cmd=True)
            assert isinstance(command, wp.Launch)
            parts.append(Part(command, list(command.params[3:])))  # the launch's bounds, first and config stay
        return parts

    def _launch(self, parts: list[Part], *tensors: Tensor | None) -> None:
        """Point the recorded launches at these tensors, in the order of the kernel's addresses, and run them."""
        if self._process is not None and self._process != os.getpid():
            raise RuntimeError(
                f"{self!r} was made in another process, and its threads or GPU do not live on after a fork: make the environment in the "
                "process that steps it (or with threads=1 on the CPU)"
            )
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        for part in parts:
            for cell, address in zip(part.cells, addresses, strict=False):  # the backward kernel has fewer
                cell.value = address
        if self._cuda:
            parts[0].command.launch(wp.stream_from_torch(torch.cuda.current_stream(self.device)))
            return
        if self._workers is None:
            parts[0].command.launch()
            return
        known = parts[0].seconds
        if len(known) < 3 or min(known) < _HANDOFF:
            began = time.perf_counter()
            for part in parts:
                part.command.launch()
            if len(known) < 3:
                known.append((time.perf_counter() - began) * (1 - 1 / self._threads))
            return
        others = [self._workers.submit(part.command.launch) for part in parts[1:]]
        parts[0].command.launch()
        for other in others:
            other.result()

    def _table(self, rows: list, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(rows, dtype=dtype, device=self.device)

    def _configure(self, material: Material) -> None:
        model = self.rules.model
        slot = {link: i for i, link in enumerate(model.touched)}
        self.contact_table = self._table([[*c.point, c.radius, 0.0, 0.0, 0.0, 0.0] for c in model.contacts]).reshape(-1, CONTACT_COLUMNS)
        """point (3), radius, ke, kd, kf, mu of every contact; may be written between rollouts, since backward reads it again."""
        self.set_material(material)
        strengths = [[*x, *y, model.muscles[m].strength] for m, _, _, x, y in model.segments]
        self.segment_table = self._table(strengths).reshape(-1, SEGMENT_COLUMNS)
        self._tensors = {
            "dt": self._table([self.dt / self.substeps]), "contact_data": self.contact_table, "segment_data": self.segment_table,
            "contact_link": self._table([slot[c.link] for c in model.contacts], torch.int32),
            "segment_index": self._table([[m, slot[a], slot[b]] for m, a, b, _, _ in model.segments], torch.int32),
            "pool": self.pool, "pool_obs": self.pool_obs, **self.counters,
        }  # fmt: skip
        numbers = {
            "E": self.count, "items": self._items, "substeps": self.substeps, "interval": self.interval, "limit": self.episode_length,
            "contacts": len(model.contacts), "segments": len(model.segments), "pool_rows": len(self.pool),
            **{name: tensor.data_ptr() for name, tensor in self._tensors.items()},
        }  # fmt: skip
        self._config = self._table([numbers[name] for name in CONFIG], torch.int64)
