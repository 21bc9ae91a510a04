"""Which array library runs: chosen by name, imported when asked for, refused in one clear line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp import NUMPY, BackendUnavailableError, InvalidArgumentError, get_backend
from balinp.backend import register_backend
from balinp.testing.device import cupy, cupyx


@pytest.fixture
def fresh():
    """No backend remembered from before or for after."""
    get_backend.cache_clear()
    yield
    get_backend.cache_clear()


def refusal() -> str:
    with pytest.raises(BackendUnavailableError) as caught:
        get_backend("cupy")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_backends_are_chosen_by_name():
    assert get_backend() is NUMPY is get_backend("numpy")
    with pytest.raises(InvalidArgumentError, match=r"backend must be 'numpy' or 'cupy', got 'torch'"):
        get_backend("torch")


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_cupy_that_cannot_be_imported_is_refused_with_the_remedy():
    with pytest.raises(BackendUnavailableError, match=r"pip install 'balinp\[gpu\]'"):
        get_backend("cupy")


def test_importing_balinp_imports_no_cupy():
    root = str(Path(balinp.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); import balinp; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_cupy_the_extra_is_named(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'balinp[gpu]'" in refusal()


def test_without_a_driver_that_is_said(fresh, monkeypatch):
    """What the bare wheel does: it imports, and raises at the first allocation."""

    def no_driver(*args):
        raise RuntimeError("cudaErrorInsufficientDriver:\nCUDA driver version is insufficient")

    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(arange=no_driver))
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace())
    text = refusal()
    assert "cannot run on a device (cudaErrorInsufficientDriver: CUDA driver version is insufficient)" in text
    assert "check the NVIDIA driver" in text


def test_without_cudas_libraries_that_is_said(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setitem(sys.modules, "cupyx.scipy.linalg", None)
    assert "CUDA's libraries" in refusal()


def test_what_runs_is_handed_out(fresh, monkeypatch):
    """The double in CuPy's place: probed, and made once."""
    for name, module in {"cupy": cupy, "cupyx": cupyx, "cupyx.scipy.linalg": 1, "cupyx.scipy.special": 1}.items():
        monkeypatch.setitem(sys.modules, name, module)
    backend = get_backend("cupy")
    assert backend.name == "cupy"
    assert backend.xp is cupy
    assert get_backend("cupy") is backend


def test_registered_backends_are_known_by_name(fresh):
    register_backend("another", lambda: NUMPY)
    assert get_backend("another") is NUMPY


def test_a_cpu_only_install_never_imports_cupy_in_a_fit():
    root = str(Path(balinp.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); sys.modules['cupy'] = sys.modules['cupyx'] = None\n"
        "import numpy as np, balinp\n"
        "X = np.arange(20.0)[:, None]; m = balinp.BALIRegressor((3,), max_iterations=2, random_state=0)\n"
        "m.set_params(settings={'tolerance': 0}).fit(X, X[:, 0]).predict(X)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
def test_cupy_runs_a_kernel(cupy_backend):
    assert cupy_backend.floats(cupy_backend.xp.sum(cupy_backend.asarray(np.arange(4.0)))) == [6.0]
