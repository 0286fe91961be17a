"""The reader of the authors' result files: their traps in small files made here, and the known numbers where the files are at hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from companion.reporting.cells import iqm
from companion.reporting.published import (
    CURVES,
    PUBLISHED,
    ReleasedFilesError,
    iqm_curve,
    many_task_scores,
    planner_scores,
    training_runs,
)
from companion.running.paths import PROJECT

RELEASED = PROJECT.parent / "shared" / "released"
with_files = pytest.mark.skipif(not RELEASED.is_dir(), reason="the authors' result files are not here")


def peak_and_final(path, every):
    curve = iqm_curve(training_runs(path), every)
    return float(curve.max()), float(curve.iloc[-1])


def overlap(first, second):
    """How much two files hold the same runs: for each run of the first that begins like one of the second, row by row (each without its
    gaps), columns run, other_run, rows (that both have), equal_rows, first_different (empty if none)."""
    lines = []
    for name, a in training_runs(first).items():
        for other, b in training_runs(second).items():
            x, y = a.dropna().to_numpy(), b.dropna().to_numpy()
            rows = min(len(x), len(y))
            same = x[:rows] == y[:rows]
            if rows and same[: max(1, rows // 4)].all():
                different = np.flatnonzero(~same)
                found = {"equal_rows": int(same.sum()), "first_different": int(different[0]) if len(different) else None}
                lines.append({"run": name, "other_run": other, "rows": rows, **found})
    return pd.DataFrame(lines, columns=["run", "other_run", "rows", "equal_rows", "first_different"])


def tracker_file(path, runs, axis="Step", name="rewards", quoted=False, index=False):
    """A file as the tracker exports it. runs: one list of (x, value) a run, at moments of its own."""
    xs = sorted({x for run in runs for x, _ in run})
    columns = {axis: xs}
    for i, run in enumerate(runs):
        values = dict(run)
        for suffix in ("", "__MIN", "__MAX"):
            columns[f"Env_sweep_{i} - _step{suffix}"] = [1 if x in values else None for x in xs]
            columns[f"Env_sweep_{i} - {name}{suffix}"] = [values.get(x, np.nan) + {"": 0, "__MIN": -50, "__MAX": 50}[suffix] for x in xs]
    pd.DataFrame(columns).to_csv(path, index=index, quoting=1 if quoted else 0)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"quoted": True}, {"index": True, "axis": "Relative Time (Process)"}, {"name": "rewards/step", "axis": "global_step"}]
)
def test_runs_are_read_without_minima_maxima_and_counters(tmp_path, options):
    path = tracker_file(tmp_path / "a.csv", [[(0, 1.0), (20, 3.0)], [(10, 5.0), (30, 9.0)]], **options)
    runs = training_runs(path)
    assert list(runs.columns) == ["Env_sweep_0", "Env_sweep_1"] and runs.index.tolist() == [0, 10, 20, 30]
    assert runs["Env_sweep_0"].dropna().tolist() == [1.0, 3.0] and runs["Env_sweep_1"].dropna().tolist() == [5.0, 9.0]


def test_runs_of_unequal_length_begin_together_and_end_with_the_longest(tmp_path):
    path = tracker_file(tmp_path / "a.csv", [[(0, 0.0), (1, 2.0), (2, 4.0)], [(1, 10.0), (4, 40.0)]])
    curve = iqm_curve(training_runs(path), every=1)
    assert curve.index.tolist() == [1, 2, 4]
    assert curve.tolist() == [6.0, (4 + 25) / 2, (4 + 40) / 2], "rows count alike in between; the shorter run holds its last value"
    assert peak_and_final(path, every=2) == (22.0, 22.0)


def test_the_same_runs_under_two_names_are_found(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 40))
    a = tracker_file(tmp_path / "a.csv", [[(10 * t, v) for t, v in enumerate(run)] for run in values])
    changed = values.copy()
    changed[1, 30:] += 1  # one run goes on differently
    changed[2] = np.random.default_rng(1).normal(size=40)  # one is another run
    b = tracker_file(tmp_path / "b.csv", [[(20 * t, v) for t, v in enumerate(run[:35])] for run in changed])
    found = overlap(b, a)
    assert found["run"].tolist() == ["Env_sweep_0", "Env_sweep_1"] and found["rows"].tolist() == [35, 35]
    assert found["equal_rows"].tolist() == [35, 30] and found["first_different"].tolist()[1] == 30 and pd.isna(found["first_different"][0])


def scores_file(path, rows):
    columns = ["iteration", "episode_reward", "episode_success", "episode_reward_planning", "task"]
    pd.DataFrame(rows, columns=columns).to_csv(path)
    return path


def test_many_task_scores_ignore_what_stands_behind_them(tmp_path):
    rows = [
        (9, 953.4, 0.0, 63.8, "walker-walk"),
        (9, 747.2, 0.9, 0.4, "mw-push-wall"),
        (9, 860.0, 0.0, 1719428123.0, "walker-walk-backwards"),
    ]
    scores = many_task_scores(scores_file(tmp_path / "a.csv", rows))
    assert scores.to_dict() == pytest.approx({"walker-walk": 0.9534, "mw-push-wall": 0.9, "walker-walk-backwards": 0.86})
    with pytest.raises(ReleasedFilesError, match="walker-run has return 1719428123.0 and success 0.0: no score"):
        many_task_scores(scores_file(tmp_path / "b.csv", [(9, 1719428123.0, 0.0, 1.0, "walker-run")]))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ReleasedFilesError, match=r"nothing\.csv: no such file; released_dir must be the folder"):
        training_runs(tmp_path / "nothing.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ReleasedFilesError, match=r"empty\.csv: not a CSV table"):
        training_runs(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for read, missing in ((training_runs, "expected a column of Step"), (many_task_scores, "are missing"), (planner_scores, "are missing")):
        with pytest.raises(ReleasedFilesError, match=missing):
            read(tmp_path / "other.csv")
    path = tracker_file(tmp_path / "gap.csv", [[(0, 1.0)], [(1, float("nan"))]])
    with pytest.raises(ReleasedFilesError, match="a run without a single number: Env_sweep_1"):
        training_runs(path)


@with_files
def test_known_numbers_of_the_files():
    for task_set, pwm, planner in (("mt30", 0.864, 0.681), ("mt80", 0.913, 0.847)):
        scores, episodes = (
            many_task_scores(RELEASED / f"{task_set}_results.csv"),
            planner_scores(RELEASED / f"tdmpc2_{task_set}_scores.csv"),
        )
        assert len(scores) == int(task_set[2:]) and len(episodes) == 10 * len(scores)
        assert trim_mean(scores, 0.25) == pytest.approx(pwm, rel=0.005) and trim_mean(episodes["score"], 0.25) == pytest.approx(
            planner, rel=0.005
        )
    assert len(many_task_scores(RELEASED / "mt30_results_h3.csv")) == 29
    assert peak_and_final(RELEASED / "pwm_hopper.csv", 10)[0] == pytest.approx(5680, rel=0.005)


@with_files
def test_the_committed_tables_are_what_the_files_give():
    ours = pd.read_csv(PROJECT / "data" / "published" / "ablations.csv", keep_default_na=False)
    norm = pd.read_csv(PROJECT / "data" / "published" / "single_task.csv").set_index(["algorithm", "task"])["ppo_norm"]
    checked = 0
    for curve in CURVES:
        path = RELEASED / curve.file
        row = ours[(ours["figure"] == curve.figure) & (ours["label"] == curve.label) & (ours["task"] == curve.task)]
        if path.is_file() and len(row):
            for column, found in zip(("peak_iqm", "final_iqm"), peak_and_final(path, curve.every), strict=True):
                assert found / norm["ppo", curve.task] == pytest.approx(float(row[column].iloc[0]), rel=0.025), (curve, column)
            checked += 1
    assert checked >= 10
    printed = pd.read_csv(PROJECT / "data" / "published" / "stiff_overlap.csv")
    found = overlap(RELEASED / "pwm_hopper_stiff.csv", RELEASED / "pwm_hopper.csv")
    assert printed[["run", "rows", "equal_rows"]].equals(found[["run", "rows", "equal_rows"]])


def test_table_3_has_two_units_on_the_snu_humanoid():
    printed = pd.read_csv(PUBLISHED / "single_task.csv").query("task == 'snu_like'").set_index("algorithm")
    ppo, peak = printed.loc["ppo", ["paper_t4_iqm", "ppo_norm"]]
    assert (ppo, peak) == (4114, 4246.04)
    for unit, algorithms in ((ppo, ["ppo", "sac", "shac"]), (peak, ["tdmpc2", "pwm"])):
        rows = printed.loc[algorithms]
        assert (rows["paper_t4_iqm"] / unit - rows["paper_t3_iqm"]).abs().max() < 0.006
    assert "PPO, SAC and SHAC are over 4114" in (PROJECT / "docs" / "errata.md").read_text()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 10, 13])
def test_the_interquartile_mean_is_scipy_s(count):
    runs = np.random.default_rng(count).normal(size=(3, count))
    np.testing.assert_allclose(iqm(runs), trim_mean(runs, 0.25, axis=-1), rtol=1e-14)
    np.testing.assert_allclose(iqm(runs.T, 0), trim_mean(runs, 0.25, axis=-1), rtol=1e-14)
