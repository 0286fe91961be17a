"""The declared and the locked environment agree, and everything that notebooks use can be imported."""

import ast
import importlib
import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from companion.running.paths import PROJECT


def locked():
    """Name and version of every pin in requirements.lock."""
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}


def test_every_declared_requirement_is_locked_to_an_allowed_version():
    pins, project = locked(), tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [line for name, group in project["optional-dependencies"].items() if name != "all" for line in group]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is in pyproject.toml, not in requirements.lock: run make lock"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is locked, pyproject.toml asks {requirement.specifier}"


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
