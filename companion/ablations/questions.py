"""Section 4.3 and Appendix F as variations of single-task runs, which questions.toml has; their experiments and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator

from companion.running.parameters import override
from companion.running.paths import read_toml, shown
from companion.single_task.experiment import SingleTaskExperiment, curves_table, results_table, train_together
from companion.single_task.runner import Algorithm, SingleTaskSettings
from companion.single_task.scales import settings_for
from pwmlib.errors import ExplainedError
from pwmlib.settings import Count, Positive, SettingError, settings

__all__ = ["ABLATIONS", "Ablation", "AblationError", "Variation", "ablation_experiments", "read_ablations", "run_ablation"]


class AblationError(ExplainedError):
    """A question that is not what it should be; names its file and the question."""


@settings
class Variation:
    """A learner with some settings changed."""

    label: str
    algorithm: Algorithm = "pwm"
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings of `SingleTaskSettings` by dotted names."""
    longer: Annotated[Positive, BeforeValidator(lambda said: float(Fraction(said)) if isinstance(said, str) else said)] = 1
    """How many times as many policy updates it gets as at the scale."""
    stiffness: Positive = 1.0


@settings
class Ablation:
    """Variations that answer one question of the paper."""

    figure: str
    question: str
    variations: tuple[Variation, ...]
    task: str = "hopper"
    recorded_seeds: Count = 3
    """How many seeds the committed results have."""


def read_ablations(path: Path) -> dict[str, Ablation]:
    """Name -> question, as the file's comment says.

    Raises:
        AblationError: Names the file, the question, and what is unknown, missing or wrong.
    """
    found, content = {}, read_toml(path, AblationError)
    for name, question in content["questions"].items():
        try:
            variations = [_variation(content["changes"], given) for given in question.pop("variations", [])]
            found[name] = Ablation(**question, variations=variations)
        except (SettingError, TypeError) as error:
            raise AblationError(f"{shown(path)}: question {name!r}: {error}") from None
    return found


def _variation(changes: Mapping[str, Mapping[str, Any]], given: dict[str, Any]) -> Variation:
    overrides: dict[str, Any] = {}
    for name in given.pop("use", []):
        if name not in changes:
            raise SettingError("use", name, f"must be one of {', '.join(changes)}")
        overrides |= changes[name]
    overrides |= given.pop("set", {})
    return Variation(**given, overrides={name: None if value == "None" else value for name, value in overrides.items()})


ABLATIONS = read_ablations(Path(__file__).with_name("questions.toml"))


def ablation_experiments(
    name: str, scale: str, train_seeds: int, runs_dir: Path, *, changes: dict[str, Any] | None = None, **runner: Any
) -> dict[str, SingleTaskExperiment]:
    """Make the experiments of a question, one a variation.

    Args:
        name: A key of `ABLATIONS`.
        scale: A key of `SINGLE_TASK_SCALES`.
        train_seeds: Seeds of each variation.
        runs_dir: The folder of runs.
        changes: Settings of the scale that are replaced in all of them.
        runner: Where they are computed: device, workers, engine and progress of `SingleTaskExperiment`.

    Returns:
        Label of the variation -> experiment.
    """
    if name not in ABLATIONS:
        raise ValueError(f"no ablation {name!r}; known: {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[name]
    common = override(settings_for(scale, ablation.task), changes or {})
    made = {}
    for v in ablation.variations:
        sizes = {ablation.task: _settings(common, v)}
        how = {"stiffness": v.stiffness, **runner}
        made[v.label] = SingleTaskExperiment((ablation.task,), (v.algorithm,), sizes, train_seeds, runs_dir, **how)
    return made


def _settings(common: SingleTaskSettings, variation: Variation) -> SingleTaskSettings:
    """The settings of one variation."""
    sizes = override(common, variation.overrides)
    where = {"pwm": "pwm.actor_critic", "pwm_offline": "offline.policy"}.get(variation.algorithm, variation.algorithm)
    updates = f"{where}.updates"
    return override(sizes, {updates: max(1, round(variation.longer * attrgetter(updates)(sizes)))})


def run_ablation(name: str, experiments: dict[str, SingleTaskExperiment]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and curves of all variations, with the columns ablation and variation; their runs share one pool."""
    parts = [
        (results_table(lines).assign(ablation=name, variation=label), curves_table(lines).assign(ablation=name, variation=label))
        for label, lines in zip(experiments, train_together(list(experiments.values())), strict=True)
    ]
    results, curves = (_together(tables) for tables in zip(*parts, strict=True))
    return results, curves


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All lines; a column that is empty in one of the tables keeps the type that it has in the others."""
    return pd.concat([t.dropna(axis=1, how="all") for t in tables], ignore_index=True).reindex(columns=tables[0].columns)
