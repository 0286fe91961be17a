"""A differentiable contact simulator: one definition of the dynamics, compiled to one forward and one backward Warp kernel a step."""
