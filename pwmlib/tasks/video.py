"""A video of an episode in the real simulator, where MuJoCo finds something to render with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pwmlib.errors import ExplainedError

from .environment import Environment

__all__ = ["RendererMissingError", "save_video"]


class RendererMissingError(ExplainedError):
    """MuJoCo cannot render on this machine."""


def _missing(reason: str) -> RendererMissingError:
    return RendererMissingError(
        f"MuJoCo cannot render here ({reason}). With a GPU driver set MUJOCO_GL=egl, with OSMesa installed MUJOCO_GL=osmesa, before "
        "Python starts; everything but videos works without."
    )


def save_video(
    env: Environment, act: Callable[[np.ndarray, int], np.ndarray], path: str | Path, *, seed: int, size: tuple[int, int] = (320, 240),
    every: int = 2,
) -> Path:  # fmt: skip
    """Run one episode and save it as an animated GIF.

    Args:
        env: the task's environment.
        act: as for `record`.
        path: where the video goes; folders are made.
        seed: of the episode.
        size: pixels, (width, height).
        every: so many decisions to a picture.

    Returns:
        The path.

    Raises:
        RendererMissingError: before the episode, where there is no display and neither EGL nor OSMesa.
    """
    import mujoco
    from PIL import Image

    model, _ = env.simulation()
    if not os.environ.get("DISPLAY") and os.environ.get("MUJOCO_GL") not in ("egl", "osmesa"):
        raise _missing("no display")  # GLFW without one ends the process, not the call
    try:
        renderer = mujoco.Renderer(model, height=size[1], width=size[0])
    except Exception as error:  # each of the three backends has errors of its own
        raise _missing(f"{type(error).__name__}: {error}") from None
    obs, frames = env.reset(seed), []
    camera = 0 if model.ncam else -1
    for step in range(env.task.decisions):
        if step % every == 0:
            renderer.update_scene(env.simulation()[1], camera=camera)
            frames.append(Image.fromarray(renderer.render()))
        obs, _, _ = env.step(act(obs, step))
    renderer.close()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40 * every, loop=0)
    return path
