"""Section 4.3 and Appendix F as variations of single-task runs, which questions.toml has; their experiments and tables."""

from collections.abc import Callable, Mapping
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
    found, content = {}, read_toml(path)
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
    """Make the experiments of a question, by the labels of its variations.

    changes: settings of the scale that are replaced in all of them; runner: device, workers, engine and progress.
    """
    if name not in ABLATIONS:
        raise ValueError(f"no ablation {name!r}; known: {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[name]
    t, common = ablation.task, override(settings_for(scale, ablation.task), changes or {})
    return {
        v.label: SingleTaskExperiment((t,), (v.algorithm,), {t: _settings(common, v)}, train_seeds, runs_dir, v.stiffness, **runner)
        for v in ablation.variations
    }


def _settings(common: SingleTaskSettings, variation: Variation) -> SingleTaskSettings:
    """The settings of one variation."""
    sizes = override(common, variation.overrides)
    where = {"pwm": "pwm.actor_critic", "pwm_offline": "offline.policy"}.get(variation.algorithm, variation.algorithm)
    updates = f"{where}.updates"
    return override(sizes, {updates: max(1, round(variation.longer * attrgetter(updates)(sizes)))})


def run_ablation(name: str, experiments: dict[str, SingleTaskExperiment]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and curves of all variations, with the columns ablation and variation; their runs share one pool."""
    lines = dict(zip(experiments, train_together(list(experiments.values())), strict=True))

    def together(table_of: Callable[..., pd.DataFrame]) -> pd.DataFrame:
        tables = [table_of(of_one).assign(ablation=name, variation=label) for label, of_one in lines.items()]
        # A column that is empty in one of the tables keeps the type that it has in the others.
        return pd.concat([t.dropna(axis=1, how="all") for t in tables], ignore_index=True).reindex(columns=tables[0].columns)

    return together(results_table), together(curves_table)
