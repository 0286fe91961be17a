"""Lines of action of one leg: (name, force [N] a strand, strands as offsets of the origin [m], waypoints (link, point [m])).

Strand counts follow the published groups, 76 a side; forces are round numbers of the literature's order (the sum is 28 kN a side).
Offsets apply in full to the first waypoint and to 40 % to the others.
"""

from __future__ import annotations

__all__ = ["GROUPS"]


def _fan(n: int, dx: float = 0.0, dy: float = 0.0, dz: float = 0.0) -> list[tuple[float, float, float]]:
    """n strands spread evenly from minus to plus the offset."""
    steps = [0.0] if n == 1 else [2 * k / (n - 1) - 1 for k in range(n)]
    return [(s * dx, s * dy, s * dz) for s in steps]


GROUPS = [
    ("adductor_brevis", 250, _fan(2, dy=0.01), [("pelvis", (0.03, -0.10, 0.02)), ("femur", (-0.01, -0.12, 0.0))]),
    ("adductor_longus", 300, _fan(2, dy=0.01), [("pelvis", (0.04, -0.08, 0.02)), ("femur", (0.0, -0.20, 0.0))]),
    ("adductor_magnus", 300, _fan(5, dx=0.01, dy=0.04), [("pelvis", (-0.04, -0.11, 0.05)), ("femur", (-0.01, -0.24, -0.01))]),
    (
        "biceps_femoris_long",
        700,
        _fan(1),
        [("pelvis", (-0.06, -0.10, 0.07)), ("femur", (-0.03, -0.38, 0.03)), ("tibia", (-0.02, -0.04, 0.04))],
    ),
    ("biceps_femoris_short", 300, _fan(2, dy=0.03), [("femur", (-0.01, -0.22, 0.02)), ("tibia", (-0.02, -0.05, 0.04))]),
    (
        "extensor_digitorum_longus",
        130,
        _fan(4, dy=0.03, dz=0.008),
        [("tibia", (0.02, -0.15, 0.03)), ("talus", (0.05, 0.0, 0.01)), ("small_toes", (0.04, 0.012, 0.0))],
    ),
    (
        "extensor_hallucis_longus",
        160,
        _fan(1),
        [("tibia", (0.02, -0.20, 0.02)), ("talus", (0.05, 0.0, -0.01)), ("big_toe", (0.06, 0.012, 0.0))],
    ),
    ("flexor_digiti_minimi", 45, _fan(1), [("talus", (0.03, -0.06, 0.03)), ("small_toes", (0.03, -0.015, 0.012))]),
    (
        "flexor_digitorum_longus",
        80,
        _fan(4, dy=0.03, dz=0.006),
        [("tibia", (-0.02, -0.18, -0.01)), ("talus", (-0.02, -0.03, -0.03)), ("small_toes", (0.04, -0.015, 0.0))],
    ),
    (
        "flexor_hallucis_longus",
        160,
        _fan(2, dy=0.03),
        [("tibia", (-0.02, -0.20, 0.02)), ("talus", (-0.03, -0.03, -0.02)), ("big_toe", (0.06, -0.015, 0.0))],
    ),
    (
        "gastrocnemius_lateral",
        700,
        _fan(1),
        [("femur", (-0.03, -0.40, 0.025)), ("tibia", (-0.05, -0.15, 0.02)), ("talus", (-0.055, -0.04, 0.0))],
    ),
    (
        "gastrocnemius_medial",
        1200,
        _fan(1),
        [("femur", (-0.03, -0.40, -0.025)), ("tibia", (-0.05, -0.15, -0.02)), ("talus", (-0.055, -0.04, 0.0))],
    ),
    (
        "gluteus_maximus",
        350,
        _fan(5, dy=0.03, dz=0.02),
        [("pelvis", (-0.09, 0.02, 0.04)), ("pelvis", (-0.08, -0.06, 0.09)), ("femur", (-0.03, -0.10, 0.03))],
    ),
    ("gluteus_medius", 400, _fan(4, dx=0.04), [("pelvis", (0.0, 0.10, 0.12)), ("femur", (-0.01, -0.02, 0.06))]),
    ("gluteus_minimus", 200, _fan(3, dx=0.03), [("pelvis", (0.0, 0.06, 0.11)), ("femur", (0.01, -0.01, 0.06))]),
    ("gracilis", 140, _fan(1), [("pelvis", (0.02, -0.11, 0.01)), ("femur", (-0.02, -0.40, -0.04)), ("tibia", (0.01, -0.08, -0.02))]),
    ("gemellus_inferior", 110, _fan(1), [("pelvis", (-0.06, -0.07, 0.04)), ("femur", (-0.01, -0.01, 0.05))]),
    ("gemellus_superior", 110, _fan(1), [("pelvis", (-0.06, -0.05, 0.04)), ("femur", (-0.01, 0.0, 0.05))]),
    ("obturator_externus", 300, _fan(1), [("pelvis", (0.02, -0.09, 0.03)), ("femur", (-0.02, -0.02, 0.04))]),
    ("obturator_internus", 400, _fan(1), [("pelvis", (-0.05, -0.08, 0.03)), ("femur", (-0.01, 0.0, 0.05))]),
    ("pectineus", 180, _fan(1), [("pelvis", (0.04, -0.06, 0.03)), ("femur", (-0.01, -0.09, 0.0))]),
    ("peroneus_brevis", 350, _fan(1), [("tibia", (-0.01, -0.25, 0.04)), ("talus", (-0.02, -0.02, 0.035)), ("talus", (0.04, -0.05, 0.035))]),
    ("peroneus_longus", 750, _fan(1), [("tibia", (0.0, -0.12, 0.04)), ("talus", (-0.02, -0.02, 0.035)), ("talus", (0.05, -0.065, -0.01))]),
    ("peroneus_tertius", 90, _fan(2, dy=0.02), [("tibia", (0.01, -0.30, 0.03)), ("talus", (0.06, -0.03, 0.03))]),
    ("piriformis", 150, _fan(2, dy=0.015), [("pelvis", (-0.08, 0.02, 0.02)), ("femur", (0.0, 0.0, 0.05))]),
    ("plantaris", 60, _fan(1), [("femur", (-0.03, -0.39, 0.02)), ("talus", (-0.055, -0.04, 0.005))]),
    ("popliteus", 120, _fan(1), [("femur", (0.0, -0.41, 0.03)), ("tibia", (-0.02, -0.08, -0.02))]),
    ("quadratus_femoris", 250, _fan(1), [("pelvis", (-0.05, -0.10, 0.06)), ("femur", (-0.02, -0.04, 0.04))]),
    (
        "rectus_femoris",
        550,
        _fan(2, dz=0.01),
        [("pelvis", (0.06, 0.0, 0.09)), ("femur", (0.06, -0.38, 0.0)), ("tibia", (0.045, -0.06, 0.0))],
    ),
    ("sartorius", 150, _fan(1), [("pelvis", (0.07, 0.04, 0.11)), ("femur", (0.0, -0.38, -0.05)), ("tibia", (0.01, -0.07, -0.02))]),
    (
        "semimembranosus",
        550,
        _fan(2, dy=0.01),
        [("pelvis", (-0.06, -0.09, 0.07)), ("femur", (-0.03, -0.39, -0.03)), ("tibia", (-0.02, -0.04, -0.03))],
    ),
    ("semitendinosus", 350, _fan(1), [("pelvis", (-0.06, -0.11, 0.06)), ("femur", (-0.03, -0.40, -0.03)), ("tibia", (0.0, -0.08, -0.03))]),
    ("soleus", 1500, _fan(2, dz=0.015), [("tibia", (-0.03, -0.12, 0.01)), ("talus", (-0.055, -0.04, 0.0))]),
    (
        "tensor_fasciae_latae",
        80,
        _fan(3, dx=0.015),
        [("pelvis", (0.06, 0.06, 0.12)), ("femur", (0.0, -0.38, 0.05)), ("tibia", (0.01, -0.04, 0.03))],
    ),
    ("tibialis_anterior", 900, _fan(1), [("tibia", (0.02, -0.15, 0.02)), ("talus", (0.04, 0.0, -0.02)), ("talus", (0.06, -0.045, -0.03))]),
    (
        "tibialis_posterior",
        1200,
        _fan(1),
        [("tibia", (-0.02, -0.15, 0.01)), ("talus", (-0.02, -0.02, -0.03)), ("talus", (0.03, -0.055, -0.02))],
    ),
    (
        "vastus_intermedius",
        700,
        _fan(2, dy=0.04),
        [("femur", (0.03, -0.20, 0.01)), ("femur", (0.06, -0.38, 0.0)), ("tibia", (0.045, -0.06, 0.0))],
    ),
    (
        "vastus_lateralis",
        900,
        _fan(2, dy=0.04),
        [("femur", (0.01, -0.18, 0.04)), ("femur", (0.055, -0.38, 0.01)), ("tibia", (0.045, -0.06, 0.005))],
    ),
    (
        "vastus_medialis",
        450,
        _fan(3, dy=0.04),
        [("femur", (0.01, -0.22, -0.02)), ("femur", (0.055, -0.39, -0.015)), ("tibia", (0.045, -0.06, -0.005))],
    ),
    ("iliacus", 250, _fan(3, dz=0.02), [("pelvis", (0.0, 0.06, 0.08)), ("pelvis", (0.06, -0.04, 0.07)), ("femur", (-0.01, -0.06, 0.01))]),
]
