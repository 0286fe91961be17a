"""The fixed text of the kernels: vector types and their functions for each kind of device, and the loops around the traced formulas.

It lies in the folder `kernels` as C++, in which @NAME@ stands for what is put in.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONFIG", "FRAMES", "PRELUDE"]

CONFIG = {
    "E": "int", "items": "int", "substeps": "int", "interval": "int", "contacts": "int", "segments": "int", "limit": "int",
    "pool_rows": "int", "dt": "const float*", "contact_link": "const int*", "contact_data": "const float*", "segment_index": "const int*",
    "segment_data": "const float*", "steps": "int*", "resets": "int*", "exploded": "int*", "dropped": "int*", "pool": "const float*",
    "pool_obs": "const float*",
}  # fmt: skip
"""Name and C type of each 64-bit number in the table that both kernels read, in its order; the bridge fills it by these names."""

_TABLE = "\n".join(f" {kind} const {name}=({kind})((const long long*)config_)[{i}];" for i, (name, kind) in enumerate(CONFIG.items()))


def _text(name: str) -> str:
    return (Path(__file__).parent / "kernels" / name).read_text()


PRELUDE = {"cpu": _text("cpu.h"), "cuda": _text("cuda.h")}
"""Kind of device -> what the frames are written with."""

_LAYOUT = _text("layout.h").replace("@TABLE@", _TABLE)

FRAMES = tuple(_text(name).replace("@LAYOUT@", _LAYOUT) for name in ("forward.cpp", "backward.cpp"))
"""The forward and the backward kernel, with room for the traced parts."""
