"""See a gait: states as an animated matplotlib figure, as frames, or as a gif or mp4 file."""

import math
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, writers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import MultipleLocator
from scipy.spatial import ConvexHull
from torch import Tensor

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.rigid_bodies import forward_kinematics
from pwmlib.sim.engine.scalars import from_columns, stack_columns
from pwmlib.sim.engine.shapes import Box, Capsule, Shape

__all__ = ["Camera", "render", "render_frames", "save_animation", "shape_points"]


def shape_points(model: Model, states: Tensor) -> list[tuple[Shape, np.ndarray]]:
    """Place every shape in the world: (shape, points [T, n, 3]); capsules have 2 ends, spheres 1 point, boxes 8 corners.

    states: [T, nq + nd] or [T, nq].
    """
    return [
        (shape, _placed(place, np.array([point for point, _ in shape.contact_points()])))
        for link, place in zip(model.links, _places(model, states), strict=True)
        for shape in link.shapes
    ]


def _places(model: Model, states: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rotation [T, 3, 3], position [T, 3]) of every link in the world."""
    q = from_columns(states[:, : model.nq].detach().double().cpu())
    frames, origin, like = forward_kinematics(model, q), _origin(model, q), q[0][:, None]
    return [
        (torch.stack([stack_columns(row, like) for row in rotation], 1).numpy(), origin + stack_columns(position, like).numpy())
        for rotation, position in zip(frames.rotations, frames.positions, strict=True)
    ]


def _placed(place: tuple[np.ndarray, np.ndarray], points: np.ndarray) -> np.ndarray:
    """Points [n, 3] of a link in the world, [T, n, 3]."""
    return np.einsum("tij,nj->tni", place[0], points) + place[1][:, None]


def _origin(model: Model, q: list[Tensor]) -> np.ndarray:
    """Where the origin of the solved positions is in the world, [T, 3]."""
    origin = np.zeros((len(q[0]), 3))
    for i, link in enumerate(model.links):
        at = model.q_start[i]
        if link.joint.kind == "free":
            origin += np.stack([np.asarray(x) for x in q[at : at + 3]], -1)
        elif link.joint.kind == "slide" and link.parent is None:
            axis = np.array(model.joint_rotations[i]) @ np.array(model.axes[i])
            if axis[1] == 0:
                origin += np.asarray(q[at])[:, None] * axis
    return origin


class Camera(TypedDict, total=False):
    """Keyword arguments that `render` and `render_frames` share."""

    azimuth: float
    """Degrees, 20 by default; 0 with an elevation of 0 looks along -z at the x-y plane."""
    elevation: float
    """Degrees, 8 by default."""
    span: float | None
    """Width of the picture [m], by default what shows the whole robot."""
    size: tuple[float, float]
    """Of the picture in inches of 100 dots, (6.4, 3.6) by default."""
    start: float
    """What the clock says at the first state [s], 0 by default."""


class _Scene:
    """A figure of the ground, and on its screen all shapes and muscles at all times; `draw` shows those of one."""

    def __init__(
        self, model: Model, states: Tensor, *, dt: float, azimuth: float = 20.0, elevation: float = 8.0, span: float | None = None,
        size: tuple[float, float] = (6.4, 3.6), start: float = 0.0,
    ):  # fmt: skip
        if states.dim() != 2 or states.shape[1] not in (model.nq, model.nq + model.nd) or len(states) == 0:
            raise ValueError(
                f"render: states has shape {tuple(states.shape)}, expected [T, {model.nq}] or [T, {model.nq + model.nd}] for {model.name!r}"
            )
        if not bool(torch.isfinite(states).all()):
            step = int((~torch.isfinite(states)).any(-1).nonzero()[0])
            raise ValueError(f"render: state {step} of {len(states)} is not finite")
        a, e = math.radians(azimuth), math.radians(elevation)
        right = np.array([math.cos(a), 0.0, -math.sin(a)])
        toward = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
        up = np.cross(toward, right)
        moves = any(link.joint.kind in ("free", "slide") and link.parent is None for link in model.links)
        shapes = shape_points(model, states)
        # The camera walks with the robot: on the screen, where it has gone changes the metres along the ground and nothing else.
        middle = np.concatenate([points for _, points in shapes], 1).mean(1)[:, None] * float(moves)

        def screen(points: np.ndarray) -> np.ndarray:
            level = points - middle * np.array([1.0, 0.0, 1.0])
            return np.stack([level @ right + middle[..., 0], level @ up], -1)

        parts = [(shape, screen(points), points.mean(1) @ toward) for shape, points in shapes]
        places = _places(model, states)
        pairs = [((places[a], x), (places[b], y)) for _, a, b, x, y in model.segments]
        ends = [np.concatenate([_placed(place, np.array([point])) for place, point in pair], 1) for pair in pairs]
        muscles = np.stack([screen(e) for e in ends]) if ends else np.zeros((0, len(states), 2, 2))
        everything = np.concatenate([points for _, points, _ in parts], 1)
        center = everything[..., 0].mean(1) if moves else np.full(len(states), everything[0, 0, 0])
        lowest, highest = min(0.0, float(everything[..., 1].min())), float(everything[..., 1].max())
        if span is None:
            wide = 2.3 * float(np.abs(everything[..., 0] - center[:, None]).max())
            span = max(1.75 * (highest - lowest) * size[0] / size[1], wide, 1.0)
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        height = span * size[1] / size[0]
        bottom = lowest - 0.12 * height
        axes.axhspan(lowest - span, 0, color="0.87", zorder=1)
        axes.axhline(0, color="0.45", linewidth=1, zorder=2)
        axes.xaxis.set_major_locator(MultipleLocator(1.0))
        axes.grid(axis="x", color="0.8", linewidth=0.6)
        axes.set_xlabel("metres")
        axes.set_yticks([])
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        self.parts, self.muscles, self.center, self.span = parts, muscles, center, span
        self.figure, self.canvas, self.times, self.drawn = figure, canvas, start + np.arange(len(states)) * dt, []
        axes.set_xlim(center[0] - span / 2, center[0] + span / 2)
        canvas.draw()
        window = axes.get_window_extent()
        axes.set_ylim(bottom, bottom + span * window.height / window.width)

    def draw(self, t: int) -> None:
        axes = self.figure.axes[0]
        for artist in self.drawn:
            artist.remove()
        self.drawn.clear()
        points_per_metre = axes.get_window_extent().width / self.span * 72 / self.figure.dpi
        middle = self.center[t]
        axes.set_xlim(middle - self.span / 2, middle + self.span / 2)
        order = sorted(self.parts, key=lambda part: part[2][t])
        near, far = order[-1][2][t], order[0][2][t]
        for zorder, (shape, screen, depth) in enumerate(order, 3):
            light = 0.45 * (near - depth[t]) / max(near - far, 1e-6)
            face = tuple(c + (1 - c) * light for c in (0.13, 0.35, 0.56))
            edge = tuple(0.55 * c for c in face)
            if isinstance(shape, Box):
                corners = screen[t][ConvexHull(screen[t]).vertices]
                self.drawn.append(axes.add_patch(Polygon(corners, facecolor=face, edgecolor=edge, linewidth=0.6, zorder=zorder)))
            elif isinstance(shape, Capsule):
                for colour, extra in ((edge, 1.2), (face, 0.0)):
                    width = 2 * shape.radius * points_per_metre + extra
                    line = LineCollection(list(screen[t : t + 1]), colors=[colour], linewidths=width, capstyle="round", zorder=zorder)
                    self.drawn.append(axes.add_collection(line))
            else:
                circle = Circle(screen[t, 0], shape.radius, facecolor=face, edgecolor=edge, linewidth=0.6, zorder=zorder)
                self.drawn.append(axes.add_patch(circle))
        if len(self.muscles):
            lines = LineCollection(list(self.muscles[:, t]), colors="#b3262c", linewidths=0.5, alpha=0.5, zorder=len(order) + 3)
            self.drawn.append(axes.add_collection(lines))
        axes.set_title(f"{self.times[t]:.2f} s", fontsize=9, loc="right")


def render(model: Model, states: Tensor, *, stride: int = 2, dt: float = 1 / 60, **camera: Unpack[Camera]) -> FuncAnimation:
    """Animate a figure that follows the robot; in a notebook show it with `HTML(animation.to_jshtml())`.

    Args:
        model: the robot.
        states: one state a control step, [T, nq + nd] or [T, nq].
        stride: every how many steps a frame.
        dt: control step [s].
        camera: see `Camera`.

    Raises:
        ValueError: states have another shape, or are not finite.
    """
    scene = _Scene(model, states[::stride], dt=dt * stride, **camera)
    return FuncAnimation(scene.figure, scene.draw, frames=len(scene.times), interval=1e3 * dt * stride, cache_frame_data=False)


def render_frames(model: Model, states: Tensor, *, stride: int = 2, dt: float = 1 / 60, **camera: Unpack[Camera]) -> np.ndarray:
    """Draw the same as images: uint8, [frames, height, width, 3]."""
    scene = _Scene(model, states[::stride], dt=dt * stride, **camera)
    images = []
    for t in range(len(scene.times)):
        scene.draw(t)
        scene.canvas.draw()
        images.append(np.asarray(scene.canvas.buffer_rgba())[..., :3].copy())
    return np.stack(images)


def save_animation(animation: FuncAnimation, path: str | Path, *, fps: int = 30) -> Path:
    """Write a .gif (always possible) or an .mp4 (needs ffmpeg on the machine); returns the path.

    Raises:
        ValueError: the path ends otherwise, or what writes it is not on this machine.
    """
    path = Path(path)
    chosen = {".gif": "pillow", ".mp4": "ffmpeg"}.get(path.suffix)
    if chosen is None:
        raise ValueError(f"save_animation: the file must end in .gif or .mp4, got {path.name!r}")
    if not writers.is_available(chosen):
        raise ValueError(f"save_animation: {path.name} needs {chosen}, which is not on this machine; a .gif does not need it")
    animation.save(str(path), writer=chosen, fps=fps)
    return path
