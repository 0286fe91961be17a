"""One colour for a method in every figure; Okabe-Ito and relatives, told apart with colour-vision deficiencies too."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["METHODS", "OTHERS", "colours_of"]

METHODS = {
    "PWM": "#0072B2",
    "PWM, SHAC replay": "#0072B2",
    "PWM, from scratch, state-space model": "#56B4E9",
    "PWM, frozen models": "#332288",
    "PWM, from scratch": "#888888",
    "SHAC": "#009E73",
    "TD-MPC2": "#E69F00",
    "PPO": "#CC79A7",
    "SAC": "#D55E00",
    "ReLU": "#D55E00",
    "LayerNorm + Mish": "#0072B2",
    "LayerNorm + Mish + SimNorm": "#009E73",
    "world model of H = 3": "#E69F00",
    "world model of H = 16": "#0072B2",
}
"""Learners, and kinds of world model (as in Fig. 2)."""
OTHERS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#332288", "#888888", "#F0E442")


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """Label -> colour: its own where it has one ("PWM, published" has PWM's), the others in order of appearance, none twice."""
    different = list(dict.fromkeys(labels))
    known = {label: METHODS[name] for label in different for name in (label, label.removesuffix(", published")) if name in METHODS}
    free = iter([c for c in OTHERS if c not in known.values()] + list(OTHERS))
    return {label: known[label] if label in known else next(free) for label in different}
