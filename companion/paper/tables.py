"""docs/tables.md: the recorded single-task runs and ablations as tables, written from data/results.

python -m companion.record tables
"""

from __future__ import annotations

import pandas as pd

from companion.ablations.questions import ABLATIONS
from companion.reporting.markdown import markdown_table
from companion.reporting.published import published_single_task
from companion.reporting.statistics import iqm_cell
from companion.running.paths import PROJECT
from companion.running.results import RESULTS
from companion.single_task.tables import NAMES, equal_time, iqm

__all__ = ["TABLES", "tables_page"]

TABLES = PROJECT / "docs" / "tables.md"
HEAD = """# Single-task runs and ablations, in tables

Written by `python -m companion.record tables` from `data/results`; [there](../data/results/README.md) is the command of each. Scale
`laptop` (PPO longer, its learning rate falling), one thread a run, returns of the deterministic policy in whole episodes. IQM over
seeds, in brackets its 95 % interval over seeds (none with one seed). CPU-minutes include the replay that a learner was given.
"Files": recomputed from the authors' released files, where there are any. "Over PPO": at the end, in units of the published PPO, as in
Table 3.
"""
EQUAL_TIME = """## After equal time

IQM of the last evaluation within so many CPU-minutes of training. Empty: not evaluated yet, or already over.
"""


def tables_page() -> str:
    """The page, from what is recorded."""
    results = _all("single_task_*.csv", curves=False)
    curves = _all("single_task_*_curves.csv", curves=True)
    parts = [HEAD, "## At the end of training\n", markdown_table(_ends(results)), ""]
    equal = equal_time(curves)
    parts += [EQUAL_TIME, markdown_table(equal.map(lambda v: f"{v:.0f}" if isinstance(v, float) and pd.notna(v) else v)), ""]
    for name, ablation in ABLATIONS.items():
        if (RESULTS / f"ablation_{name}.csv").is_file():
            parts += [
                f"## {ablation.question}\n",
                f"{ablation.task.capitalize()}; {ablation.figure}; `python -m companion.record ablation_{name}`.\n",
            ]
            parts += [markdown_table(_variations(name)), ""]
    return "\n".join(parts)


def _all(pattern: str, curves: bool) -> pd.DataFrame:
    paths = [path for path in sorted(RESULTS.glob(pattern)) if path.stem.endswith("_curves") == curves]
    table = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    robots, order = ("hopper", "ant", "anymal", "humanoid", "snu_like"), list(NAMES)
    return table.sort_values(["task", "algorithm"], key=lambda c: c.map((robots if c.name == "task" else order).index), kind="stable")


def _spread(runs: pd.Series) -> str:
    cell = iqm_cell(runs.fillna(0.0))
    return f"{cell.value:.0f}" + ("" if cell.low is None else f" [{cell.low:.0f}, {cell.high:.0f}]")


def _ends(results: pd.DataFrame) -> pd.DataFrame:
    published = published_single_task().set_index(["task", "algorithm"])
    lines = []
    for (robot, algorithm), runs in results.groupby(["task", "algorithm"], sort=False):
        paper = published.loc[(robot, algorithm.partition("_")[0])]
        lines.append(
            {
                "robot": robot,
                "learner": NAMES[algorithm],
                "seeds": len(runs),
                "diverged": int((runs["status"] != "finished").sum()),
                "environment steps": f"{runs['env_steps'].max() / 1e6:.2g} M",
                "CPU-minutes a seed": f"{runs['cpu_s'].max() / 60:.1f}",
                "at the end": _spread(runs["last"]),
                "at the peak": f"{iqm(runs['best'].fillna(0.0)):.0f}",
                "Table 4": f"{paper['paper_t4_iqm']:.0f}",
                "files, end": "" if pd.isna(paper["final_iqm"]) else f"{paper['final_iqm']:.0f}",
                "files, peak": "" if pd.isna(paper["peak_iqm"]) else f"{paper['peak_iqm']:.0f}",
                "ours over PPO": f"{iqm(runs['last'].fillna(0.0)) / paper['ppo_norm']:.2f}",
                "Table 3": f"{paper['paper_t3_iqm']:.2f}",
            }
        )
    return pd.DataFrame(lines)


def _variations(name: str) -> pd.DataFrame:
    results, curves = (pd.read_csv(RESULTS / f"ablation_{name}{part}.csv") for part in ("", "_curves"))
    ends = curves.groupby(["variation", "train_seed"], sort=False).last().groupby("variation", sort=False)
    medians = ends[["reward_rmse", "gradient_cosine"]].median()
    lines = []
    for variation, runs in results.groupby("variation", sort=False):
        error, cosine = medians.loc[variation]
        lines.append(
            {
                "variation": variation,
                "seeds": len(runs),
                "diverged": int((runs["status"] != "finished").sum()),
                "at the end": _spread(runs["last"]),
                "at the peak": f"{iqm(runs['best'].fillna(0.0)):.0f}",
                "each, at the end": ", ".join(f"{v:.0f}" for v in runs["last"].fillna(0.0)),
                "reward error, 16 steps": f"{error:.3g}" if pd.notna(error) else "",
                "cosine to the simulator's gradient": f"{cosine:.2f}" if pd.notna(cosine) else "",
            }
        )
    return pd.DataFrame(lines)
