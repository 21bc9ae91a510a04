"""A short, seeded fuzzing of whatever reads a file or a user's table; the long run is ``benchmarks/fuzz.py``."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from balinp import BALIRegressor, ModelFileError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_four_hundred_inputs_are_used_or_refused(fuzz):
    counts, broken = fuzz.fuzz(400, seed=20240611, say=lambda line: None)
    assert not broken, "\n".join(broken)
    for name in ("model file", "checkpoint", "table", "column list", "balinp predict"):
        assert counts[name, "used"] > 0, f"the fuzzer of {name} no longer makes inputs that get through"
        assert counts[name, "refused"] > 0, f"the fuzzer of {name} no longer makes inputs that are refused"


@pytest.mark.parametrize("wrong", ["exception", "warning", "NaN", "hang"])
def test_a_broken_contract_is_seen(fuzz, monkeypatch, wrong):
    """The fuzzer's own negative controls."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)

    def misbehave(corpus, generator):
        if wrong == "exception":
            raise KeyError("deep inside")
        if wrong == "warning":
            warnings.warn("leaked", RuntimeWarning, stacklevel=1)
        if wrong == "NaN":
            fuzz.finite(np.array([np.nan]), "result")
        while wrong == "hang":
            pass
        return "used"

    monkeypatch.setattr(fuzz, "TARGETS", (("target", 1.0, misbehave),))
    counts, broken = fuzz.fuzz(1, seed=0, say=lambda line: None)
    assert counts["target", "broken"] == len(broken) == 1


@pytest.fixture
def saved(tmp_path) -> tuple[BALIRegressor, Path]:
    X = np.random.default_rng(0).standard_normal((12, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = BALIRegressor((2,), max_iterations=2, draws=3, random_state=0).fit(X, X[:, 0])
    model.save(tmp_path / "model.npz")
    return model, tmp_path / "model.npz"


def test_a_compressed_bomb_is_refused_before_it_is_unpacked(saved):
    """50 MiB of zeros in 50 kB: np.savez never compresses, so nothing can be larger than the file."""
    _, path = saved
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(50 * 2**20))
    path.write_bytes(file.getvalue())
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelFileError, match="compressed"):
        BALIRegressor.load(path)


def test_claims_of_size_are_refused_before_they_are_allocated(saved):
    """An npy header of 10¹⁸ numbers, and central-directory entries that all point to the same bytes."""
    _, path = saved
    buffer, file = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("header.npy", buffer.getvalue() + bytes(64))
    path.write_bytes(file.getvalue())
    with pytest.raises(ModelFileError, match="not a balinp model"):
        BALIRegressor.load(path)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("header.npy", bytes(4096))
        archive.filelist += archive.filelist * 40
    path.write_bytes(file.getvalue())
    with pytest.raises(ModelFileError, match="larger than the file"):
        BALIRegressor.load(path)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_any_of_numpys_generators_is_kept(saved, kind):
    model, path = saved
    model._generator = np.random.Generator(getattr(np.random, kind)(3))
    model._generator.standard_normal(7)
    model.save(path)
    assert BALIRegressor.load(path)._generator.random() == model._generator.random()
