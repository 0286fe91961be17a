"""The rules that the house is built by: who may import whom, no circles, and what fits on a page."""

import json
import re
import subprocess
import sys
from functools import cache

import grimp
import pytest

from companion.running.paths import PROJECT

MODULES = [*PROJECT.glob("pwmlib/**/*.py"), *PROJECT.glob("companion/**/*.py")]


@cache
def lines(path):
    return len(path.read_text().splitlines())


def test_the_contracts_of_pyproject_hold():
    """Imports go downwards only, and the library knows nothing of the companion."""
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert "KEPT" in ended.stdout


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph("pwmlib", "companion", exclude_type_checking_imports=True, cache_dir=None)
    reached = {m: graph.find_upstream_modules(m) for m in graph.modules}
    assert len(reached) > 100
    assert not {m for m, above in reached.items() if any(m in reached[a] for a in above)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_a_module_has_at_most_300_lines(path):
    assert lines(path) <= 300


def test_the_method_is_read_in_four_files():
    """The world model, actor and critics, imagined rollouts with their returns, Algorithm 1."""
    files = ("model/world_model.py", "optimizer/actor_critic.py", "optimizer/imagination.py", "optimizer/pwm.py")
    assert sum(lines(PROJECT / "pwmlib" / f) for f in files) <= 900


def test_the_library_is_thin():
    of = lambda *rooms: sum(lines(p) for p in MODULES if p.relative_to(PROJECT).parts[:2] in rooms)  # noqa: E731
    assert of(("pwmlib", "model"), ("pwmlib", "optimizer"), ("pwmlib", "estimators")) <= 3150


def test_import_pwmlib_is_quick():
    code = "import json, sys, pwmlib; print(json.dumps([m for m in ('torch', 'numpy', 'warp', 'mujoco', 'pandas') if m in sys.modules]))"
    assert json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT).stdout) == []


@pytest.mark.parametrize("path", sorted(PROJECT.glob("companion/**/*.py")), ids=lambda p: str(p.relative_to(PROJECT)))
def test_colours_stand_in_one_file(path):
    """A method that a module colours by itself would have another colour in the next figure."""
    if path.name != "colours.py":
        assert not re.search(r"""["'](#[0-9A-Fa-f]{6}|tab:\w+)["']""", path.read_text())
