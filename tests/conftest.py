"""Shared test settings: one torch thread, and the folder of reference arrays where it exists."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
REFERENCE = Path(os.environ.get("PWMLIB_REFERENCE", Path(__file__).resolve().parents[2] / "shared" / "reference"))
GOLDEN = REFERENCE / "golden"


@pytest.fixture
def golden():
    """Loader of the reference arrays, or a skip that says what is missing."""

    def load(name: str) -> dict[str, torch.Tensor]:
        path = GOLDEN / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"reference arrays not here: {path} (set PWMLIB_REFERENCE to their folder)")
        with np.load(path) as file:
            return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}

    return load


@pytest.fixture
def rollout_reference():
    """Loader of the recorded rollouts of another simulator, or a skip that says what is missing."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = REFERENCE / "sim" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"recorded rollouts not here: {path} (set PWMLIB_REFERENCE to the folder above)")
        with np.load(path) as file:
            return {key: file[key] for key in file.files}

    return load


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request):
    """Runs a test with each kind of device as torch's default."""
    torch.set_default_device(request.param)
    yield torch.device(request.param)
    torch.set_default_device("cpu")
