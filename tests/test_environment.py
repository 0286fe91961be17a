"""The declared, the locked and the conda environment agree, and everything that notebooks use can be imported."""

import ast
import importlib
import json
import re

import pytest
from packaging.requirements import Requirement

from companion.running.lock import conda_environment, declared, locked, normalise
from companion.running.paths import PROJECT


def test_every_declared_requirement_is_locked_to_an_allowed_version():
    pins = locked()
    for line in declared():
        requirement = Requirement(line)
        name = normalise(requirement.name)
        assert name in pins, f"{name} is in pyproject.toml, not in requirements.lock: run make lock"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is locked, pyproject.toml asks {requirement.specifier}"


def test_conda_environment_is_the_one_written_from_the_lock():
    assert (PROJECT / "environment.yml").read_text() == conda_environment(locked())


def test_pins_that_the_suites_need():
    pins = locked()
    expected = {"torch": "2.13.0", "mujoco": "3.16.0", "dm-control": "1.0.49", "metaworld": "3.0.0", "rliable": "1.2.0"}
    assert {name: pins[name] for name in expected} == expected
    assert pins["arch"].startswith("7.") and pins["pandas"].startswith("2.")


def imported_modules():
    names = set()
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                for node in ast.walk(ast.parse("".join(cell["source"]))):
                    if isinstance(node, ast.Import):
                        names |= {alias.name for alias in node.names}
                    elif isinstance(node, ast.ImportFrom):
                        names.add(node.module)
    return sorted(names | {"jupyterlab", "papermill", "mujoco", "dm_control.suite", "metaworld", "rliable.library", "safetensors"})


@pytest.mark.parametrize("module", imported_modules())
def test_every_module_of_the_notebooks_imports(module):
    importlib.import_module(module)


def test_no_file_names_this_machine():
    pattern = re.compile(r"/(root|home|work)/\w")
    for folder in ("pwmlib", "notebooks", "benchmarks", "data"):
        for path in (PROJECT / folder).rglob("*"):
            if path.suffix in {".py", ".ipynb", ".md", ".json", ".csv"} and "cache" not in path.parts:
                assert not pattern.search(path.read_text()), path
