"""The artefacts that come with the project are what their card says."""

import numpy as np
import pytest
import torch

from pwmlib.shipped import SHIPPED, Artefacts
from pwmlib.tasks import MT80

pytestmark = pytest.mark.skipif(not SHIPPED.is_dir(), reason="no artefacts are shipped")


def test_the_world_model_of_all_80_tasks_loads_and_fits_its_quality_table():
    artefacts = Artefacts(SHIPPED)
    assert artefacts.tasks == MT80 and "papermill notebooks/03_mt80.ipynb" in artefacts.card["command"]
    model, quality = artefacts.world_model(), artefacts.table("quality")
    assert model.tasks == 80 and list(quality["task"]) == [t.name for t in MT80]
    assert sum(p.stat().st_size for p in SHIPPED.rglob("*") if p.is_file()) < 60 * 2**20
    rng = np.random.default_rng(0)
    for i, t in enumerate(MT80):
        obs = artefacts.start_observations(t, model.obs_dim, 8, rng)
        assert obs.shape == (8, 39) and bool((obs[:, t.obs_dim :] == 0).all()) and bool(torch.isfinite(obs).all())
        with torch.no_grad():
            z = model.encode(obs, torch.tensor(i))
        assert bool(torch.isfinite(z).all()) and float((z.view(8, -1, 8).sum(-1) - 1).abs().max()) < 1e-4  # SimNorm groups
    data = artefacts.table("data")
    assert (data["data_p10"] <= data["data_p90"]).all() and data["episodes"].ge(50).all()
