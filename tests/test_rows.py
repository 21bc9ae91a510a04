"""Rows that are not in memory: memory-mapped files, read by blocks and never whole; signs of probes by position."""

import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from balinp import (
    MLP,
    BALIClassifier,
    BALIRegressor,
    Categorical,
    ConvergenceWarning,
    Gaussian,
    InvalidArgumentError,
    Settings,
)
from balinp import rows as rows_module
from balinp.backend import NUMPY, RowSigns
from balinp.blocks import reduce_blocks
from balinp.distinct import distinct_rows
from balinp.heteroscedastic import Heteroscedastic
from balinp.passes import block_sums, data_sums, rows_in_memory
from balinp.rows import MappedRows, gathered, row_source
from balinp.scales import Standardizer
from balinp.testing.device import DOUBLE
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
assert issubclass(ConvergenceWarning, UserWarning)
N, D = 700, 4


def table(dtype="float32", labels=False):
    rng = np.random.default_rng(0)
    x = (3 + 2 * rng.standard_normal((N, D))).astype(dtype)
    signal = np.sin(x[:, 0]) + x[:, 1]
    return x, (signal > 3).astype(np.int64) if labels else (signal + 0.1 * rng.standard_normal(N)).astype("float32")


def mapped(folder, array, name="x"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def regressor(**changes):
    return BALIRegressor(**{"hidden_widths": (8,), "max_iterations": 4, "random_state": 0, "draws": 7, **changes})


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "int16"])
@pytest.mark.parametrize("batch_size", [None, 200])
def test_a_mapped_table_gives_the_bits_of_the_same_array(tmp_path, dtype, batch_size):
    """The whole of BALIRegressor: checks, scales, relevance, held-out noise, fit, predictions."""
    x, y = table(dtype)
    inside = regressor(batch_size=batch_size).fit(x, y)
    file = mapped(tmp_path, x), mapped(tmp_path, y, "y")
    outside = regressor(batch_size=batch_size).fit(*file, test=file)
    for a, b in zip(inside.state_.means, outside.state_.means, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(inside.predict(x, return_std=True), outside.predict(file[0], return_std=True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert inside.noise_variance_ == outside.noise_variance_
    assert inside.score(x, y) == outside.score(*file)
    np.testing.assert_array_equal(inside.sample_y(x, 2), outside.sample_y(file[0], 2))


@pytest.mark.parametrize("as_text", [False, True])
def test_mapped_labels(tmp_path, as_text):
    x, y = table(labels=True)
    y = np.where(y, "yes", "no") if as_text else y
    model = partial(BALIClassifier, hidden_widths=(8,), max_iterations=6, random_state=0)
    file = mapped(tmp_path, x), mapped(tmp_path, y, "y")
    inside, outside = model().fit(x, y), model().fit(*file)
    np.testing.assert_array_equal(inside.predict_proba(x), outside.predict_proba(file[0]))
    assert inside.score(x, y) == outside.score(*file) > 0.5
    assert list(outside.classes_) == sorted(set(y))


def test_mapped_rows_with_weights_and_in_a_stream(tmp_path):
    x, y = table()
    w = np.random.default_rng(1).uniform(0.5, 2, N)
    order, weight = distinct_rows(x, y, w)  # the order that weighted rows in memory are put in; a file keeps its own
    file = mapped(tmp_path, x[order]), mapped(tmp_path, y[order], "y")
    for a, b in zip(regressor().fit(x, y, w).state_.means, regressor().fit(*file, weight).state_.means, strict=True):
        np.testing.assert_array_equal(a, b)
    file = mapped(tmp_path, x), mapped(tmp_path, y, "y")
    stream, mapped_stream = regressor(), regressor()
    for _ in range(3):
        stream.partial_fit(x, y)
        mapped_stream.partial_fit(*file)
    np.testing.assert_array_equal(stream.predict(x), mapped_stream.predict(file[0]))


def test_no_more_than_a_block_is_read_at_once(tmp_path, monkeypatch):
    """Every read of the file while fitting and predicting; by checks and scales 64 rows, by the fit 50."""
    x, y = table()
    file = mapped(tmp_path, x), mapped(tmp_path, y, "y")
    monkeypatch.setattr(rows_module, "BLOCK_NUMBERS", 64)
    monkeypatch.setattr("balinp.prediction.PREDICTED_BYTES", 1)
    monkeypatch.setattr("balinp.prediction.PREDICTIVE_ROWS", 64)
    read, true = [], MappedRows.__getitem__
    monkeypatch.setattr(MappedRows, "__getitem__", lambda self, r: read.append(len(self.values[r])) or true(self, r))
    model = regressor(settings={"block_rows": 50}, validation_fraction=0).fit(*file)
    assert model.predict(file[0]).shape == (N,)
    assert max(read) == 64
    assert sum(read) > 8 * N  # it was the file that was read


@pytest.mark.parametrize("weighted", [False, True])
def test_scales_measured_by_blocks(monkeypatch, weighted):
    x = table("float64")[0]
    x[:, 3] = 7.0
    w = np.random.default_rng(1).integers(0, 3, N).astype(float) if weighted else None
    whole = Standardizer.from_data(x, w)
    monkeypatch.setattr(rows_module, "BLOCK_NUMBERS", 9 * D)
    parts = Standardizer.from_data(x, w)
    for name in ("offset", "scale"):
        ratio = comparison_residual(getattr(parts, name), getattr(whole, name), size=N)
        assert ratio < THRESHOLD
    assert parts.offset[3] == 7.0
    rows = np.arange(N) if w is None else np.repeat(np.arange(N), w.astype(int))
    ratio = comparison_residual(parts.scale[:3], x[rows, :3].std(axis=0), condition=10.0, size=N)
    assert ratio < THRESHOLD


def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "BLOCK_NUMBERS", 64)
    x, y = table()
    x[641, 2], x[650, 0] = np.nan, np.inf
    with pytest.raises(InvalidArgumentError, match=r"X contains NaN in row 641, column 2 \(2 such"):
        regressor().fit(mapped(tmp_path, x), y)
    with pytest.raises(InvalidArgumentError, match="as many rows as X"):
        regressor().fit(mapped(tmp_path, table()[0]), y[:-1])
    with pytest.raises(InvalidArgumentError, match="must be non-negative"):
        regressor().fit(table()[0], y, np.where(np.arange(N) == 690, -1.0, 1.0))


def test_what_counts_as_mapped(tmp_path):
    file = mapped(tmp_path, table()[0])
    for rows in (file, np.asarray(file), file[3:], file[:, 1:]):
        assert isinstance(row_source(rows), MappedRows)
    for rows in (file[[1, 2]], file + 1, np.array(file), [[1.0]], None):
        assert row_source(rows) is None
    source = row_source(file)
    assert source.astype(np.float32) is source
    np.testing.assert_array_equal(gathered(source * np.arange(4.0)), file * np.arange(4.0))
    assert source.sum() == pytest.approx(np.sum(file, dtype=float), rel=1e-12)


# Blocks by a budget of memory


def network(kind, widths=(30, 40, 3), dtype="float64"):
    rng, k = np.random.default_rng(0), widths[-1]
    mlp = MLP(widths, "gelu")
    likelihood = {"gaussian": Gaussian(np.full(k, 0.5, dtype)), "categorical": Categorical()}.get(kind)
    targets = k
    if likelihood is None:
        mlp, likelihood = MLP((*widths[:-1], 2 * k), "gelu"), Heteroscedastic()
    y = rng.integers(0, k, 4000) if kind == "categorical" else rng.standard_normal((4000, targets)).astype(dtype)
    return mlp, likelihood, rng.standard_normal((4000, widths[0])).astype(dtype), y


@pytest.mark.equation("eq:cost")
@pytest.mark.parametrize("kind", ["gaussian", "categorical", "heteroscedastic"])
@pytest.mark.parametrize("widths", [(30, 40, 3), (5, 3), (4, 60, 60, 20)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_pass_stays_within_its_memory(kind, widths, dtype):
    """The peak over all blocks, sums included, is at most block_bytes, and not a tenth of it."""
    mlp, likelihood, x, y = network(kind, widths, dtype)
    budget = 4 * 2**20
    settings, rng = Settings(block_rows=10**9, block_bytes=budget), np.random.default_rng(0)
    weights = mlp.initial_weights(rng, dtype)
    w = np.ones(len(x), dtype)
    data_sums(mlp, likelihood, weights, x[:50], y[:50], rng, settings, w[:50])  # whatever is loaded once
    tracemalloc.start()
    data_sums(mlp, likelihood, weights, x, y, rng, settings, w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    used = min(budget, budget * len(x) / rows_in_memory(settings, mlp, x.dtype.itemsize))
    assert used / 10 < peak <= budget


@pytest.mark.equation("eq:cost")
def test_the_budget_cuts_the_rows_and_leaves_at_least_one():
    mlp = MLP((1000, 1000, 10))
    assert rows_in_memory(Settings(), MLP((10, 50, 1)), 8) == NUMPY.block_rows
    few, more = (rows_in_memory(Settings(block_bytes=size), mlp, 8) for size in (2**24, 2**25))
    assert 0 < few < more < NUMPY.block_rows
    assert abs(more - 2 * few) <= 1
    assert abs(rows_in_memory(Settings(block_bytes=2**24), mlp, 4) - 2 * few) <= 1
    assert rows_in_memory(Settings(block_bytes=1), mlp, 8) == 1


@pytest.mark.equation("eq:cost")
def test_a_block_is_the_backend_s_unless_the_settings_say_otherwise():
    tiny, wide = MLP((2, 3, 1)), MLP((1000, 1000, 10))
    other = replace(NUMPY, block_rows=77, block_bytes=2**20)
    assert rows_in_memory(Settings(), replace(tiny, backend=other), 8) == 77
    assert rows_in_memory(Settings(block_rows=9), replace(tiny, backend=other), 8) == 9
    few = rows_in_memory(Settings(), replace(wide, backend=other), 8)
    assert few == rows_in_memory(Settings(block_bytes=2**20), wide, 8) < 77
    assert rows_in_memory(Settings(block_bytes=2**21), replace(wide, backend=other), 8) > few
    assert DOUBLE.block_rows > NUMPY.block_rows  # a GPU's launches cost as much for few rows as for many
    assert DOUBLE.block_bytes > NUMPY.block_bytes


@pytest.mark.equation("eq:block-sum")
def test_blocks_are_combined_in_order_with_their_places():
    found = reduce_blocks(lambda start, x, y: [(start, len(x), y)], 3, np.arange(8), None)
    assert found == [(0, 3, None), (3, 3, None), (6, 2, None)]
    assert reduce_blocks(lambda start, x: 1, 3, np.arange(0)) is None


# Signs


@pytest.mark.equation("eq:draws")
@pytest.mark.parametrize("columns", [1, 3, 64, 100])
def test_signs_are_those_of_the_rows_wherever_a_block_begins(columns):
    signs = RowSigns(5)
    whole = signs(0, 300, columns)
    assert set(np.unique(whole)) == {-1, 1}
    for start, rows in ((0, 1), (1, 64), (63, 2), (64, 64), (299, 1), (17, 0)):
        np.testing.assert_array_equal(signs(start, rows, columns), whole[start : start + rows])
    assert np.any(RowSigns(6)(0, 300, columns) != whole)
    far = 10**12  # the stream is advanced, not drawn
    np.testing.assert_array_equal(signs(far, 100, columns)[40:], signs(far + 40, 60, columns))


@pytest.mark.equation("eq:draws")
def test_the_generator_gives_one_number_for_all_signs():
    one, other = np.random.default_rng(0), np.random.default_rng(0)
    signs = NUMPY.row_signs(one)
    assert signs == RowSigns(int(other.integers(2**63)))
    assert one.bit_generator.state == other.bit_generator.state


@pytest.mark.equation("eq:block-sum")
def test_a_pass_uses_the_signs_of_its_rows():
    mlp, likelihood, x, y = network("gaussian")
    x, y, rng = x[:200], y[:200], np.random.default_rng(1)
    weights = mlp.initial_weights(rng)
    signs = NUMPY.row_signs(np.random.default_rng(9))(0, 200, 3).astype(float)
    expected = block_sums(mlp, likelihood, weights, x, y, signs).layers[0].curvature
    got = data_sums(mlp, likelihood, weights, x, y, np.random.default_rng(9), Settings(block_rows=33), None)
    ratio = comparison_residual(got.layers[0].curvature, expected, size=200)
    assert_residual(ratio, "curvature of a pass in blocks of 33", "eq:block-sum")
    shifted = block_sums(mlp, likelihood, weights, x, y, np.roll(signs, 1, axis=0)).layers[0].curvature
    assert comparison_residual(shifted, expected, size=200) > THRESHOLD  # negative control


def test_a_checkpoint_of_mapped_rows(tmp_path):
    """A fit of a file, cut after its second iteration and resumed, has the bits of an uninterrupted one in memory."""
    x, y = table()
    file = mapped(tmp_path, x), mapped(tmp_path, y, "y")

    def cut(state, record):
        if state.iteration == 2:
            raise RuntimeError("cut")

    plain = regressor(relevance=False, validation_fraction=0)
    whole = plain.fit(x, y).state_.means
    kept = {"checkpoint": tmp_path / "kept.npz", "every": 0}
    with pytest.raises(RuntimeError, match="cut"):
        regressor(relevance=False, validation_fraction=0).fit(*file, callbacks=cut, **kept)
    resumed = regressor(relevance=False, validation_fraction=0).fit(*file, **kept)
    for a, b in zip(resumed.state_.means, whole, strict=True):
        np.testing.assert_array_equal(a, b)
