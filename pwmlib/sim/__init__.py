"""Differentiable worlds: robots on a contact simulator (env, registry), and worlds in closed form."""
