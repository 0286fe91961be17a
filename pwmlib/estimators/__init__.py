"""Policy-gradient estimators on the same samples, their statistics, and how faithful a model's gradient is.

paths = dict(start=start, noise=noise)                          # [N, state_dim], [T, N, action_dim]
first = first_order(world, policy, **paths)                     # any pwmlib.model.dynamics.Dynamics
zeroth = zeroth_order(world, policy, **paths, baseline="reward_to_go")
horizon_table(first), horizon_table(zeroth)                     # variance and ESNR against the horizon, with intervals
"""

from .policy_gradients import (
    PolicyGradients,
    confidence_alpha,
    first_order,
    first_order_along,
    flat_parameters,
    mix,
    parameter_smoothing,
    variance_optimal_alpha,
    zeroth_order,
)
from .statistics import gradient_fidelity, gradient_statistics, horizon_table, reward_gradients
from .total_propagation import total_propagation
from .trajectories import sample_trajectories

__all__ = [
    "PolicyGradients", "confidence_alpha", "first_order", "first_order_along", "flat_parameters", "gradient_fidelity",
    "gradient_statistics", "horizon_table", "mix", "parameter_smoothing", "reward_gradients", "sample_trajectories", "total_propagation",
    "variance_optimal_alpha", "zeroth_order",
]  # fmt: skip
