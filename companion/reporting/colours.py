"""One colour for a method in every figure; Okabe-Ito and relatives, told apart with colour-vision deficiencies too."""

from collections.abc import Iterable

BLUE, SKY, GREEN, ORANGE, VERMILION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
PINK, INDIGO, YELLOW, GREY, BLACK, WHITE = "#CC79A7", "#332288", "#F0E442", "#888888", "#000000", "#FFFFFF"

METHODS = {
    "PWM": BLUE,
    "PWM, SHAC replay": BLUE,
    "PWM, from scratch, state-space model": SKY,
    "PWM, frozen models": INDIGO,
    "PWM, from scratch": GREY,
    "SHAC": GREEN,
    "TD-MPC2": ORANGE,
    "TD-MPC2 without planning": ORANGE,
    "PPO": PINK,
    "SAC": VERMILION,
    "ReLU": VERMILION,
    "LayerNorm + Mish": BLUE,
    "LayerNorm + Mish + SimNorm": GREEN,
    "SimNorm": GREEN,
    "PWM, LayerNorm + Mish": BLUE,
    "PWM, SimNorm": SKY,
    "true J": BLACK,
    "model, H = 3": ORANGE,
    "world model of H = 3": ORANGE,
    "model, H = 16": BLUE,
    "world model of H = 16": BLUE,
    "true": BLACK,
    "true, zeroth order": GREY,
    "first order": BLUE,
    "zeroth order": VERMILION,
}
"""Learners, kinds of world model (as in Fig. 2 and 3), and estimators."""
VERDICT_COLOURS = {
    "holds": BLUE,
    "holds at smaller scale": SKY,
    "contradicts": VERMILION,
    "not shown at this size": ORANGE,
    "cannot be checked": "#BBBBBB",
}
"""Blue where the paper is confirmed, red where it is contradicted, orange where nothing is decided."""
OTHERS = (BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, INDIGO, GREY, YELLOW)


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """Give each label its colour, none twice.

    A method has its own, and so has what is told of it after a comma: "PWM, published" is drawn as PWM. Where several such labels of a
    figure speak of one method, the later ones are darker or lighter. The others have what is left, in order of appearance.

    Args:
        labels: What the figure names.

    Returns:
        Label -> colour.
    """
    different = list(dict.fromkeys(labels))
    known = {label: METHODS[name] for label in different for name in (label, label.removesuffix(", published")) if name in METHODS}
    for label in different:
        method = label.split(", ")[0]
        if label not in known and method in METHODS:
            shades = (_mixed(METHODS[method], other, share) for other, share in ((BLACK, 0.0), (BLACK, 0.5), (WHITE, 0.5), (BLACK, 0.75)))
            known[label] = next((shade for shade in shades if shade not in known.values()), METHODS[method])
    free = iter([c for c in OTHERS if c not in known.values()] + list(OTHERS))
    return {label: known[label] if label in known else next(free) for label in different}


def _mixed(colour: str, other: str, share: float) -> str:
    """The colour with this share of another in it."""
    parts = ((int(c[i : i + 2], 16) for c in (colour, other)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a * (1 - share) + b * share):02X}" for a, b in parts)
