"""BLAS takes one thread in fits whose products are small, and only there and then."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from balinp import BALIClassifier, BALIRegressor
from balinp.threads import SMALL, calm_threads

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


def counts():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_small_products_take_one_thread_and_large_ones_what_they_took():
    before = counts()
    with calm_threads(1_000, SMALL // 1_000 - 1):
        assert set(counts()) <= {1}
    assert counts() == before
    with calm_threads(1_000, SMALL // 1_000):
        assert counts() == before


@pytest.mark.parametrize("make", [BALIRegressor, BALIClassifier])
def test_fits_of_small_tables_are_calm_and_leave_no_trace(make):
    rng, seen, before = np.random.default_rng(0), [], counts()
    X = rng.standard_normal((40, 2))
    make((3,), max_iterations=4, random_state=0).fit(X, X[:, 0] > 0, callbacks=lambda *_: seen.append(counts()))
    assert all(set(count) <= {1} for count in seen)
    assert len(seen) == 4
    assert counts() == before
    with pytest.raises(ValueError, match="boom"):
        make((3,), max_iterations=4, random_state=0).fit(X, X[:, 0] > 0, callbacks=_fails)
    assert counts() == before


def _fails(*_):
    raise ValueError("boom")
