"""docs/tables.md: the recorded single-task runs and ablations as tables, written from data/results.

python -m companion.record tables
"""

import pandas as pd

from companion.ablations.questions import ABLATIONS
from companion.paper.views import markdown_table
from companion.reporting.cells import iqm, iqm_cell
from companion.reporting.published import published_table
from companion.running.paths import PROJECT
from companion.running.results import results_paths, results_table
from companion.single_task.scales import SINGLE_TASKS
from companion.single_task.tables import NAMES, equal_time

TABLES = PROJECT / "docs" / "tables.md"
HEAD = """# Single-task runs and ablations, in tables

Written by `python -m companion.record tables` from `data/results`; [there](../data/results/README.md) is the command of each. Scale
`laptop` (PPO longer, its learning rate falling), one thread a run, returns of the deterministic policy in whole episodes. IQM over
seeds (of fewer than four the mean), in brackets its 95 % interval over seeds (none with one seed). CPU-minutes include the replay that a
learner was given. "Files": recomputed from the authors' released files, where there are any. "Over PPO": at the end, in units of the
published PPO, as in Table 3. The bodies of `anymal` and `snu_like` are ours: the published numbers beside them are no yardstick.
"""
EQUAL_TIME = """## After equal time

IQM of the last evaluation within so many CPU-minutes of training. Empty: not evaluated yet, or already over.
"""


def tables_page() -> str:
    """Write the page from what is recorded."""
    equal = equal_time(_all(curves=True))
    equal["ended after, min"] = equal["ended after, min"].map("{:.1f}".format)
    parts = [HEAD, "## At the end of training\n", markdown_table(_ends(_all(curves=False))), ""]
    parts += [EQUAL_TIME, markdown_table(equal.map(lambda v: _digits(v, 0) if isinstance(v, float) else v)), ""]
    for name, ablation in ABLATIONS.items():
        if results_paths(f"ablation_{name}"):
            made = f"{ablation.task.capitalize()}; {ablation.figure}; `python -m companion.record ablation_{name}`.\n"
            parts += [f"## {ablation.question}\n", made, markdown_table(_variations(name)), ""]
    return "\n".join(parts)


def _all(curves: bool) -> pd.DataFrame:
    paths = [path for path in results_paths("single_task_*") if path.stem.endswith("_curves") == curves]
    table = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    order = {"task": list(SINGLE_TASKS), "algorithm": list(NAMES)}
    return table.sort_values(list(order), key=lambda c: c.map(order[c.name].index), kind="stable")


def _digits(value: float, places: int) -> str:
    return "" if pd.isna(value) else f"{value:.{places}f}"


def _runs(runs: pd.DataFrame) -> dict[str, object]:
    """What is said of several runs, a diverged one with what it had."""
    last, best = iqm_cell(runs["last"].fillna(0.0)), iqm(runs["best"].fillna(0.0))
    interval = "" if last.low is None else f" [{last.low:.0f}, {last.high:.0f}]"
    diverged = int((runs["status"] != "finished").sum())
    return {"seeds": len(runs), "diverged": diverged, "at the end": f"{last.value:.0f}{interval}", "at the peak": f"{best:.0f}"}


def _ends(results: pd.DataFrame) -> pd.DataFrame:
    published = published_table("single_task").set_index(["task", "algorithm"])
    lines = []
    for (robot, algorithm), runs in results.groupby(["task", "algorithm"], sort=False):
        paper, ours = published.loc[(robot, algorithm.partition("_")[0])], _runs(runs)
        cost = {
            "environment steps": f"{runs['env_steps'].max() / 1e6:.2g} M",
            "CPU-minutes, slowest seed": f"{runs['cpu_s'].max() / 60:.1f}",
        }
        theirs = {
            "Table 4": _digits(paper["paper_t4_iqm"], 0),
            "files, end": _digits(paper["final_iqm"], 0),
            "files, peak": _digits(paper["peak_iqm"], 0),
            "ours over PPO": _digits(iqm(runs["last"].fillna(0.0)) / paper["ppo_norm"], 2),
            "Table 3": _digits(paper["paper_t3_iqm"], 2),
        }
        # Cost stands between how the runs ended and what they reached.
        ended = {name: ours.pop(name) for name in ("seeds", "diverged")}
        lines.append({"robot": robot, "learner": NAMES[algorithm], **ended, **cost, **ours, **theirs})
    return pd.DataFrame(lines)


def _variations(name: str) -> pd.DataFrame:
    results, curves = results_table(f"ablation_{name}"), results_table(f"ablation_{name}_curves")
    ends = curves.groupby(["variation", "train_seed"], sort=False).last().groupby("variation", sort=False)
    medians = ends[["reward_rmse", "gradient_cosine"]].median()
    lines = []
    for variation, runs in results.groupby("variation", sort=False):
        error, cosine = medians.loc[variation]
        measured = {
            "each, at the end": ", ".join(f"{v:.0f}" for v in runs["last"].fillna(0.0)),
            "reward error, 16 steps": f"{error:.3g}" if pd.notna(error) else "",
            "cosine to the simulator's gradient": _digits(cosine, 2),
        }
        lines.append({"variation": variation, **_runs(runs), **measured})
    return pd.DataFrame(lines)
