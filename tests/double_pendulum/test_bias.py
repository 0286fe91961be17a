"""Bias beside variance: the tables of the sweep again, closed forms, and the sentences range by range."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_double_pendulum import tiny

from companion.double_pendulum import bias, study
from companion.double_pendulum.figures import bias_and_variance
from companion.double_pendulum.sentences import RANGES, claims_by_range
from companion.running.jobs import JobResult


def test_gradients_are_those_of_the_sweep_and_models_are_told_apart_from_the_truth(tmp_path, monkeypatch):
    here = lambda jobs, **_: [JobResult(j.name, j.function(**j.arguments)) for j in jobs]  # noqa: E731
    monkeypatch.setattr("companion.running.jobs.run_jobs", here)
    scale = tiny()
    sweep = study.run_study(scale, tmp_path, progress=False).table.query("setting == 'trained policy, same actions'")
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    table = bias.bias_study(scale, [scale.model], tmp_path, workers=1, progress=False)
    assert all(path.stat().st_mtime_ns == time for path, time in trained.items() if "plans" not in path.parts), "nothing trained again"
    assert table.groupby("world")["updates"].unique().map(list).to_dict() == {
        "true": [0], "model, H = 3": [2, 6, 20], "model, H = 16": [2, 6, 20],
    }  # fmt: skip
    last = table[table["updates"] == table.groupby("world")["updates"].transform("max")]
    both = last.merge(sweep, on=["world", "horizon"], suffixes=("", "_sweep"))
    assert len(both) == 3 * 2, "horizons 1 and 4"
    for name in ("mean_variance", "esnr", "esnr_unbiased"):
        np.testing.assert_allclose(both[name], both[f"{name}_sweep"], rtol=1e-3, atol=1e-6)
    true, models = last[last["world"] == "true"], last[last["world"] != "true"]
    assert (true["bias"] == 0).all() and (true["cosine"] > 1 - 1e-9).all() and (true["mean_cosine"] < 1).all()
    assert (models["cosine"] < 1).all() and (models["weights"] > 0).all()


def test_bias_and_cosine_of_gradients_that_are_known():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(400, 5, generator=generator, dtype=torch.float64) + 3.0
    offset = torch.tensor([0.0, 1.0, -2.0, 0.0, 2.0], dtype=torch.float64)
    shifted = bias._statistics(true + offset, true, 50)
    assert shifted["bias"] == pytest.approx(3.0) and shifted["mean_cosine"] < 1
    assert shifted["mean_variance"] == pytest.approx(float(true.var(0).mean()))
    assert shifted["true_norm"] == pytest.approx(3 * 5**0.5, rel=0.05)
    longer = bias._statistics(2 * true, true, 50)
    assert longer["mean_cosine"] == pytest.approx(1) and longer["cosine"] == pytest.approx(1)
    assert longer["bias"] == pytest.approx(longer["true_norm"]) and longer["esnr"] == pytest.approx(
        bias._statistics(true, true, 50)["esnr"]
    )
    noise = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    unbiased = bias._statistics(true + noise, true, 50)
    assert unbiased["bias"] < 2 * (5 / 400) ** 0.5, "what sampling makes of it is taken off"
    halves = bias._statistics(noise, noise, 50)
    assert halves["mean_cosine_low"] < halves["mean_cosine"] < halves["mean_cosine_high"] and halves["mean_cosine"] < 0.9


def made(variances, esnrs):
    """A table of the true world and two models of two sizes whose larger ones have these ratios to it, one a range."""
    rows = []
    for world, weights, updates in (("true", 0, 0), *((f"model, H = {h}", w, u) for h in (3, 16) for w in (10, 20) for u in (1, 2, 3))):
        for horizon in (1, *range(4, 101, 4)):
            place = next(i for i, (low, high) in enumerate(RANGES) if low <= horizon <= high)
            best = weights == 20 and updates == 3
            variance, esnr = (ratios[world][place] if best else 1.0 for ratios in (variances, esnrs))
            ends = {f"{n}_{e}": v * f for n, v in (("mean_variance", variance), ("esnr", esnr)) for e, f in (("low", 0.9), ("high", 1.1))}
            head = {"world": world, "weights": weights, "updates": updates, "horizon": horizon, "mean_cosine": 0.5}
            rows.append({**head, "mean_variance": variance, "esnr": esnr, **ends})
    return pd.DataFrame(rows)


def test_each_range_has_its_own_verdict():
    table = made(
        {"model, H = 3": (0.5, 1.0, 2.0, 1.0), "model, H = 16": (1.0,) * 4},
        {"model, H = 3": (1.0,) * 4, "model, H = 16": (1.0, 0.5, 2.0, 3.0)},
    )
    found = claims_by_range(table).set_index(["claim", "of", "horizons"])["verdict"]
    assert len(found) == 5 * len(RANGES)
    lower = found["lower variance than the true dynamics"]["model, H = 3"].to_dict()
    open_, no = "not shown at this size", "does not hold"
    assert lower == {"1 to 16": "holds", "17 to 32": open_, "33 to 50": no, "51 to 100": open_}
    higher = found["higher ESNR than the true dynamics"]["model, H = 16"].to_dict()
    assert higher == {"1 to 16": open_, "17 to 32": no, "33 to 50": "holds", "51 to 100": "holds"}
    assert found["higher ESNR than with H = 3"]["model, H = 16"].to_dict() == higher
    figure = bias_and_variance(table)
    assert [ax.get_title() for ax in figure.axes[:4]] == [f"horizons {low} to {high}" for low, high in RANGES]
    marks = [len(ax.collections) for ax in figure.axes]
    assert marks == [12] * 8
