"""The 80 tasks by name: sizes, protocol and order (App. E; ids are TD-MPC2's). Imports no simulator."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["MT30", "MT80", "Task", "select_tasks", "task"]


@dataclass(frozen=True)
class Task:
    """A task is one of MT30 or MT80, or names data of your own, which have no simulator here."""

    name: str
    suite: Literal["dm_control", "metaworld", "own"]
    obs_dim: int
    action_dim: int
    decisions: int
    """Decisions per episode; each repeats its action for two control steps."""
    custom: bool = False
    """One of the 11 dm_control tasks that are not in the stock suite."""

    @property
    def domain(self) -> str:
        """The dm_control domain ("walker-walk" -> "walker"), or the MetaWorld environment ("mw-reach" -> "reach-v3")."""
        if self.suite == "metaworld":
            return f"{self.name.removeprefix('mw-')}-v3"
        return {"cup": "ball_in_cup"}.get(first := self.name.split("-")[0], first)

    def score(self, mean_return: float, last_step_success: float) -> float:
        """Compute the score: return / 10 in dm_control, last-step success x 100 in MetaWorld, the return itself elsewhere."""
        if self.suite == "metaworld":
            return 100.0 * last_step_success
        return mean_return / 10.0 if self.suite == "dm_control" else mean_return


_DMC = """
walker-stand 24 6|walker-walk 24 6|walker-run 24 6|cheetah-run 17 6|reacher-easy 6 2|reacher-hard 6 2|acrobot-swingup 6 1
pendulum-swingup 3 1|cartpole-balance 5 1|cartpole-balance-sparse 5 1|cartpole-swingup 5 1|cartpole-swingup-sparse 5 1|cup-catch 8 2
finger-spin 9 2|finger-turn-easy 12 2|finger-turn-hard 12 2|fish-swim 24 5|hopper-stand 15 4|hopper-hop 15 4
walker-walk-backwards 24 6|walker-run-backwards 24 6|cheetah-run-backwards 17 6|cheetah-run-front 17 6|cheetah-run-back 17 6
cheetah-jump 17 6|hopper-hop-backwards 15 4|reacher-three-easy 8 3|reacher-three-hard 8 3|cup-spin 8 2|pendulum-spin 3 1
"""
_STOCK = 19
_METAWORLD = """
assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall coffee-button coffee-pull
coffee-push dial-turn disassemble door-open door-close drawer-close drawer-open faucet-open faucet-close hammer handle-press-side
handle-press handle-pull-side handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall
plate-slide plate-slide-side plate-slide-back plate-slide-back-side push-back push push-wall reach reach-wall shelf-place soccer
stick-push stick-pull sweep-into sweep window-open window-close bin-picking box-close door-lock door-unlock hand-insert
"""


def _build() -> tuple[Task, ...]:
    rows = [row.split() for line in _DMC.split("\n") for row in line.split("|") if row]
    dmc = [Task(name, "dm_control", int(o), int(a), 500, i >= _STOCK) for i, (name, o, a) in enumerate(rows)]
    return (*dmc, *(Task(f"mw-{name}", "metaworld", 39, 4, 100) for name in _METAWORLD.split()))


MT80: tuple[Task, ...] = _build()
"""All tasks; the position is the task id of the published data sets."""
MT30: tuple[Task, ...] = MT80[:30]
_BY_NAME = {t.name: t for t in MT80}

_FIRST = ("cartpole-swingup", "mw-reach", "cartpole-balance", "mw-drawer-close")
"""The first tasks of the stratified order: cheap to simulate, one of each kind."""


def _stratified() -> tuple[Task, ...]:
    """A fixed order in which every prefix mixes the suites in about the proportion of MT80 and no domain comes in a block."""
    rest = [t for t in MT80 if t.name not in _FIRST]
    dmc = [t for t in rest if t.suite == "dm_control"]
    dmc = [t for offset in range(5) for t in dmc[offset::5]]
    metaworld = [t for t in rest if t.suite == "metaworld"]
    metaworld = [t for offset in range(7) for t in metaworld[offset::7]]
    order = [_BY_NAME[name] for name in _FIRST]
    while dmc or metaworld:
        take_dmc = len(dmc) * 48 >= len(metaworld) * 28
        order.append((dmc if take_dmc else metaworld).pop(0))
    return tuple(order)


STRATIFIED: tuple[Task, ...] = _stratified()
"""All tasks, so that the first n are a fair sample of both suites."""


def task(name: str) -> Task:
    """Return the task of that name; raises ValueError with the nearest names."""
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.5) or ["cartpole-swingup", "mw-reach"]
        raise ValueError(f"no task {name!r} in MT80; nearest: {', '.join(near)} (all names: pwmlib.tasks.MT80)")
    return _BY_NAME[name]


def select_tasks(tasks: int, task_names: Sequence[str] = ()) -> tuple[Task, ...]:
    """Select the tasks of a run: those named, else MT30 for 30, MT80 for 80, else the first `tasks` of a fixed stratified order."""
    if task_names:
        if len(set(task_names)) != len(task_names):
            raise ValueError(f"task_names: each name once, got {list(task_names)}")
        return tuple(task(name) for name in task_names)
    if tasks in (30, 80):
        return MT30 if tasks == 30 else MT80
    if not 1 <= tasks <= len(MT80):
        raise ValueError(f"tasks: 30 (MT30), 80 (MT80) or a number from 1 to {len(MT80)}, got {tasks}")
    return STRATIFIED[:tasks]
