"""The code shown in docs/ runs as it stands, and its links lead somewhere."""

import importlib
import re

import pytest
import torch

from companion.running.paths import PROJECT

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
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


def named():
    """What the README's table from paper to code names: dotted names, and which equations, tables and figures it has."""
    section = (PROJECT / "README.md").read_text().split("## From the paper to the code")[1].split("\n## ")[0]
    return section, re.findall(r"`((?:pwmlib|companion)[\w.]*)`", section)


def test_everything_that_the_table_from_paper_to_code_names_exists():
    section, names = named()
    assert len(names) >= 20
    for name in names:
        parts, found = name.split("."), None
        for cut in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for attribute in parts[cut:]:
                found = getattr(found, attribute)
            break
        assert found is not None, name
    for wanted in ("Eq. 4", "Eq. 5", "Eq. 6", "Eq. 7-8", "Eq. 9", "Eq. 10", "Algorithm 1", "Table 1", "Table 2", "Tables 3 and 4"):
        assert wanted in section


def test_the_ten_lines_of_the_readme_run():
    (code,) = blocks(PROJECT / "README.md")
    names = {}
    exec(code.replace("updates=500", "updates=2"), names)
    assert names["learner"].step == 2
