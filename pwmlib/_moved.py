"""Names of the release before this one, kept for one more: an import of one warns and gives what is there now.

The table is `moved.toml`: modules, and single names that are called otherwise now or went elsewhere than the rest of their module. It is
read when an import of pwmlib finds nothing, so what exists goes first and costs nothing.
"""

import importlib
import sys
import warnings
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

__all__ = ["install", "table"]


@cache
def table() -> dict[str, dict[str, str]]:
    """Read the table.

    Returns:
        "modules" and "names", each from old to new dotted names.
    """
    import tomllib  # here, so that `import pwmlib` does not wait for it

    return tomllib.loads((Path(__file__).parent / "moved.toml").read_text())


class _Moved(ModuleType):
    """An old module: looks up every name where it is now, when it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        new = table()["names"].get(f"{self.__name__}.{name}", f"{table()['modules'][self.__name__]}.{name}")
        place, _, name = new.rpartition(".")
        return getattr(importlib.import_module(place), name)


class _Finder:
    """Finds old modules and loads them; it comes last, for what no other finder knows."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not fullname.startswith("pwmlib.") or fullname not in table()["modules"]:
            return None
        package = any(old.startswith(f"{fullname}.") for old in table()["modules"])
        return ModuleSpec(fullname, self, origin=fullname, is_package=package)  # type: ignore[arg-type]  # as a loader needs no base class

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name, f"Moved to {table()['modules'][spec.name]}.")

    def exec_module(self, module: ModuleType) -> None:
        importlib.import_module(_warned(module.__name__))  # what is missing is missing now, not at the first name

    def get_code(self, fullname: str) -> CodeType:
        """For `python -m`: run the new module as the program."""
        run = f"import runpy\nrunpy.run_module({_warned(fullname)!r}, run_name='__main__', alter_sys=True)\n"
        return compile(run, fullname, "exec")


def _warned(old: str) -> str:
    new = table()["modules"][old]
    # Not a DeprecationWarning, which nobody who runs a notebook or a command would see.
    warnings.warn(f"{old} has moved to {new}; the old name works until the next release", FutureWarning, stacklevel=3)
    return new


def install() -> None:
    """Let imports of old names find what is there now; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())  # type: ignore[arg-type]
