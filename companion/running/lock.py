"""Write requirements.lock and environment.yml, so that pip and conda users get the same set as pyproject.toml asks for.

    python -m companion.running.lock

The lock pins every package of the environment it runs in except CUDA's own wheels, which torch pins itself where it needs them.
"""

import re
import tomllib
from importlib.metadata import distributions

from pwmlib.data.checkpoints import write_atomic

from .paths import PROJECT

_NOT_LOCKED = re.compile(r"^(pip|wheel|pwmlib|nvidia-.*|triton|cuda-.*)$")


def normalise(name: str) -> str:
    """Package name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[str]:
    """All requirements of pyproject.toml, extras included, without references to itself."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [r for name, group in project["optional-dependencies"].items() if name != "all" for r in group]
    return [*project["dependencies"], *extras]


def locked() -> dict[str, str]:
    """Name and version of every pin in requirements.lock."""
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    return {normalise(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}


def conda_environment(pins: dict[str, str]) -> str:
    """environment.yml: Python from conda-forge, the locked packages of pyproject.toml from pip."""
    names = sorted({normalise(re.split(r"[<>=!~ \[]", r)[0]) for r in declared()})
    lines = ["# Written by `make lock`; pyproject.toml is the truth.", "name: pwm", "channels: [conda-forge]", "dependencies:"]
    lines += ["  - python=3.11", "  - pip", "  - pip:", *(f"      - {name}=={pins[name]}" for name in names)]
    return "\n".join([*lines, "      - --editable ."]) + "\n"


def main() -> None:
    """Write both files from the running environment."""
    pins = {normalise(d.name): d.version.split("+")[0] for d in distributions()}
    kept = {name: version for name, version in sorted(pins.items()) if not _NOT_LOCKED.match(name)}
    header = "# Written by `make lock` from a working environment; install with `make`, or pip install -r requirements.lock\n"
    write_atomic(PROJECT / "requirements.lock", header + "".join(f"{name}=={version}\n" for name, version in kept.items()))
    write_atomic(PROJECT / "environment.yml", conda_environment(kept))


if __name__ == "__main__":
    main()
