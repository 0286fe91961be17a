"""Every number is checked before anything runs: one clear error for each bad value, none for what the project itself uses."""

import dataclasses
import importlib
import json
import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from companion.ablations.questions import ABLATIONS, ablation_experiments
from companion.ball_wall import study as ball_wall
from companion.ball_wall.study import BALL_WALL_SCALES
from companion.ball_wall.surrogates import Descent, SurrogateConfig
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES
from companion.mt80.scales import MULTITASK_SCALES, OFFLINE_CARTPOLE, ONLINE, CollectionPlan, DataPlan, FineTuningPlan
from companion.perfect_model import SETTINGS
from companion.running.parameters import override
from companion.running.runs import digest, plain, train
from companion.single_task.runner import SingleTaskSettings
from companion.single_task.scales import SINGLE_TASK_SCALES, SINGLE_TASKS, settings_for
from pwmlib.baselines.sb3_config import SB3Config
from pwmlib.baselines.tdmpc2 import TDMPC2Config
from pwmlib.baselines.tdmpc2_online import OnlineTDMPC2Config
from pwmlib.baselines.tdmpc2_planner import TDMPC2PlannerConfig
from pwmlib.data import BEHAVIOURS, EpisodeStore, make_behaviour
from pwmlib.evaluation.planning import PlannerConfig
from pwmlib.model.training import WorldModelTraining
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WORLD_MODEL_SIZES, WorldModelConfig, WorldModelLossConfig
from pwmlib.optimizer.offline_robots import OfflinePWMConfig
from pwmlib.optimizer.online_episodes import OnlineAgent, OnlineConfig
from pwmlib.optimizer.online_robots import OnlinePWM, OnlinePWMConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.optimizer.shac import SHACConfig
from pwmlib.settings import SettingError
from pwmlib.sim.closed_form import CartpoleSwingup, PendulumSwingup
from pwmlib.sim.closed_form.ball_wall import BallWall
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics
from pwmlib.tasks import make, task
from pwmlib.tasks.planning import PLANNERS

NAN, INF = float("nan"), float("inf")
FINITE = "must be a finite number"
ONE, TWO, ZERO = (f"must be greater than or equal to {least}" for least in (1, 2, 0))
POSITIVE = "must be greater than 0"
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def cell(number):
    """The class of a notebook's parameters, and what its parameters cell says."""
    (path,) = FOLDER.glob(f"{number}_*.ipynb")
    code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    first, second, *_ = ("".join(c["source"]) for c in code if "install" not in c["metadata"].get("tags", []))
    found: dict = {}
    exec(first, {}, found)
    for name in ("__annotations__", "Optional"):
        found.pop(name, None)
    room, used = re.search(r"from (companion\.\w+\.parameters) import (\w+)", second).groups()
    return getattr(importlib.import_module(room), used), found


# Notebook, parameter (with a dot in front: an override), value, and what is said of it (or all of it, where another name is at fault).
PARAMETERS = [
    ("00", "scale", "fat", "must be 'quick', 'laptop' or 'paper'"),
    ("00", "seeds", 1, TWO),
    ("00", "seeds", -1, TWO),
    ("00", "seeds", True, "must not be True or False"),
    ("00", "seeds", 2.5, "must be a valid integer"),
    ("00", "start", 4.0, "must be less than or equal to 3.14"),
    ("00", "start", NAN, FINITE),
    ("00", "lr", 0.0, POSITIVE),
    ("00", "lr", INF, FINITE),
    ("00", "wall", INF, FINITE),
    ("00", "wall", 0.0, POSITIVE),
    ("00", "height", NAN, FINITE),
    ("00", "height", -INF, FINITE),
    ("00", "height", "tall", "must be a valid number"),
    ("00", "speed", INF, FINITE),
    ("00", "speed", -1.0, POSITIVE),
    ("00", "acceleration", 0.0, POSITIVE),
    ("00", "gravity", NAN, FINITE),
    ("00", "time", 1e300, "must be less than or equal to 1000"),
    ("00", "contact_time", "late", "must be 'corrected' or 'released'"),
    ("00", "device", "tpu9", "device must be 'auto', 'cpu' or a device that this torch can use"),
    ("00", "runs_dir", "a\0b", "no path contains a null character"),
    ("00", "runs_dir", "", "must have at least 1 character"),
    ("00", "figures_dir", "a\0b", "no path contains a null character"),
    ("00", "overrides", "{steps: 5", "not valid JSON"),
    ("00", "overrides", 5, "must be a valid dictionary"),
    ("00", ".steps", -5, ONE),
    ("00", ".seeds", 1, TWO),
    ("00", ".epochs", [], "must have at least 1 item"),
    ("00", ".epochs", [0], f"epochs[0]=0 is not allowed: {ONE}"),
    ("00", ".groups", [5], "groups=(5,) is not allowed: must be divisors of 32"),
    ("00", ".wall", 2.0, "no setting 'wall'; BallWallScale has seeds, steps, epochs, groups"),
    ("01", "horizons", 1, TWO),
    ("01", "samples", 100_001, "must be less than or equal to 100000"),
    ("01", "shac_seeds", -1, ONE),
    ("01", "device", "meta", "this notebook runs on the CPU; device must be 'cpu' or 'auto'"),
    ("01", ".shac.updates", 0, ONE),
    ("01", ".samples", 1, TWO),
    ("01", ".milestones", [2.0], "milestones[0]=2.0 is not allowed: must be less than or equal to 1"),
    ("01", ".train_horizons", [], "must have at least 1 item"),
    ("01", ".checkpoint_every", 0, ONE),
    ("02", "tasks", ["cheetah"], "no environment 'cheetah'; known: hopper"),
    ("02", "algorithms", "dreamer", "no algorithm 'dreamer'"),
    ("02", "train_seeds", -1, ONE),
    ("02", "train_seeds", True, "must not be True or False"),
    ("02", "stiffness", NAN, FINITE),
    ("02", "stiffness", 1e300, "must be less than or equal to 1000"),
    ("02", "engine", "slurm", "must be 'local' or 'ray'"),
    ("02", "workers", -2, ONE),
    ("02", ".evaluate_every", 0, ONE),
    ("02", ".checkpoint_every", 0, ONE),
    ("02", ".eval_episodes", 0, ONE),
    ("02", ".envs", 0, ONE),
    ("02", ".envs", True, "must be a number, not True or False"),
    ("02", ".largest_value", NAN, FINITE),
    ("02", ".shac.updates", 0, ONE),
    ("02", ".shac.updates", -1, ONE),
    ("02", ".shac.updates", "many", "must be a valid integer"),
    ("02", ".shac.updatez", 1, "no setting 'shac.updatez'; SHACConfig has updates,"),
    ("02", ".shac.updates.x", 1, "no setting 'shac.updates.x'; shac.updates is 300"),
    ("02", ".shac", 5, "must be a dictionary or an instance of SHACConfig"),
    ("02", ".shac.actor_objective", "best", "must be 'n_step' or 'td_lambda'"),
    ("02", ".shac.critic_hidden", [0], f"shac.critic_hidden[0]=0 is not allowed: {ONE}"),
    ("02", ".tdmpc2.planner.elites", 10**6, "must be at most samples=128"),
    ("02", ".pwm.imagination", "dream", "must be 'reencode' or 'open_loop'"),
    ("02", ".offline.members", 0, ONE),
    ("02", ".sac.gamma", 1.5, "must be less than or equal to 1"),
    ("03", "tasks", 0, ONE),
    ("03", "tasks", 81, "must be less than or equal to 80"),
    ("03", "task_names", ["walker-fly"], "no task 'walker-fly' in MT80"),
    ("03", "task_names", "[", "not valid JSON"),
    ("03", "data", "nowhere", "it is not 'auto', 'generate' or 'shipped', and no folder with chunk_*.pt in it"),
    ("03", "data_dir", "a\0b", "no path contains a null character"),
    ("03", "variant", "papper", "must be 'paper' or 'released'"),
    ("03", "comparisons", ["dreamer"], "comparisons[0]='dreamer' is not allowed: must be 'tdmpc2', 'one_policy' or 'horizon'"),
    ("03", "compared_tasks", 0, ONE),
    ("03", "fine_tune", ["walker-run"], "walker-run is not among the tasks of this run"),
    ("03", ".planner.elites", 10**6, "must be at most samples=96"),
    ("03", ".planner.samples", 5, "planner.elites=12 is not allowed: must be at most samples=5"),
    ("03", ".data.dm_control", {"juggle": 3}, "data.dm_control='juggle' is not allowed: each name must be 'uniform_random',"),
    ("03", ".data.metaworld", {"mpc": 3}, "data.metaworld='mpc' is not allowed: each name must be"),
    ("03", ".data.dm_control", {"mpc": -3}, f"data.dm_control['mpc']=-3 is not allowed: {ZERO}"),
    ("03", ".data.replay.policy.updates", 0, ONE),
    ("03", ".collection.rounds", 2, "no setting 'collection.rounds'; collection is None"),
    ("03", ".policy.gamma", NAN, FINITE),
    ("03", ".policy.critic_minibatches", 0, ONE),
    ("03", ".policy.start_states", "x", "must be 'all' or 'slice_start'"),
    ("03", ".policy.betas", [0.9, 1.0], "policy.betas[1]=1.0 is not allowed: must be less than 1"),
    ("03", ".model.latent_dim", 60, "must be a multiple of simnorm_group=8"),
    ("03", ".training.loss.dynamics_coef", -1.0, ZERO),
    ("03", ".train_seeds", 0, ONE),
    ("03", ".evaluate_every", 0, ONE),
    ("03", ".tdmpc2.members", 1, TWO),
    ("04", "ablations", [], "no ablation given"),
    ("04", "ablations", ["colour"], "no ablation 'colour'"),
    ("04", "extraction_tasks", ["mw-reach"], "no dm_control task 'mw-reach'"),
    ("04", "extraction_updates", [0], f"extraction_updates[0]=0 is not allowed: {ONE}"),
    ("04", ".extraction.policy.updates", 0, ONE),
    ("04", ".extraction.policy.updatez", 1, "no setting 'extraction.policy.updatez'; PWMConfig has updates,"),
    ("04", ".pwm.model_updates", -1, ZERO),
    ("05", "samples", 1, TWO),
    ("05", "overrides", {"steps": 5}, "this notebook has no settings beyond its parameters"),
    ("06", "numbers", 4, "no figure '4'; known: 2,"),
    ("06", "sources", ["hearsay"], "no source 'hearsay'"),
    ("06", "released_dir", "nowhere", "it is not a folder"),
    ("06", "verdicts", ["maybe"], "no verdict 'maybe'"),
    ("06", "words", 5, "must be a valid string"),
    ("06", "figures_dir", "a\0b", "no path contains a null character"),
]


@pytest.mark.parametrize(("number", "name", "value", "words"), PARAMETERS)
def test_a_bad_parameter_gives_one_error_with_the_flag_that_sets_it(number, name, value, words):
    kind, given = cell(number)
    changed = given | ({"overrides": {name[1:]: value}} if name.startswith(".") else {name: value})
    with pytest.raises(ValueError) as caught:
        kind.validate_cell(changed)
    said = str(caught.value)
    whole = words if " is not allowed" in words else f"{name.lstrip('.')}={value!r} is not allowed: {words}"
    assert said.startswith(whole) and said.count("is not allowed") == 1 and "\n" not in said and len(said) < 1500
    assert caught.value._render_traceback_() == [f"ParameterError: {said}"]
    # The flag that it ends with, given instead, is accepted.
    (flag,) = re.findall(r"Set it with papermill (-p .*) \((?:the default|what the scale has)\) or in the notebook's", said)
    _, parameter, text = shlex.split(flag)
    assert parameter == ("overrides" if name.startswith(".") else name)
    kind.validate_cell(changed | {parameter: text})


QUICK = MULTITASK_SCALES["quick"]
SETTINGS_ROWS = [
    (PWMConfig(), "updates", 0, ONE),
    (PWMConfig(), "updates", True, "must be a number, not True or False"),
    (PWMConfig(), "updates", 10**30, "must be less than or equal to 1000000000"),
    (PWMConfig(), "batch", 2.5, "must be a valid integer"),
    (PWMConfig(), "gamma", 1.01, "must be less than or equal to 1"),
    (PWMConfig(), "actor_lr", INF, FINITE),
    (PWMConfig(), "critics", 0, ONE),
    (PWMConfig(), "critic_minibatches", 0, ONE),
    (PWMConfig(), "activation", "gelu", "must be 'mish', 'relu' or 'silu'"),
    (PWMConfig(), "actor_objective", "best", "must be 'n_step' or 'td_lambda'"),
    (PWMConfig(), "start_states", "x", "must be 'all' or 'slice_start'"),
    (PWMConfig(), "continued", -0.1, ZERO),
    (PWMConfig(critic_sampling="time_blocks"), "critic_minibatches", 5, "critic_sampling='time_blocks' needs a divisor of horizon=16"),
    (WorldModelTraining(), "final_lr", -1.0, ZERO),
    (WorldModelTraining(), "loss", 3, "must be a dictionary or an instance of WorldModelLossConfig"),
    (WorldModelTraining(), "precision", "float16", "must be 'float32' or 'bfloat16'"),
    (WorldModelConfig(), "latent_dim", 60, "must be a multiple of simnorm_group=8"),
    (WorldModelConfig(), "simnorm_group", 0, ONE),
    (WorldModelConfig(), "task_dim", -1, ZERO),
    (WorldModelLossConfig(), "reward_loss", "mse", "must be 'cross_entropy' or 'broadcast_mse'"),
    (TwoHot(), "bins", 1, TWO),
    (TwoHot(), "low", 10.0, "must be less than high=10.0"),
    (OnlineConfig(), "episodes", 0, ONE),
    (OnlineConfig(), "model_updates", -1, ZERO),
    (PlannerConfig(), "elites", 97, "must be at most samples=96"),
    (PlannerConfig(), "temperature", 0.0, POSITIVE),
    (PLANNERS["walker"], "elites", 33, "must be at most samples=32"),
    (PLANNERS["walker"], "knots", 1, TWO),
    (DataPlan(), "shard", 0, ONE),
    (CollectionPlan(), "stages", 0, ONE),
    (FineTuningPlan(), "policy", "new", "must be 'anew' or 'extracted'"),
    (QUICK, "eval_episodes", 0, ONE),
    (SHACConfig(), "reward_scale", NAN, FINITE),
    (SHACConfig(), "target_kept", 2.0, "must be less than or equal to 1"),
    (SB3Config(), "minibatch", 0, ONE),
    (TDMPC2Config(), "log_std", (2.0, -10.0), "must be two rising numbers"),
    (TDMPC2PlannerConfig(), "prior_samples", 513, "must be at most samples=512"),
    (TDMPC2PlannerConfig(), "min_std", 3.0, "must be at most max_std=2.0"),
    (OnlinePWMConfig(), "statistics", "none", "must be 'first_data' or 'running'"),
    (OnlineTDMPC2Config(), "envs", 0, ONE),
    (OfflinePWMConfig(), "members", 0, ONE),
    (SingleTaskSettings(), "envs", -1, ONE),
    (DOUBLE_PENDULUM_SCALES["quick"], "resamples", 0, ONE),
    (BALL_WALL_SCALES["quick"], "seeds", 1, TWO),
    (BallWall(), "gravity", -9.81, POSITIVE),
    (SurrogateConfig(), "group", 5, "must be a divisor of hidden=32"),
    (Descent(), "momentum", 1.0, "must be less than 1"),
]


@pytest.mark.parametrize(("base", "name", "value", "words"), SETTINGS_ROWS)
def test_a_bad_setting_is_refused_where_it_is_made(base, name, value, words):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(base, **{name: value})
    said = str(caught.value)
    assert said.startswith(f"{type(base).__name__}.{name}={value!r} is not allowed: {words}") and "\n" not in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_unknown_and_missing_settings_are_type_errors():
    with pytest.raises(TypeError, match="PWMConfig: unexpected keyword argument 'updatez'"):
        PWMConfig(updatez=3)
    with pytest.raises(TypeError, match="SplineConfig: field required 'knots'"):
        type(PLANNERS["walker"])(horizon=3)
    with pytest.raises(TypeError):
        TwoHot(101, -10.0, 10.0, 4)


def nan_actions(env):
    env.reset(0)
    env.step(np.full(env.task.action_dim, np.nan, np.float32))


FUNCTIONS = [
    (lambda folder: train(None, None, 1, checkpoint_every=0), "train: checkpoint_every=0 is not allowed: must be at least 1"),
    (lambda folder: train(None, None, 1, checkpoint_every=1, log_every=0), "train: log_every=0 is not allowed"),
    *(
        (lambda folder, shard=shard: EpisodeStore(folder, task("mw-reach")).write_rows(shard, np.zeros((1, 2, 44), np.float32), [{}]), said)
        for shard, said in (
            ("../../x", "mw-reach: shard='../../x' is not allowed"), ("", "shard='' is not allowed"), (".hidden", "shard='.hidden' is not"),
        )
    ),
    (lambda folder: nan_actions(make(task("mw-reach"))), "mw-reach: an action must be 4 finite numbers, got [nan nan nan nan]"),
    (lambda folder: nan_actions(make(task("cartpole-swingup"))), "cartpole-swingup: an action must be 1 finite numbers, got [nan]"),
    (lambda folder: make(task("cartpole-swingup")).step(np.zeros(2)), "cartpole-swingup: an action must be 1 finite numbers"),
    (
        lambda folder: DifferentiableEnv("double_pendulum", 2).step(torch.tensor([[0.0], [NAN]])),
        "double_pendulum: actions must be finite, got nan at (1, 0)",
    ),
    (lambda folder: EnvDynamics("double_pendulum", 2, stiffness=NAN), "stiffness must be positive and finite, got nan"),
    (lambda folder: DifferentiableEnv("double_pendulum", 2, stiffness=INF), "stiffness must be positive and finite, got inf"),
    *(
        (lambda folder, world=world: world(start="x"), f"{world.__name__}: start must be 'broad'")
        for world in (CartpoleSwingup, PendulumSwingup)
    ),
    *(
        (lambda folder, world=world: world().reset(2, start="x"), f"{world.__name__}: start must be 'broad'")
        for world in (CartpoleSwingup, PendulumSwingup)
    ),
    (lambda folder: make_behaviour("juggle", None, None), "behaviour must be 'uniform_random', 'correlated_random', "),
    (lambda folder: PWMConfig.variant("papper"), "variant must be 'paper' or 'released', got 'papper'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), FUNCTIONS, ids=[said for _, said in FUNCTIONS])
def test_a_bad_argument_of_a_public_function_is_named(call, said, tmp_path):
    with pytest.raises(ValueError, match=re.escape(said)):
        call(tmp_path / "data")
    assert not list(tmp_path.rglob("*"))


def everything():
    """Every settings object that the project itself makes, by name."""
    tables = {
        "multitask": MULTITASK_SCALES, "online": ONLINE, "cartpole": OFFLINE_CARTPOLE, "ball wall": BALL_WALL_SCALES,
        "sizes": WORLD_MODEL_SIZES,
        "double pendulum": DOUBLE_PENDULUM_SCALES, "single task": SINGLE_TASK_SCALES, "planners": PLANNERS, "perfect": SETTINGS,
    }  # fmt: skip
    found = {f"{name} {key}": value for name, table in tables.items() for key, value in table.items()}
    found |= {f"{kind.__name__} {name}": kind.variant(name) for kind in (PWMConfig, WorldModelTraining) for name in ("paper", "released")}
    found |= {f"{scale} {name}": settings_for(scale, name) for scale in SINGLE_TASK_SCALES for name in SINGLE_TASKS}
    for key, scale in BALL_WALL_SCALES.items():
        found |= {f"surrogate {key} {name}": value for name, value in ball_wall.surrogate_variants(scale).items()}
        found |= {f"descent {key} {name}": value for name, value in ball_wall.descent_variants(scale, -3.0, 0.01).items()}
    for scale in ("quick", "laptop", "paper"):
        for name in ABLATIONS:
            experiments = ablation_experiments(name, scale, 1, Path("runs"))
            found |= {f"{name} {scale} {v} {t}": s for v, e in experiments.items() for t, s in e.settings.items()}
    return found


def made_again(value):
    """The same settings with every value given, so that each is checked, also where it is a default."""
    if not dataclasses.is_dataclass(value):
        return value
    return type(value)(**{f.name: made_again(getattr(value, f.name)) for f in dataclasses.fields(value)})


def test_what_the_project_uses_is_allowed_and_keeps_its_hash():
    """Run folders are named by the hash of their settings: what is checked must come out as it went in, ints and floats apart."""
    found = everything()
    assert len(found) > 150
    for name, value in found.items():
        again = made_again(value)
        assert again == value and digest(again) == digest(value), name
    assert pickle.loads(pickle.dumps(QUICK)) == QUICK


def test_values_come_out_as_they_went_in():
    whole = PWMConfig(gamma=1, critic_grad_norm=100, actor_hidden=[8, 8], updates=np.int64(7))
    assert json.dumps(plain(whole)["gamma"]) == "1" and json.dumps(plain(PWMConfig(gamma=1.0))["gamma"]) == "1.0"
    assert whole.actor_hidden == (8, 8) and type(whole.updates) is int and hash(whole) == hash(dataclasses.replace(whole))
    given = override(QUICK, {"policy.gamma": 1, "policy.updates": "7", "training.final_lr": None, "model.two_hot": None})
    assert json.dumps([given.policy.gamma, given.policy.updates, given.training.final_lr, given.model.two_hot]) == "[1.0, 7, null, null]"


def test_a_nested_override_changes_what_it_names_alone():
    scale = MULTITASK_SCALES["laptop"]
    assert override(scale, {"policy": {"updates": 7}}) == override(scale, {"policy.updates": 7})
    with pytest.raises(SettingError, match=r"policy\.nope=1 is not allowed: no setting 'policy\.nope'"):
        override(scale, {"policy": {"nope": 1}})


def test_overrides_are_applied_together():
    """Values that are allowed only together are, whatever their order."""
    few = {"planner.samples": 8, "planner.elites": 4, "policy.critic_sampling": "time_blocks", "policy.horizon": 15}
    changed = override(QUICK, few | {"policy.critic_minibatches": 5})
    assert (changed.planner.elites, changed.policy.horizon, changed.policy.critic_minibatches) == (4, 15, 5)


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05", "06"])
def test_a_parameters_cell_is_allowed_at_every_scale_and_is_the_defaults(number):
    kind, given = cell(number)
    assert kind.validate_cell({}) == kind.validate_cell(given)
    assert {name: field.default for name, field in kind.model_fields.items()} == given
    for scale in ("quick", "laptop", "paper") if "scale" in given else ():
        for variant in ("paper", "released") if "variant" in given else (None,):
            kind.validate_cell(given | {"scale": scale} | ({"variant": variant} if variant else {}))


def test_plans_know_exactly_the_behaviours_that_exist():
    counts = dict.fromkeys(BEHAVIOURS, 1)
    planned = {name: 1 for name in counts if not name.startswith("scripted")}
    scripted = {name: 1 for name in counts if not name.startswith("mpc")}
    assert DataPlan(dm_control=planned, metaworld=scripted).dm_control == planned
    for wrong in ({"dm_control": scripted}, {"metaworld": planned}):
        with pytest.raises(ValueError, match="each name must be"):
            DataPlan(**wrong)


def test_an_agent_may_leave_its_model_or_its_policy_alone():
    small = {"encoder_hidden": (8,), "dynamics_hidden": (8,), "reward_hidden": (8,)}
    config = OnlineConfig(
        episodes=1, random_episodes=1, first_model_updates=0, model_updates=0, policy_updates=0,
        model=WorldModelConfig(latent_dim=16, task_dim=0, **small), policy=PWMConfig(actor_hidden=(8,), critic_hidden=(8,)),
    )  # fmt: skip
    env = make(task("cartpole-balance"))
    env.task = dataclasses.replace(env.task, decisions=20)
    agent = OnlineAgent(env, config)
    assert set(agent.advance()) == set(agent.advance()) == {"episode", "return"} and agent.finished


def test_a_robots_world_model_may_be_left_alone():
    agent = OnlinePWM(DifferentiableEnv("hopper", 4), OnlinePWMConfig(first_model_updates=0, model_updates=0, random_steps=20))
    assert agent.step == 0 and "loss" not in agent.update() and agent.step == 1


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ({}, None),
        ({"contact_time": "released"}, None),
        ({"height": 5.2}, "no throw crosses this wall, whose upper edge is at 5.2 m"),  # v^2 / 2g = 5.10 m
        ({"height": 40.0}, "no throw crosses this wall, whose upper edge is at 40 m"),
        ({"wall": 30.0}, "no throw reaches the wall at 30 m within 2 s"),  # v T + a T^2 / 2 = 22 m
        ({"height": -100.0}, "every throw that reaches this wall crosses it"),  # no throw falls below -(v T + g T^2 / 2) = -39.6 m
    ],
)
def test_worlds_in_which_the_question_has_no_answer_are_named(world, words):
    warnings = BallWall(**world).warnings()
    assert warnings == [] if words is None else len(warnings) == 1 and warnings[0].startswith(f"Warning: {words}")


@pytest.mark.parametrize("said", [None, "None", "null", "", 0])
def test_none_lets_the_scale_decide_however_papermill_says_it(said):
    """0 and "" were the words for it before."""
    kind, given = cell("03")
    params = kind.validate_cell({**given, "train_seeds": said, "figures_dir": said})
    assert params.train_seeds is None and params.figures_dir is None
    assert params.scaled().train_seeds == MULTITASK_SCALES["quick"].train_seeds
    assert kind.validate_cell({**given, "train_seeds": 2}).scaled().train_seeds == 2
