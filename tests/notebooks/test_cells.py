"""The cells that show the method compute what the library computes, and whoever edits them sees another result."""

import json
import math
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from companion.ball_wall import figures as ball_wall_figures
from companion.ball_wall.surrogates import Descent, descend
from companion.running.paths import PROJECT
from pwmlib.estimators import first_order, gradient_statistics, zeroth_order
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.optimizer.shac import SHAC
from pwmlib.sim.closed_form.ball_wall import BallWall
from pwmlib.sim.env import DifferentiableEnv


def cells(notebook):
    """Tag -> source of a notebook's tagged code cells."""
    (path,) = (PROJECT / "notebooks").glob(f"{notebook}_*.ipynb")
    code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    return {tag: "".join(c["source"]) for c in code for tag in c["metadata"].get("tags", [])}


def run(sources, *tags, names=None, **changes):
    """The names after the cells, each edited by `changes` (old=new text must be there)."""
    names = {} if names is None else names
    threads = torch.get_num_threads()
    for tag in tags:
        source = sources[tag]
        for old, new in changes.get(tag, {}).items():
            assert old in source, (tag, old)
            source = source.replace(old, new)
        exec(source, names)
    torch.set_num_threads(threads)
    plt.close("all")
    return names


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class OneBatch:
    """The rows that the cell draws, as the trainer wants them."""

    def __init__(self, found):
        i = torch.randint(2048, (128,))
        self.batch = found["obs"][:, i], found["actions"][:, i], found["rewards"][:, i], torch.zeros(128, dtype=torch.long)

    def slices(self, batch, horizon, rng):
        return self.batch


def test_eq_10_in_the_cell_is_that_of_the_library():
    sources = cells("03")
    few = {"open-model": {"400": "1"}}
    found = run(sources, "open-data", "open-model", **few)
    torch.nn.init.normal_(found["model"].reward_head[-1].weight, std=0.02)  # it begins at zero, with no gradient below it
    twin = WorldModel(3, 1, config=found["small"])
    twin.load_state_dict(found["model"].state_dict())
    torch.manual_seed(7)
    trainer = WorldModelTrainer(twin, OneBatch(found), WorldModelTraining(lr=3e-3, horizon=8, batch=128))
    metrics = trainer.update()
    torch.manual_seed(7)
    before = weights(found["model"])
    run(sources, "eq10", names=found)
    assert found["losses"] == pytest.approx([metrics["loss"]], rel=1e-5)
    torch.testing.assert_close(weights(found["model"]), weights(twin), rtol=1e-4, atol=1e-5)
    assert (weights(found["model"]) - before).abs().max() > 1e-3


def test_algorithm_1_in_the_cell_is_that_of_the_library():
    sources = cells("03")
    found = run(sources, "open-data", "open-model", "open-policy", **{"open-policy": {"100\n": "1\n"}})
    torch.nn.init.normal_(found["model"].reward_head[-1].weight, std=0.5)
    nets = {"horizon": 8, "actor_hidden": (64, 32), "critic_hidden": (64, 32), "actor_lr": 2e-3, "critic_lr": 2e-3}
    learner = PWM(
        FrozenWorldModel(found["model"]), lambda n, g: found["begin"][torch.randint(len(found["begin"]), (n,))], PWMConfig(**nets)
    )
    learner.actor.load_state_dict(found["actor"].state_dict())
    learner.critics.load_state_dict(found["critics"].state_dict())
    learner.generator = torch.default_generator
    torch.manual_seed(7)
    metrics = learner.update()
    torch.manual_seed(7)
    run(sources, "algorithm1", names=found)
    assert found["promised"] == pytest.approx([-metrics["actor_loss"]], rel=1e-5)
    torch.testing.assert_close(weights(found["actor"]), weights(learner.actor), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(weights(found["critics"]), weights(learner.critics), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("edit", [{"eq10": {"gamma**t * (z": "0 * (z"}}, {"algorithm1": {"gamma=gamma).mean()": "gamma=0.5).mean()"}}])
def test_an_edited_cell_of_03_gives_another_result(edit):
    sources, results = cells("03"), []
    few = {"open-model": {"400": "2"}, "open-policy": {"100\n": "2\n"}}
    for changes in (few, few, few | edit):
        found = run(sources, "open-data", "open-model", "eq10", "open-policy", "algorithm1", **changes)
        results.append((found["losses"], found["promised"]))
    assert results[0] == results[1] != results[2]


def test_the_descent_in_the_cell_is_that_of_the_library_follows_an_edit_and_moves_with_its_sliders():
    world, sources = BallWall(), cells("00")
    names = {
        "world": world, "params": SimpleNamespace(start=-math.pi, lr=0.01), "numbers": SimpleNamespace(steps=400),
        "ball_wall_figures": ball_wall_figures,
    }  # fmt: skip
    found = run(sources, "fit", "descent", "picture", "live", names=names)
    for name, objective in (("true J", world.objective), ("model", found["model"])):
        expected = descend(objective, Descent(start=-math.pi, steps=400, lr=0.01), 1)[:, 0]
        torch.testing.assert_close(torch.tensor(found["paths"][name]), expected, rtol=1e-5, atol=1e-6)

    for momentum, step in ((0.9, 0.01), (0.9, 0.003)):
        expected = descend(found["model"], Descent(start=-math.pi, steps=400, lr=step, momentum=momentum), 1)[-1, 0]
        assert found["descend"](found["model"], step, momentum)[-1] == pytest.approx(float(expected), rel=1e-3)
    edited = run(sources, "descent", names=dict(found), descent={"momentum=0.0": "momentum=0.9"})
    assert abs(edited["paths"]["model"][-1] - found["paths"]["model"][-1]) > 1e-3

    def crosses(objective, momentum, step):
        return bool(world.objective(torch.tensor(found["descend"](objective, step, momentum)[-1])) < -world.wall)

    # What the cell above the sliders says of them.
    assert [crosses(found["model"], m, s) for m, s in ((0.0, 0.01), (0.9, 0.003), (0.9, 0.01))] == [False, True, False]
    assert not any(crosses(world.objective, m, 0.003) for m in (0.0, 0.9, 0.95))
    pictures = [found["live"](5.0, height, momentum, 0.01).data for height, momentum in ((0.0, 0.0), (0.0, 0.9), (1.0, 0.9))]
    assert len(set(pictures)) == 3 and found["fitted"](world) is found["fitted"](world)


class Linear(torch.nn.Module):
    """The policy of notebook 01's cells."""

    def __init__(self, observe, sigma):
        super().__init__()
        self.weight, self.observe, self.std = torch.nn.Parameter(torch.zeros(6)), observe, torch.tensor([sigma])

    def mean(self, state):
        return (self.observe(state) * self.weight).sum(-1, keepdim=True)

    def forward(self, state, noise):
        return torch.tanh(self.mean(state) + self.std * noise)


def test_both_estimators_and_eq_5_in_the_cells_are_those_of_the_library(capsys):
    sources = cells("01")
    found = run(sources, "samples", "estimators", "esnr")
    printed = re.findall(r"variance (\S+), ESNR (\S+)", capsys.readouterr().out)
    policy = Linear(found["pendulum"].observe, found["sigma"])
    common = {"horizons": [found["horizon"]]}
    paths = (found["pendulum"], policy, found["start"], found["noise"])
    library = first_order(*paths, **common), zeroth_order(*paths, **common, baseline="mean")
    for name, ours, theirs, said in zip(("first", "zeroth"), (found["first"], found["zeroth"]), library, printed, strict=True):
        expected = theirs.at(found["horizon"])
        torch.testing.assert_close(ours.to(expected), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()), msg=name)
        statistics = gradient_statistics(expected, resamples=0)
        assert [float(x) for x in said] == pytest.approx([statistics.variance, statistics.esnr], rel=1e-2)


def test_the_learners_of_02_are_one_class_and_the_library_s(capsys):
    sources = cells("02")
    found = run(sources, "worlds", "one_argument")
    printed = re.findall(r"(\w+): mean reward (\S+), norm of the actor's gradient (\S+)", capsys.readouterr().out)
    assert [name for name, *_ in printed] == ["SHAC", "PWM"] and type(found["learner"]) is PWM
    library = SHAC(DifferentiableEnv("hopper", 16, seed=0), found["config"], seed=0, spread=False)
    for _ in range(3):
        metrics = library.update()
    assert [float(x) for x in printed[0][1:]] == pytest.approx([metrics["reward"], metrics["actor_grad_norm"]], rel=1e-2)


IMPORTS = """
import json, sys
for package in ("dm_control", "metaworld", "mujoco", "stable_baselines3", "ray", "minari", "tensorboard", "pytest"):
    sys.modules[package] = None
for cell in json.load(open(sys.argv[1]))["cells"]:
    exec("\\n".join(line for line in cell["source"] if cell["cell_type"] == "code" and line.startswith(("import ", "from "))))
"""


@pytest.mark.parametrize("notebook", ["00", "05"])
def test_a_notebook_for_colab_installs_itself_when_asked_and_imports_no_more_than_that(notebook, monkeypatch):
    asked, source = [], cells(notebook)["install"]
    monkeypatch.setattr(subprocess, "run", lambda command, **how: asked.append((command, how)))
    exec(source, {})
    assert not asked
    exec(source.replace('repository = ""', 'repository = "https://example.org/a/b"'), {})
    ((command, how),) = asked
    assert command[1:] == ["-m", "pip", "install", "--quiet", "pwmlib[notebooks,sim] @ git+https://example.org/a/b"]
    assert how == {"check": True} and tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["name"] == "pwmlib"
    monkeypatch.undo()
    (path,) = (PROJECT / "notebooks").glob(f"{notebook}_*.ipynb")
    subprocess.run([sys.executable, "-c", IMPORTS, str(path)], check=True, cwd=PROJECT)
