"""Pictures and videos of episodes in the real simulator, where MuJoCo finds something to render with."""

import os
import sys
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from pathlib import Path

import numpy as np

from pwmlib.errors import ExplainedError

from .environment import Environment

__all__ = ["Camera", "RendererMissingError", "filmed", "render_offscreen", "save_gif", "save_video"]

DECISION_MS = 40
"""How long a decision is shown, of two control steps."""

Act = Callable[[np.ndarray, int], np.ndarray]
"""(observation [obs_dim], decision index) -> action [action_dim]."""


class RendererMissingError(ExplainedError):
    """MuJoCo cannot render on this machine."""


def _missing(reason: str) -> RendererMissingError:
    return RendererMissingError(
        f"MuJoCo cannot render here ({reason}). Without a display, install OSMesa (Debian and Ubuntu: libosmesa6) and set "
        "MUJOCO_GL=osmesa, or with a GPU driver MUJOCO_GL=egl, before Python starts; everything but pictures and videos works without."
    )


def render_offscreen() -> None:
    """Have MuJoCo render through OSMesa in this process, where that is installed, nothing else is chosen and MuJoCo not yet imported."""
    chosen = os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL", "disabled") != "disabled"
    if not chosen and "mujoco" not in sys.modules and find_library("OSMesa"):
        os.environ["MUJOCO_GL"] = "osmesa"


class Camera:
    """Takes pictures through an environment's first camera, in MetaWorld the one in a corner; its episode goes on untouched.

    size: width and height, pixels. Called, it returns the present picture, uint8 [height, width, 3]. Raises RendererMissingError where
    there is no display and neither EGL nor OSMesa.
    """

    def __init__(self, env: Environment, size: tuple[int, int] = (320, 240)):
        import mujoco

        self.env, (model, _) = env, env.simulation()
        if not os.environ.get("DISPLAY") and os.environ.get("MUJOCO_GL") not in ("egl", "osmesa"):
            raise _missing("no display")  # GLFW without one ends the process, not the call
        try:
            self._renderer = mujoco.Renderer(model, height=size[1], width=size[0])
        except Exception as error:  # each of the three backends has errors of its own
            raise _missing(f"{type(error).__name__}: {error}") from None
        names = [model.camera(i).name for i in range(model.ncam)]
        # MetaWorld's first one looks from above; the one in its corner hangs upside down.
        self._turned = "corner2" in names
        self._camera = names.index("corner2") if self._turned else 0 if names else -1

    def __call__(self) -> np.ndarray:
        """Take the picture of this moment."""
        self._renderer.update_scene(self.env.simulation()[1], camera=self._camera)
        picture = self._renderer.render()
        return picture[::-1, ::-1].copy() if self._turned else picture.copy()

    def close(self) -> None:
        """Give the renderer's memory back."""
        self._renderer.close()


def filmed(act: Act, camera: Camera, *, every: int) -> tuple[Act, list[np.ndarray]]:
    """Let a policy be filmed every `every` decisions; returns the same policy, and the list that its pictures are added to."""
    frames: list[np.ndarray] = []

    def seen(obs: np.ndarray, step: int) -> np.ndarray:
        if step % every == 0:
            frames.append(camera())
        return act(obs, step)

    return seen, frames


def save_gif(path: str | Path, frames: Sequence[np.ndarray], *, frame_ms: float) -> Path:
    """Write pictures, uint8 [height, width, 3] each, as an animated GIF that repeats; frame_ms: how long each is shown."""
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(frame).quantize(64, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=frame_ms, loop=0, optimize=True)
    return path


def save_video(env: Environment, act: Act, path: str | Path, *, seed: int, size: tuple[int, int] = (320, 240), every: int = 2) -> Path:
    """Run one episode and save every `every`-th decision as an animated GIF.

    Args:
        env: the environment.
        act: (observation [obs_dim], decision index) -> action [action_dim].
        path: the file, which is also returned.
        seed: of the episode.
        size: width and height, pixels.
        every: decisions from one picture to the next.

    Raises:
        RendererMissingError: nothing to render with; said before the episode.
    """
    camera = Camera(env, size)
    act, frames = filmed(act, camera, every=every)
    obs = env.reset(seed)
    for step in range(env.task.decisions):
        obs, _, _ = env.step(act(obs, step))
    camera.close()
    return save_gif(path, frames, frame_ms=DECISION_MS * every)
