"""The robots' tables: a TOML file each, beside this module."""

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pwmlib.sim.engine.model import Joint, Link, Material, Model
from pwmlib.sim.engine.shapes import Box, Capsule, Sphere

__all__ = ["read_model"]

_POINTS = {"position", "center", "start", "end"}


def read_model(name: str) -> Model:
    """Read the model of NAME.toml: fields of `Model`, and its links in chains, with the fields of `Link`, `Joint` and the shapes.

    A chain with `sides` stands for one chain a side: a side's name goes before the links' names, its three signs multiply their points, and
    any value may be a table of values by side. `joint` at the top is what each joint has that is not free and does not say otherwise.
    """
    with (Path(__file__).parent / f"{name}.toml").open("rb") as file:
        table = tomllib.load(file)
    common, chains, material = table.pop("joint"), table.pop("chains"), Material(**table.pop("material", {}))
    links = []
    for chain in chains:
        for side, signs in chain.get("sides", {"": (1, 1, 1)}).items():
            names = {row["name"]: f"{side}_{row['name']}" if side else row["name"] for row in chain["links"]}
            links += [_link(row, side, signs, names, common) for row in chain["links"]]
    return Model(name, tuple(links), material, **table)


def _link(row: dict[str, Any], side: str, signs: Sequence[int], names: dict[str, str], common: dict[str, Any]) -> Link:
    """A link of a chain on one side. names: what the chain's links are called there."""

    def of_side(fields: dict[str, Any]) -> dict[str, Any]:
        values = {key: value[side] if isinstance(value, dict) else value for key, value in fields.items()}
        for key in _POINTS & values.keys():
            values[key] = [sign * x for sign, x in zip(signs, values[key], strict=True)]
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    joint = of_side(row["joint"] if row["joint"].get("kind") == "free" else common | row["joint"])
    if degrees := joint.pop("degrees", None):
        joint["lower"], joint["upper"] = map(math.radians, degrees)
    shapes = [(Box if "half" in shape else Capsule if "start" in shape else Sphere)(**of_side(shape)) for shape in row.get("shapes", ())]
    parent = names.get(row.get("parent", ""), row.get("parent"))
    return Link(names[row["name"]], Joint(**joint), parent, tuple(shapes), collides=row.get("collides", True))
