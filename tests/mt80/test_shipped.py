"""The artefacts that come with the project are what their card says."""

import numpy as np
import pytest
import torch

from companion.mt80.shipped_model import SHIPPED, Artefacts
from pwmlib.tasks import MT80

pytestmark = pytest.mark.skipif(not SHIPPED.is_dir(), reason="no artefacts are shipped")


def test_the_world_model_of_all_80_tasks_loads_and_fits_its_quality_table():
    artefacts = Artefacts(SHIPPED)
    assert artefacts.tasks == MT80 and "papermill notebooks/03_mt80.ipynb" in artefacts.card["command"]
    assert set(artefacts.card["files"]) == {path.name for path in SHIPPED.iterdir()} - {"card.json"}, "each has its checksum"
    model, quality = artefacts.world_model(), artefacts.table("quality")
    assert model.tasks == 80 and list(quality["task"]) == [t.name for t in MT80]
    assert sum(p.stat().st_size for p in SHIPPED.rglob("*") if p.is_file()) < 60 * 2**20
    rng = np.random.default_rng(0)
    for i, t in enumerate(MT80):
        obs = artefacts.start_observations(i, 8, rng)
        assert obs.shape == (8, 39) and bool((obs[:, t.obs_dim :] == 0).all()) and bool(torch.isfinite(obs).all())
        with torch.no_grad():
            z = model.encode(obs, torch.tensor(i))
        assert bool(torch.isfinite(z).all()) and float((z.view(8, -1, 8).sum(-1) - 1).abs().max()) < 1e-4  # SimNorm groups
    data = artefacts.table("data")
    assert (data["data_p10"] <= data["data_p90"]).all() and data["episodes"].ge(50).all()


def test_a_shipped_policy_gets_the_recorded_score(tmp_path):

    from companion.mt80.scales import MULTITASK_SCALES
    from companion.mt80.stages import MultitaskExperiment
    from companion.running.results import results_table
    from pwmlib.tasks import task

    t = task("mw-handle-press-side")
    experiment = MultitaskExperiment(
        (t,), MULTITASK_SCALES["quick"], 1, tmp_path, tmp_path, device="cpu", workers=1, progress=False, shipped=Artefacts(SHIPPED)
    )
    found = experiment.evaluate_shipped()
    table = results_table("multitask_80").set_index(["task", "train_seed"])
    assert len(found) == 1 and found["mean_return"][0] == pytest.approx(table.loc[(t.name, 0), "mean_return"], rel=1e-2)
    assert found["score"][0] == table.loc[(t.name, 0), "score"] and set(Artefacts(SHIPPED).policies()) == {t.name for t in MT80}
