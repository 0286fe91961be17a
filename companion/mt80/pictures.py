"""Policies seen at work: an episode in the real task, beside the rewards that the model imagined along it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch.nn.functional import pad

from companion.reporting.colours import METHODS
from companion.reporting.style import WIDTH
from pwmlib.data.store import record
from pwmlib.evaluation.scores import EVALUATION_SEED
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.imagination import imagine
from pwmlib.optimizer.online_episodes import policy_actor
from pwmlib.tasks import STRATIFIED, Task, make, task
from pwmlib.tasks.video import DECISION_MS, Camera, filmed, render_offscreen, save_gif

from .shipped_model import SHIPPED, Artefacts


@dataclass(frozen=True)
class Watched:
    """One evaluation episode of a policy."""

    task: Task
    frames: np.ndarray
    """uint8 [frames, height, width, 3]."""
    every: int
    """Decisions from one frame to the next."""
    rewards: np.ndarray
    """Of each decision, [decisions]."""
    imagined: np.ndarray
    """What the model imagines from every 16th real state on, [windows, 16], in the units of the rewards."""
    score: float

    def save_gif(self, folder: Path) -> Path:
        """Write the episode as `<folder>/<task>.gif`, in real time."""
        return save_gif(Path(folder) / f"{self.task.name}.gif", self.frames, frame_ms=DECISION_MS * self.every)


def watch(t: Task, actor: Actor, view: FrozenWorldModel, *, every: int = 5, size: tuple[int, int] = (160, 120)) -> Watched:
    """Film the first evaluation episode of a policy, and imagine its next steps all along.

    view: the frozen world model that it was extracted from, as that task; every: decisions from one frame to the next; size: of a frame,
    width and height in pixels.

    Raises:
        RendererMissingError: MuJoCo finds nothing to render with.
    """
    render_offscreen()
    env = make(t)
    env.reset(EVALUATION_SEED)  # MetaWorld has no simulation to look at before
    camera = Camera(env, size)
    act, frames = filmed(policy_actor(actor, view, env), camera, every=every)
    episode = record(env, act, seed=EVALUATION_SEED, behaviour="evaluation")
    camera.close()
    imagined = imagined_rewards(t, episode.rows, actor, view, 16)
    score = t.score(episode.total_reward, float(episode.success))
    return Watched(t, np.stack(frames), every, episode.rows[1:, -1], imagined, score)


@torch.no_grad()
def imagined_rewards(t: Task, rows: np.ndarray, actor: Actor, view: FrozenWorldModel, horizon: int) -> np.ndarray:
    """Imagine what a policy gets from every `horizon`-th state of an episode on, without its noise.

    rows: of the episode, [decisions + 1, obs_dim + action_dim + 1]. Returns rewards in their own units, [windows, horizon].
    """
    own_units = FrozenWorldModel(view.model, view.task, reward_symexp=True)
    starts = torch.from_numpy(rows[: t.decisions : horizon, : t.obs_dim])
    begin = own_units.encode(pad(starts, (0, view.obs_dim - t.obs_dim)).to(view.model.obs_mean.device))
    roll = imagine(own_units, actor, begin, noise=torch.zeros(horizon, len(begin), actor.action_dim, device=begin.device))
    return roll.rewards.T.cpu().numpy()


def _with_zero(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that has 0 on it: a small difference must not look large."""
    return min(low, 0.0), max(high, 0.0)


def strips(watched: Sequence[Watched]) -> Figure:
    """Draw a row a policy: seven frames of its episode, and the real rewards beside those that the model imagined along it."""
    size = {"figsize": (WIDTH, 1.15 * len(watched) + 0.5), "width_ratios": (2.6, 1), "layout": "constrained"}
    figure, axes = plt.subplots(len(watched), 2, squeeze=False, **size)
    for (left, right), w in zip(axes, watched, strict=True):
        at = np.linspace(0, len(w.frames) - 1, 7).round().astype(int)
        left.imshow(np.concatenate(list(w.frames[at]), 1))
        left.set_axis_off()
        inside = w.imagined.ravel()[: len(w.rewards)]
        title = f"{w.task.name}: score {w.score:.0f}, mean reward {w.rewards.mean():.2f}, imagined {inside.mean():.2f}"
        left.set_title(title, loc="left")
        for i, line in enumerate(w.imagined):
            steps = np.arange(i * len(line), (i + 1) * len(line))
            right.plot(steps, line, color=METHODS["PWM"], lw=1.0, label="imagined, 16 steps from a real state" if i == 0 else None)
        right.plot(w.rewards, color="black", lw=0.8, label="real")
        right.set(xlim=(0, len(w.rewards)), ylim=_with_zero(*right.get_ylim()), ylabel="reward")
        right.tick_params(labelsize=7)
        right.yaxis.label.set_size(7)
    axes[-1, 1].set_xlabel("decision", fontsize=7)
    axes[0, 1].legend(fontsize=6, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, frameon=False)
    return figure


def mosaic(watched: Sequence[Watched], *, columns: int, frames: int) -> list[np.ndarray]:
    """Put episodes with frames of one size side by side, each with its task's name; a shorter one begins again, and the last row is filled
    up with white. Returns so many frames, uint8 [height, width, 3] each."""
    height, width = watched[0].frames.shape[1:3]
    blank = np.full((height, width, 3), 255, np.uint8)
    made = []
    for i in range(frames):
        tiles = []
        for w in watched:
            image = Image.fromarray(w.frames[i % len(w.frames)])
            draw = ImageDraw.Draw(image)
            draw.rectangle((0, height - 13, width, height), fill="white")
            draw.text((3, height - 12), w.task.name, fill="black")
            tiles.append(np.asarray(image))
        tiles += [blank] * (-len(tiles) % columns)
        made.append(np.concatenate([np.concatenate(tiles[k : k + columns], 1) for k in range(0, len(tiles), columns)], 0))
    return made


def learned(table: pd.DataFrame) -> list[str]:
    """Name the tasks whose first policy reached 70 % of the data's 90th percentile and, in MetaWorld, ended most episodes in success;
    table: of `MultitaskExperiment.results`."""
    first = table[table["train_seed"] == 0].set_index("task")
    reached = (first["mean_return"] >= 0.7 * first["data_p90"]) & ((first["suite"] == "dm_control") | (first["success"] >= 0.6))
    return [t.name for t in STRATIFIED if reached.get(t.name, False)]


def film_shipped(path: Path, names: Sequence[str]) -> Path:
    """Film the first shipped policy of each of these tasks, side by side in one animated GIF."""
    shipped, every = Artefacts(SHIPPED), 4
    model, policies = shipped.world_model(), shipped.policies()
    views = {name: FrozenWorldModel(model, shipped.index(task(name))) for name in names}
    seen = [watch(task(name), policies[name][0], view, every=every, size=(120, 90)) for name, view in views.items()]
    return save_gif(path, mosaic(seen, columns=4, frames=60), frame_ms=DECISION_MS * every)
