"""The code shown in docs/ runs as it stands, and its links lead somewhere."""

import re

import pytest
import torch

from companion.running.paths import PROJECT

PAGES = sorted((PROJECT / "docs").rglob("*.md"))


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_code_of_the_simulator_page_runs_and_the_robot_stands_on_its_legs():
    for code in blocks(PROJECT / "docs" / "simulator.md"):
        names = {}
        exec(code, names)
    assert len(code.split("WALKER = ")[1].splitlines()) <= 35
    env = names["env"]
    action = torch.zeros(64, 2, requires_grad=True)
    for _ in range(30):
        step = env.step(action)
    assert torch.isfinite(step.obs).all() and float(step.obs[:, 0].min()) > 0.5
    step.reward.sum().backward()
    assert action.grad.abs().sum() > 0


def test_code_of_the_data_page_runs(capsys):
    for code in blocks(PROJECT / "docs" / "data.md"):
        exec(code, {})
    assert "TD-MPC2 checkpoint" in capsys.readouterr().out
