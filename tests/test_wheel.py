"""A plain install, without the repository: what is imported, shipped and read from another folder."""

import os
import subprocess
import sys

import pytest

from companion.running.paths import CHECKOUT, PROJECT

pytest.importorskip("hatchling")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="a wheel is built from the repository")

USED = """
import pathlib, torch
import companion.running.paths as paths
import companion.paper.ledger as ledger
from companion.mt80.parameters import MultitaskParameters
from companion.mt80.shipped_model import SHIPPED, Artefacts
from companion.reporting.published import published_scores
from companion.running.results import results_table
from companion.running.stamp import environment_stamp
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.sim.env import DifferentiableEnv

here = pathlib.Path.cwd()
assert not paths.CHECKOUT and paths.DATA.is_relative_to(here / "installed"), paths.DATA
shipped = Artefacts(SHIPPED)
view = FrozenWorldModel(shipped.world_model(), 3)
actor = shipped.policies()["cheetah-run"][0]
assert torch.isfinite(actor(view.encode(torch.zeros(1, view.obs_dim)))).all()
assert len(results_table("multitask_80")) and len(published_scores()) == 80 and len(ledger.LEDGER) == 5
assert MultitaskParameters().runs_folder() == here / "runs" and environment_stamp()["commit"] is None
env = DifferentiableEnv("hopper", 2)
assert torch.isfinite(env.step(torch.zeros(2, 3)).obs).all()
print("works")
"""


def test_a_plain_install_works_from_another_folder_with_all_that_is_shipped(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", str(tmp_path), str(PROJECT)]
    subprocess.run(built, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("pwmlib-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", "installed", str(wheel)], check=True, cwd=tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", USED], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "works", done.stderr
