"""Learners that can be stopped after any update and go on to the same numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["Continued"]


class Continued:
    """A learner's state is what its attribute `kept` names, in a form that a checkpoint holds.

    It may name parts with a state_dict of their own, random generators, and plain values.
    """

    kept: Sequence[str] = ()
    dispensable: Sequence[str] = ()
    """Those that the state of a run that is over may lack: without them the policy can act, but nothing can be learned."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a bit-identical continuation needs but what the learner was made of."""
        return {name: _state(getattr(self, name)) for name in self.kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name in self.kept:
            if name in self.dispensable and name not in state:
                continue
            part = getattr(self, name)
            if isinstance(part, torch.Generator):
                part.set_state(state[name].cpu())
            elif isinstance(part, np.random.Generator):
                part.bit_generator.state = state[name]
            elif hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
            else:
                setattr(self, name, state[name].to(part.device) if isinstance(part, torch.Tensor) else state[name])


def _state(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    return part.state_dict() if hasattr(part, "state_dict") else part
