"""Names of the release before work for one more, and say where they went."""

import importlib
import subprocess
import sys
import warnings

import pytest

from pwmlib._moved import table

MODULES, NAMES = table()["modules"], table()["names"]


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("new", sorted(set(MODULES.values())))
def test_every_module_is_where_the_table_says(new):
    assert importlib.util.find_spec(new) is not None
    assert new not in MODULES


def test_every_name_is_where_the_table_says():
    for old, new in NAMES.items():
        module, _, name = old.rpartition(".")
        place, _, now = new.rpartition(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(place), now), old


def test_no_old_name_hides_a_module_that_exists():
    for old in MODULES:
        assert importlib.util.find_spec(old).origin == old


def test_an_old_import_gives_the_new_objects_and_warns_once():
    code = """
import warnings, sys
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import pwmlib.nets, pwmlib.nets
    from pwmlib.pwm import PolicyLearner, PWMConfig
    from pwmlib.toys.cartpole import *
    from pwmlib.sim.scalars import mul
import pwmlib.model.layers, pwmlib.optimizer.pwm, pwmlib.sim.closed_form.cartpole as cartpole
assert pwmlib.nets.SimNorm is pwmlib.model.layers.SimNorm
assert (PolicyLearner, PWMConfig) == (pwmlib.optimizer.pwm.PWM, pwmlib.optimizer.pwm.PWMConfig)
assert CartpoleSwingup is cartpole.CartpoleSwingup
moved = [str(w.message) for w in said if w.category is FutureWarning]
assert [m.split()[0] for m in moved] == ["pwmlib.nets", "pwmlib.pwm", "pwmlib.toys", "pwmlib.toys.cartpole", "pwmlib.sim.scalars"], moved
assert moved[0] == "pwmlib.nets has moved to pwmlib.model.layers; the old name works until the next release"
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("statement", ["import pwmlib.nothing", "from pwmlib.nets import nothing", "import pwmlib.nets.nothing"])
def test_what_never_was_is_not_found(statement):
    done = run("-W", "ignore", "-c", f"try:\n    {statement}\nexcept ImportError as error:\n    print(error)")
    assert "nothing" in done.stdout, done.stderr


def test_importing_the_library_is_quick():
    heavy = "('torch', 'numpy', 'tomllib', 'companion', 'runpy')"
    done = run("-c", f"import pwmlib, sys; assert not [name for name in {heavy} if name in sys.modules]")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "arguments"),
    [
        pytest.param("recorded", "companion.record", ["--help"], marks=pytest.mark.long),
        pytest.param("sweep", "companion.running.sweep", ["--help"], marks=pytest.mark.long),
        ("runs", "companion.running.runs", []),
    ],
)
def test_an_old_command_runs_the_new_one(old, new, arguments):
    done = run("-m", f"pwmlib.{old}", *arguments)
    assert done.returncode == 0, done.stderr
    assert f"pwmlib.{old} has moved to {new};" in done.stderr
    assert done.stdout == run("-m", new, *arguments).stdout
