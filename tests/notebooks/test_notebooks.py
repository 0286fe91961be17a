"""Every notebook, executed by papermill at the smallest size, and the table that it wrote; then wrong input, one paragraph each."""

import importlib
import json
import re
import subprocess
import sys

import pandas as pd
import papermill
import pytest
from PIL import Image
from test_double_pendulum import TINY as TINY_PENDULUM
from test_multitask import TINY

from companion.reporting.statistics import aggregate
from companion.running.paths import PROJECT

NOTEBOOKS = PROJECT / "notebooks"
pytestmark = pytest.mark.notebook


@pytest.fixture(autouse=True)
def pictures_in_the_page(monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a backend chosen outside keeps figures out of the executed notebook


def execute(name, folder, trains=True, **parameters):
    output = folder / f"{name}.ipynb"
    common = {"figures_dir": str(folder / "figures"), **({"scale": "quick", "runs_dir": str(folder / "runs")} if trains else {})}
    papermill.execute_notebook(NOTEBOOKS / f"{name}.ipynb", output, {**common, **parameters}, progress_bar=False, kernel_name="python3")
    executed = json.loads(output.read_text())
    assert executed["metadata"]["papermill"]["exception"] is None
    return executed


def pictures(notebook):
    """Number of pictures on the page."""
    return sum("image/png" in o.get("data", {}) for cell in notebook["cells"] for o in cell.get("outputs", []))


def drawn(folder):
    """Names of the figures, without the changed parameters that stand in them."""
    found = [p.stem.split("--") for p in (folder / "figures").glob("*.png")]
    assert all(len(parts) == 2 for parts in found), found
    return {name for name, _ in found}


def printed(notebook):
    """All text that the notebook's cells show."""
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    return "\n".join("".join(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for o in outputs)


def test_00_ball_wall(tmp_path):
    changes = {"steps": 300, "epochs": [100], "groups": [32]}
    notebook = execute("00_ball_wall", tmp_path, seeds=2, overrides=changes)
    (results,) = (tmp_path / "runs").rglob("results.csv")
    table = pd.read_csv(results)
    assert len(table) == 5 * 6 * 2 and set(table["surrogate"]) >= {"true J", "relu", "layernorm_mish", "simnorm"}
    assert (table["gap"] >= -1e-3).all() and (table["argmin_gap"] >= -1e-3).all()
    # Descent on the true J never gets over the wall; a model's own minimum is always near the optimum.
    assert (table[table["surrogate"] == "true J"]["gap"] > 16).all()
    assert table[table["surrogate"] == "layernorm_mish"]["argmin_gap"].max() < 5
    assert table[table["surrogate"] == "layernorm_mish"]["rmse"].between(0.3, 2).all()
    assert drawn(tmp_path) == {"fig02_ball_wall", "fig10_losses_and_descents", "ball_wall_claim_map"}
    index = json.loads((tmp_path / "figures" / "index.json").read_text())
    (name,) = (name for name in index if name.startswith("fig02_ball_wall--"))
    assert "seeds-2" in name and "steps-300" in name and index[name]["inputs"]
    assert index[name]["command"].startswith("papermill notebooks/00_ball_wall.ipynb out.ipynb -p overrides")
    assert "optimum: theta = 0.249 rad, J = -21.38 m" in printed(notebook) and pictures(notebook) == 4


def test_01_double_pendulum(tmp_path):
    changes = {name: value for name, value in TINY_PENDULUM.items() if name not in ("samples", "shac_seeds", "horizons")}
    notebook = execute("01_double_pendulum", tmp_path, samples=6, shac_seeds=1, horizons=5, overrides=changes)
    (file,) = (tmp_path / "runs").rglob("sweep-*/table.csv")
    table = pd.read_csv(file)
    assert table["horizon"].max() == 5 and table["setting"].nunique() == 4
    names = {"fig03_double_pendulum", "double_pendulum_switches", "double_pendulum_growth", "double_pendulum_fidelity"}
    assert drawn(tmp_path) == names and pictures(notebook) == len(names) + 1, "and the recorded one"
    shown = json.dumps(notebook["cells"])
    assert "lower variance than the true dynamics" in shown
    assert ">not shown at this size<" in shown and ">not comparable<" in shown
    assert ">holds<" not in shown and ">does not hold<" not in shown


SMALL_RUNS = {
    "pwm.actor_critic.updates": 2,
    "pwm.pretraining_updates": 3,
    "pwm.first_model_updates": 3,
    "replay.updates": 2,
    "envs": 8,
    "eval_episodes": 2,
    "evaluate_every": 1,
}


def test_02_single_task(tmp_path):
    changes = {
        **SMALL_RUNS, "shac.updates": 2, "ppo.updates": 2, "sac.updates": 2, "tdmpc2.updates": 2, "tdmpc2.steps": 2, "tdmpc2.envs": 2,
        "tdmpc2.first_model_updates": 2, "tdmpc2.planned_episodes": 2, "tdmpc2.planner.samples": 8, "tdmpc2.planner.prior_samples": 2,
        "tdmpc2.planner.elites": 2, "tdmpc2.planner.iterations": 1, "tdmpc2.planner.horizon": 1, "evaluate_every": 2,
    }  # fmt: skip
    algorithms = ["shac", "pwm", "tdmpc2", "ppo", "sac"]
    notebook = execute("02_single_task", tmp_path, algorithms=algorithms, train_seeds=1, overrides=changes)
    (path,) = (tmp_path / "runs").rglob("results.csv")
    results = pd.read_csv(path)
    assert results.groupby("algorithm").size().to_dict() == dict.fromkeys(algorithms, 1) and results["status"].eq("finished").all()
    assert drawn(tmp_path) == {"fig13_hopper", "training_hopper", "fig05_hopper", "gaits_hopper"}
    (gait,) = (tmp_path / "figures" / "gifs").glob("hopper_*.gif")
    assert Image.open(gait).n_frames > 10
    assert pictures(notebook) == 4 and "4837" in json.dumps(notebook["cells"]), "SHAC on Hopper as printed in Table 4"
    assert "To do at most: 1 task(s) x 5 algorithm(s) x 1 seed(s)" in printed(notebook)


@pytest.mark.long
def test_04_ablations(tmp_path):
    few = {
        "data.replay.episodes": 2, "data.replay.model_updates": 2, "data.replay.policy_updates": 2, "policy.updates": 2, "eval_episodes": 2,
    }  # fmt: skip
    changes = {**SMALL_RUNS, "shac.updates": 2, **{f"extraction.{name}": value for name, value in few.items()}}
    chosen = {"ablations": ["detach", "stiffness"], "extraction_tasks": ["pendulum-spin"], "extraction_updates": [2, 4]}
    notebook = execute("04_ablations", tmp_path, overrides=changes, **chosen)
    names = {"ablation_detach", "ablation_stiffness", "fig08b_pendulum-spin"}
    assert drawn(tmp_path) == names and pictures(notebook) == 3
    extracted = pd.read_csv(tmp_path / "runs" / "extraction.csv")
    assert extracted.groupby(["method", "updates"]).size().to_dict() == {
        ("PWM", 2): 1, ("PWM", 4): 1, ("TD-MPC2 without planning", 2): 1, ("TD-MPC2 without planning", 4): 1,
    }  # fmt: skip
    curves = pd.read_csv(tmp_path / "runs" / "ablation_stiffness.csv")
    assert curves["variation"].nunique() == 4 and curves.groupby("variation")["gradient_cosine"].count().gt(0).sum() == 2


def test_05_gradient_estimators(tmp_path):
    notebook = execute("05_gradient_estimators", tmp_path, samples=50)
    pictures = [o for c in notebook["cells"] for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    widgets = [
        o for c in notebook["cells"] for o in c.get("outputs", []) if "application/vnd.jupyter.widget-view+json" in o.get("data", {})
    ]
    assert len(pictures) == 5 and len(widgets) == 5
    assert printed(notebook).count("Not yet: your function returns nothing yet") == 6
    table = pd.read_csv(tmp_path / "runs" / "lesson_who_wins.csv").set_index("world")
    assert table.loc["bowl", "first order"] < table.loc["bowl", "zeroth order"]
    assert table.loc["step", "first order"] == pytest.approx(1.0) and table.loc["step", "best"] == "zeroth order"
    assert table.loc["ball and wall, at its edge", "best"] == "zeroth order"
    assert table.loc["hopper, H = 24, ground x1", "first order"] < table.loc["hopper, H = 24, ground x1", "zeroth order"]
    assert table.loc["hopper, H = 24, ground x64", "first order"] > table.loc["hopper, H = 24, ground x64", "zeroth order"]


def test_06_figures_and_claims(tmp_path):
    notebook = execute(
        "06_figures_and_claims", tmp_path, trains=False, numbers=["14", "8b"], verdicts=["not shown at this size"], words="Hopper"
    )
    names = {"claims", "fig14_published", "fig14_ours", "fig08b_published", "fig08b_ours"}
    assert {p.stem for p in (tmp_path / "figures").glob("*.pdf")} == names and pictures(notebook) == len(names)
    index = json.loads((tmp_path / "figures" / "index.json").read_text())
    assert index["fig14_published"]["source"] == "published" and "multitask_per_task.csv" in index["fig14_published"]["inputs"]
    page = json.dumps(notebook["cells"])
    assert "PWM on Hopper reaches this return" in page and "SNU Humanoid reaches this return" in page, "the second in the differences only"
    assert "released_dir is not given" in printed(notebook)


def test_03_mt80(tmp_path):
    names = '["cartpole-swingup", "mw-reach"]'
    notebook = execute("03_mt80", tmp_path, task_names=names, data_dir=str(tmp_path / "data"), overrides=TINY, device="cpu", train_seeds=1)
    (results,) = (tmp_path / "runs").rglob("results.csv")
    table = pd.read_csv(results)
    assert len(table) == 2
    assert table["score"].between(0, 100).all() and table["updates"].eq(TINY["policy.updates"]).all()
    iqm = aggregate(table.assign(score=table["score"] / 100))["iqm"]
    assert f"PWM: {iqm}" in printed(notebook)
    at_work = "multitask_2_tasks_at_work" in drawn(tmp_path)
    assert at_work or "MuJoCo cannot render here" in printed(notebook)
    assert drawn(tmp_path) - {"multitask_2_tasks_at_work"} == {"fig06_multitask_2_tasks", "fig15_multitask_2_tasks"}
    assert pictures(notebook) == 3 + at_work
    assert {p.stem for p in (tmp_path / "figures" / "gifs").glob("*.gif")} == ({"cartpole-swingup", "mw-reach"} if at_work else set())


def failure(folder, *arguments):
    """The last line that `papermill 03_mt80.ipynb` prints when it fails."""
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / "03_mt80.ipynb"), str(folder / "out.ipynb"), "--no-progress-bar"]
    base = ["-p", "runs_dir", str(folder / "runs"), "-p", "figures_dir", str(folder / "figures"), "-y", json.dumps({"overrides": TINY})]
    ended = subprocess.run([*command, "--kernel", "python3", *base, *arguments], capture_output=True, text=True)
    assert ended.returncode != 0
    return re.sub(r"\x1b\[[0-9;]*m", "", ended.stderr.strip().split("\n")[-1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "tasks", "7000"], r"^ParameterError: tasks=7000 is not allowed.*30 \(MT30\), 80 \(MT80\).*-p tasks 4 \(the default\)"),
        pytest.param(
            ["-p", "scale", "fats"],
            r"^ParameterError: scale='fats' is not allowed.*'quick', 'laptop', 'overnight' or 'paper'",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ["-p", "task_names", '["walker-fly"]'],
            r"^ParameterError: task_names=.*no task 'walker-fly' in MT80; nearest: walker-",
            marks=pytest.mark.long,
        ),
        pytest.param(["-p", "task", "4"], r"^ParameterError: There is no parameter 'task' in this notebook", marks=pytest.mark.long),
        (["-p", "runs_dir", "{file}/below"], r"^OutputFolderError: runs_dir='.*': files cannot be written"),
    ],
)
def test_wrong_input_ends_with_one_paragraph(arguments, said, tmp_path):
    (tmp_path / "file").write_text("")
    last = failure(tmp_path, *(a.format(file=tmp_path / "file") if "{file}" in a else a for a in arguments))
    assert re.search(said, last), last


@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"samples": 1}, {"overrides": {"shac": 3, "nothing": 1}}])
def test_wrong_parameters_of_01_are_named(changes):
    from companion.double_pendulum.parameters import DoublePendulumParameters
    from companion.running.parameters import ParameterError

    good = {"scale": "quick", "horizons": 0, "samples": 0, "shac_seeds": 0, "workers": 0, "device": "cpu", "runs_dir": "runs",
            "figures_dir": "", "overrides": {}}  # fmt: skip
    assert DoublePendulumParameters.validate_cell(good).scaled().samples == 100
    with pytest.raises(ParameterError, match=next(iter(changes))):
        DoublePendulumParameters.validate_cell({**good, **changes})


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_source_is_clean(path):
    """No stored outputs, a parameters cell, short cells, and parameters that are exactly those of its class."""
    notebook = json.loads(path.read_text())
    code = [c for c in notebook["cells"] if c["cell_type"] == "code" and "install" not in c["metadata"].get("tags", [])]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    assert [i for i, c in enumerate(code) if "parameters" in c["metadata"].get("tags", [])] == [0]
    assert all(len("".join(c["source"]).split("\n")) <= 15 for c in code[1:])

    source = "".join(code[0]["source"])
    (room, used) = re.search(r"from (companion\.\w+\.parameters) import (\w+)", "".join(code[1]["source"])).groups()
    fields = set(getattr(importlib.import_module(room), used).model_fields)
    assert set(re.findall(r"^(\w+):.*#", source, re.M)) == fields
    # papermill's own parser, which an equals sign in a comment confuses, knows them with type and help.
    inferred = papermill.inspect_notebook(path)
    assert set(inferred) == fields and all(p["help"] and p["inferred_type_name"] != "None" for p in inferred.values())
