"""Every block of code of docs/use runs, a page's blocks one after the other, with few updates."""

import re

import pytest
import torch

from companion.running.paths import PROJECT

PAGES = sorted((PROJECT / "docs" / "use").glob("*.md"))
NEEDS = {"own_data": "minari", "gymnasium": "stable_baselines3", "tensorboard": "tensorboard"}


LONG = {"own_robot", "pictures"}
"""Kernels of a new robot are compiled; an episode is filmed."""


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem, marks=[pytest.mark.long] * (p.stem in LONG)) for p in PAGES])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("PWM_TENSORBOARD", "")
    from pwmlib.sim.registry import ENVS

    monkeypatch.setattr("pwmlib.sim.registry.ENVS", ENVS)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks or page.stem == "README"
    names = {}
    for block in blocks:
        few = re.sub(r"updates=\d+", "updates=2", block).replace("pwm.step < 400", "pwm.step < 2")
        exec(compile(few, str(page), "exec"), names)
    ENVS.pop("arm", None)
    if page.stem == "own_world":
        assert names["learner"].step == 2 and torch.isfinite(names["state"]).all()
    if page.stem == "own_data":
        assert names["task"].name == "own-mass-v0" and names["data"].slices
    if page.stem == "tensorboard":
        assert any(path.name.startswith("events.out") for path in names["run"].folder.iterdir())


def test_every_page_is_in_the_list():
    listed = re.findall(r"\]\(([\w.]+)\)", (PROJECT / "docs" / "use" / "README.md").read_text())
    assert sorted(listed) == [page.name for page in PAGES if page.stem != "README"]
