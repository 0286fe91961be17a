"""Write requirements.lock from the running environment: `make lock`.

It pins every package except CUDA's own wheels, which torch pins itself where it needs them.
"""

import re
from importlib.metadata import distributions

from packaging.utils import canonicalize_name

from pwmlib.data.checkpoints import write_atomic

from .paths import PROJECT

NOT_LOCKED = re.compile(r"pip|wheel|pwmlib|nvidia-.*|triton|cuda-.*")

if __name__ == "__main__":
    pins = {canonicalize_name(d.name): d.version.split("+")[0] for d in distributions()}
    header = "# Written by `make lock` from a working environment; install with `make`, or pip install -r requirements.lock\n"
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items()) if not NOT_LOCKED.fullmatch(name)]
    write_atomic(PROJECT / "requirements.lock", header + "".join(lines))
