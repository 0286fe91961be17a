"""Aggregates and notebook parameters: right numbers, and errors that say what was given."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.ablations.parameters import AblationParameters
from companion.ball_wall.parameters import BallWallParameters
from companion.mt80.parameters import MultitaskParameters
from companion.mt80.scales import MULTITASK_SCALES
from companion.record import recorded_settings
from companion.reporting.statistics import aggregate, performance_profile, score_matrix
from companion.running.parameters import ParameterError, injected_names, override
from companion.running.results import results_table
from companion.single_task.cost import core_seconds
from companion.single_task.parameters import SingleTaskParameters
from companion.single_task.scales import settings_for


def scores(runs=5, tasks=8):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"task": f"t{j}", "train_seed": i, "score": 0.1 * j + 0.02 * rng.standard_normal()} for i in range(runs) for j in range(tasks)
    )


def test_aggregates_equal_their_definitions_and_repeat():
    table = scores()
    flat = np.sort(table["score"].to_numpy())
    result = aggregate(table, reps=200)
    assert result["iqm"].value == pytest.approx(flat[10:30].mean())
    assert result["mean"].value == pytest.approx(flat.mean())
    assert result["optimality_gap"].value == pytest.approx(np.maximum(0, 1 - flat).mean())
    assert aggregate(table, reps=200) == result
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    aggregate(table, reps=50)
    assert (np.random.get_state()[1] == before).all()


def test_intervals_over_runs_are_narrower_than_over_tasks_here():
    """Tasks differ much, runs little; with the axes exchanged the two would be exchanged too."""
    runs, tasks = aggregate(scores(), reps=300)["iqm"], aggregate(scores(), over="tasks", reps=300)["iqm"]
    assert runs.low < runs.value < runs.high and runs.high - runs.low < 0.3 * (tasks.high - tasks.low)
    assert "over runs" in runs.resampled and "over tasks" in tasks.resampled


def test_intervals_over_tasks_resample_whole_tasks():
    """Five runs that are nearly the same hold as much about the choice of tasks as one."""
    rng = np.random.default_rng(0)
    means = rng.uniform(size=30)
    table = pd.DataFrame(
        {"task": f"t{j}", "train_seed": i, "score": m + 1e-4 * rng.normal()} for i in range(5) for j, m in enumerate(means)
    )
    found = aggregate(table, over="tasks", reps=1000)
    for name, function in (("iqm", lambda x, axis: stats.trim_mean(x, 0.25, axis)), ("mean", np.mean), ("median", np.median)):
        wanted = stats.bootstrap((means,), function, n_resamples=5000, method="percentile", rng=1).confidence_interval
        assert found[name].value == pytest.approx(function(means, axis=0), abs=5e-3)
        assert (found[name].low, found[name].high) == pytest.approx((wanted.low, wanted.high), abs=0.12 * (wanted.high - wanted.low)), name


def test_intervals_over_tasks_cover_the_score_of_the_population_of_tasks():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(80):
        score = 0.5 + 0.2 * rng.normal(size=(1, 20)) + 0.1 * rng.normal(size=(5, 20))
        table = pd.DataFrame(score).melt(ignore_index=False, var_name="task", value_name="score").reset_index(names="train_seed")
        iqm = aggregate(table, over="tasks", reps=60)["iqm"]
        hits += iqm.low < 0.5 < iqm.high
    assert 66 <= hits <= 79


def test_one_run_gets_no_interval_and_says_so():
    single = aggregate(scores(runs=1))["iqm"]
    assert single.low is None and "one run cannot be resampled" in str(single)
    profile = performance_profile(scores(runs=1), np.array([0.0, 0.35]))
    assert profile["low"].isna().all() and profile["fraction"][1] == 0.5


def test_incomplete_tables_are_refused_by_name():
    table = scores()
    with pytest.raises(ValueError, match="no score of task 't3', train_seed 2"):
        score_matrix(table[~((table.task == "t3") & (table.train_seed == 2))])
    with pytest.raises(ValueError, match="more than one score of task 't0'"):
        score_matrix(pd.concat([table, table[:1]]))
    with pytest.raises(ValueError, match=r"\['score'\] are missing"):
        score_matrix(table.drop(columns="score"))


MULTITASK = dict(
    scale="quick", tasks=4, task_names=[], train_seeds=0, workers=0, device="cpu", data="auto", engine="local",
    data_dir="", variant="paper", comparisons=[], compared_tasks=12, fine_tune=[], runs_dir="runs",
    figures_dir="", overrides={},
)  # fmt: skip


def test_parameters_from_the_command_line_are_converted():
    given = {**MULTITASK, "task_names": '["cartpole-swingup", "mw-reach"]', "tasks": "4", "overrides": '{"policy.updates": 7}'}
    params = MultitaskParameters.validate_cell(given)
    assert [t.name for t in params.selected()] == ["cartpole-swingup", "mw-reach"] and params.scaled().policy.updates == 7
    assert MultitaskParameters.validate_cell({**MULTITASK, "task_names": "mw-reach, mw-push"}).task_names == ["mw-reach", "mw-push"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": 7000}, r"tasks=7000 is not allowed: .*less than or equal to 80.*30 \(MT30\), 80 \(MT80\)"),
        ({"scale": "fats"}, r"scale='fats' is not allowed: .*'quick', 'laptop', 'overnight' or 'paper'"),
        ({"task_names": '["walker-fly"]'}, r"no task 'walker-fly' in MT80; nearest: walker-"),
        ({"device": "tpu9"}, r"device='tpu9'"),
        ({"variant": "papper"}, r"variant='papper'"),
        ({"comparisons": ["dreamer"]}, "dreamer"),
        ({"comparisons": "tdmpc2", "tasks": 80}, "tdmpc2 trains on episodes; set data to 'generate'"),
        ({"overrides": {"policy.updatez": 1}}, r"no setting 'policy.updatez'"),
        ({"overrides": {"policy.updates": "many"}}, r"policy.updates='many'"),
        ({"In": ["", "# Parameters\ntask = 4\nscale = 'quick'\n"]}, r"no parameter 'task' in this notebook; it has .*tasks"),
    ],
)
def test_wrong_parameters_are_one_paragraph(change, said):
    with pytest.raises(ParameterError, match=said) as caught:
        MultitaskParameters.validate_cell({**MULTITASK, **change})
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"ParameterError: {caught.value}"]


def test_fine_tuned_tasks_are_those_of_the_run():
    with pytest.raises(ParameterError, match="walker-walk is not among the tasks of this run"):
        MultitaskParameters.validate_cell({**MULTITASK, "task_names": ["cheetah-run"], "fine_tune": ["walker-walk"]})
    residual = {"overrides": {"model.residual": True}}
    with pytest.raises(ParameterError, match="residual or has spectral norms cannot be fine-tuned by task"):
        MultitaskParameters.validate_cell({**MULTITASK, "task_names": ["cheetah-run"], "fine_tune": ["cheetah-run"], **residual})
    few = {**MULTITASK, "task_names": ["mw-reach", "cheetah-run"]}
    laptop = {"scale": "laptop"}
    for change, tasks in ((laptop, (1,)), (laptop | residual, ()), ({}, ()), ({"fine_tune": ["mw-reach"]}, (0,))):
        params = MultitaskParameters.validate_cell({**few, **change})
        assert params.fine_tuning(params.experiment(progress=False)).tasks == tasks


def test_override_replaces_nested_fields_only():
    quick = MULTITASK_SCALES["quick"]
    changed = override(quick, {"data.replay.episodes": 2, "policy.batch": "8"})
    assert changed.data.replay.episodes == 2 and changed.policy.batch == 8 and quick.policy.batch == 64


def test_injected_names_are_read_from_papermills_cell():
    assert injected_names(["x = 1", "# Parameters\na = 1\nb: int = 2\n"]) == {"a", "b"}


def test_one_seed_is_refused_where_an_interval_is_shown():
    given = dict(
        scale="quick", seeds=1, start=-3.0, lr=0.01, wall=5.0, height=0.0, speed=10.0, acceleration=1.0, gravity=9.81, time=2.0,
        contact_time="corrected", device="cpu", runs_dir="runs", figures_dir="", overrides={},
    )  # fmt: skip
    with pytest.raises(ParameterError, match="seeds=1 is not allowed: must be greater than or equal to 2. seeds is the number of"):
        BallWallParameters.validate_cell(given)


SINGLE = dict(
    scale="quick", tasks=["hopper"], algorithms=["shac"], train_seeds=0, stiffness=1.0, engine="local", workers=1, device="cpu",
    runs_dir="runs", figures_dir="", overrides={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["cheetah"]}, "no environment 'cheetah'; known: hopper, ant, anymal, humanoid, snu_like"),
        (
            {"algorithms": "dreamer"},
            "no algorithm 'dreamer'; known: shac, pwm, pwm_scratch, pwm_state_space",
        ),
        ({"stiffness": 0.0}, "stiffness=0.0 is not allowed"),
        ({"device": "abacus"}, "device='abacus' is not allowed"),
        ({"overrides": {"shac.updatez": 1}}, "no setting 'shac.updatez'"),
    ],
)
def test_wrong_parameters_of_the_single_tasks_are_one_paragraph(change, message):
    with pytest.raises(ParameterError, match=re.escape(message)) as error:
        SingleTaskParameters.validate_cell({**SINGLE, **change})
    assert "\n" not in str(error.value)


def test_scale_paper_is_one_parameter_away_and_says_what_it_costs(tmp_path):
    given = {**SINGLE, "tasks": [], "algorithms": [], "runs_dir": str(tmp_path), "workers": 2}
    experiment = SingleTaskParameters.validate_cell({**given, "scale": "paper"}).experiment()
    assert len(experiment.runs()) == 5 * 5 * 5 and set(experiment.algorithms) == {"shac", "pwm", "tdmpc2", "ppo", "sac"}
    assert experiment.tasks == ("hopper", "ant", "anymal", "humanoid", "snu_like")
    said = experiment.cost()
    assert said.startswith("To do at most: 5 task(s) x 5 algorithm(s) x 5 seed(s); about 2,")
    assert re.search(r"about 2,\d\d\d days on 2 processes, without a GPU \(9\d% of it tdmpc2\)\.$", said)
    on_gpus = dataclasses.replace(experiment, device="cuda", workers=16)
    assert on_gpus.cost().endswith("On a GPU, which was asked for here, no run of these sizes has been timed.")
    assert SingleTaskParameters.validate_cell({**given, "scale": "laptop"}).experiment().tasks == ("hopper",)
    few = {name: dataclasses.replace(settings, envs=32) for name, settings in experiment.settings.items()}
    for algorithm in ("shac", "ppo"):
        all_robots, half = (core_seconds(algorithm, "hopper", settings["hopper"]) for settings in (experiment.settings, few))
        assert half == pytest.approx(all_robots / 2)


def test_what_a_run_is_said_to_cost_is_about_what_the_recorded_ones_took():
    for algorithm in ("shac", "pwm", "pwm_state_space", "pwm_offline", "ppo", "sac", "tdmpc2"):
        took = results_table(f"single_task_hopper_{algorithm}")["cpu_s"].median()
        assert 0.6 < core_seconds(algorithm, "hopper", recorded_settings("hopper", algorithm)) / took < 1.3, algorithm
    # Measured on one core: 0.70 s for an update of the 1.46M model, batch 256 over 16 steps; four times that batch, 8 a policy update.
    paper = settings_for("paper", "hopper").pwm
    assert core_seconds("pwm", "hopper", settings_for("paper", "hopper")) == pytest.approx(4 * 0.7 * (8 * 15_000 + 100_000), rel=0.25)
    assert paper.actor_critic.updates == 15_000 and paper.pretraining_updates == 100_000 and paper.model_updates == 8


def test_wrong_parameters_of_the_ablations_are_one_paragraph():
    given = {k: v for k, v in SINGLE.items() if k not in ("tasks", "algorithms", "stiffness")}
    given |= {"extraction_tasks": [], "extraction_updates": []}
    assert list(AblationParameters.validate_cell({**given, "ablations": "detach"}).experiments("detach")) == [
        "policy sees sg(z)",
        "full gradient",
    ]
    with pytest.raises(ParameterError, match="no ablation 'colour'; known: stiffness, batch, regularisation"):
        AblationParameters.validate_cell({**given, "ablations": ["colour"]})
    for change, message in (
        ({"extraction_tasks": ["mw-reach"]}, "no dm_control task 'mw-reach'; known: walker-stand"),
        ({"extraction_updates": [0]}, "extraction_updates[0]=0 is not allowed: must be greater than or equal to 1"),
        ({"overrides": {"extraction.policy.updatez": 1}}, "no setting 'extraction.policy.updatez'"),
    ):
        with pytest.raises(ParameterError, match=re.escape(message)):
            AblationParameters.validate_cell({**given, "ablations": ["detach"], **change})


@pytest.mark.parametrize("scale", ["quick", "laptop", "paper"])
def test_small_robots_stay_on_the_cpu_and_paper_asks_for_a_gpu(scale, monkeypatch):
    monkeypatch.setattr("companion.running.notebook.resolve_device", lambda name: f"asked for {name}")
    params = SingleTaskParameters.validate_cell({**SINGLE, "scale": scale, "device": "by_scale"})
    assert params.runner(False)["device"] == ("asked for auto" if scale == "paper" else "asked for cpu")
    assert SingleTaskParameters.validate_cell({**SINGLE, "scale": scale, "device": "meta"}).runner(False)["device"] == "asked for meta"
