"""Sums over data: blocks, trees, weights, moving averages (identity 6), to eps and, on dyadic data, to the last bit."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import InvalidArgumentError, LayerStatistics
from balinp.testing import (
    assert_residual,
    comparison_residual,
    layer_problems,
    orthogonal,
    random_layer_problem,
    row_counts,
    seeds,
    sizes,
)

pytestmark = pytest.mark.usefixtures("on_backend")

SUMS = ("gram", "cross", "target_gram", "curvature")
RATES = [0.0, 0.25, 0.5, 1.0]


def exact_rows(seed: int, rows: int, d: int, k: int) -> tuple[np.ndarray, ...]:
    """Inputs, targets and probes in quarters: float64 adds and multiplies them without rounding."""
    generator = np.random.default_rng(seed)
    return tuple(generator.integers(-8, 9, (rows, n)) / 4 for n in (d, k, k))


def exact(inputs, targets, probes) -> LayerStatistics:
    return LayerStatistics.from_batch(inputs, targets, probes=probes)


def assert_equal(a: LayerStatistics, b: LayerStatistics) -> None:
    for field in fields(LayerStatistics):
        assert np.array_equal(getattr(a, field.name), getattr(b, field.name)), field.name


def assert_close(
    a: LayerStatistics, b: LayerStatistics, inputs, targets, probes, what: str, statement: str = "eq:statistics"
) -> None:
    """Every sum agrees to rounding of its N terms: error against n · eps · ‖left‖ ‖right‖."""
    norms = {name: float(np.linalg.norm(x.astype(float))) for name, x in zip("atz", (inputs, targets, probes))}
    assert a.count == pytest.approx(b.count, rel=1e-15)
    for name, (left, right) in zip(SUMS, ("aa", "at", "tt", "zz")):
        computed, expected = getattr(a, name), getattr(b, name)
        assert computed.dtype == inputs.dtype, name
        ratio = comparison_residual(computed, expected, scale=norms[left] * norms[right], size=max(len(inputs), 1))
        assert_residual(ratio, f"{what}: {name}", statement)


def float_rows(problem) -> tuple[np.ndarray, ...]:
    z = problem.generator().standard_normal(problem.targets.shape).astype(problem.inputs.dtype)
    return problem.inputs, problem.targets, z


@pytest.mark.equation("eq:statistics")
@given(problem=layer_problems())
def test_sums_are_the_sums_over_rows_one_by_one(problem):
    a, t, z = float_rows(problem)
    s = LayerStatistics.from_batch(a, t, probes=z)
    wide = [x.astype(np.float64) for x in (a, t, z)]
    expected = LayerStatistics(
        float(len(a)), *(np.einsum("ni,nj->ij", wide[i], wide[j]) for i, j in ((0, 0), (0, 1), (1, 1), (2, 2)))
    )
    assert_close(s, expected, a, t, z, "matrix products against sums over rows")
    for name in ("gram", "target_gram", "curvature"):
        assert np.array_equal(getattr(s, name), getattr(s, name).T)


@pytest.mark.equation("eq:statistics")
@given(d=sizes(5), k=sizes(5), rows=row_counts(10), seed=seeds(), cut=st.floats(0, 1))
def test_any_split_into_blocks_is_exact_on_dyadic_data(d, k, rows, seed, cut):
    a, t, z = exact_rows(seed, rows, d, k)
    at = round(cut * rows)
    whole = exact(a, t, z)
    assert_equal(exact(a[:at], t[:at], z[:at]) + exact(a[at:], t[at:], z[at:]), whole)
    assert_equal(exact(a[at:], t[at:], z[at:]) + exact(a[:at], t[:at], z[:at]), whole)


def tree_sum(parts: list, generator: np.random.Generator):
    """The sum of ``parts`` in a random order, bracketed at random."""
    parts = list(parts)
    while len(parts) > 1:
        i, j = generator.choice(len(parts), 2, replace=False)
        together = parts[i] + parts[j]
        parts = [p for n, p in enumerate(parts) if n not in (i, j)] + [together]
    return parts[0]


@pytest.mark.equation("eq:statistics")
@given(seed=seeds(), d=sizes(3), k=sizes(3), rows=sizes(10))
def test_any_tree_of_sums_is_exact_on_dyadic_data(seed, d, k, rows):
    a, t, z = exact_rows(seed, rows, d, k)
    single = [exact(a[n : n + 1], t[n : n + 1], z[n : n + 1]) for n in range(rows)]
    assert_equal(tree_sum(single, np.random.default_rng(seed)), exact(a, t, z))


@pytest.mark.equation("eq:statistics")
@given(problem=layer_problems(rows=sizes()), pieces=st.integers(1, 7))
def test_any_tree_of_sums_agrees_to_rounding(problem, pieces):
    a, t, z = float_rows(problem)
    generator = problem.generator()
    groups = np.array_split(generator.permutation(len(a)), pieces)  # a row permutation and blocks, some empty
    parts = [LayerStatistics.from_batch(a[g], t[g], probes=z[g]) for g in groups]
    whole = LayerStatistics.from_batch(a, t, probes=z)
    assert_close(tree_sum(parts, generator), whole, a, t, z, "tree of sums of permuted rows")


@pytest.mark.equation("eq:statistics")
@given(problem=layer_problems(rows=sizes(10)), seed=seeds())
def test_a_repeated_row_is_a_weight(problem, seed):
    a, t, z = float_rows(problem)
    weights = np.random.default_rng(seed).integers(0, 4, len(a)).astype(a.dtype)
    repeated = np.repeat(np.arange(len(a)), weights.astype(int))
    by_rows = LayerStatistics.from_batch(a[repeated], t[repeated], probes=z[repeated])
    by_weight = LayerStatistics.from_batch(a, t, weights, z)
    assert_close(by_weight, by_rows, 2 * a, 2 * t, 2 * z, "weights against repeated rows")
    assert by_weight.count == len(repeated)
    for name in ("gram", "target_gram", "curvature"):
        assert np.array_equal(getattr(by_weight, name), getattr(by_weight, name).T)


@pytest.mark.equation("eq:statistics")
@given(seed=seeds(), d=sizes(3), k=sizes(3), rows=row_counts(5), weight=st.integers(1, 4))
def test_scaling_counts_every_row_that_often(seed, d, k, rows, weight):
    a, t, z = exact_rows(seed, rows, d, k)
    repeated = [np.concatenate([x] * weight) for x in (a, t, z)]
    assert_equal(exact(a, t, z).scale(weight), exact(*repeated))


@pytest.mark.equation("eq:statistics")
@given(problem=layer_problems())
def test_zero_rows_add_nothing(problem):
    a, t, z = float_rows(problem)
    s, none = LayerStatistics.from_batch(a, t, probes=z), LayerStatistics.from_batch(a[:0], t[:0], probes=z[:0])
    assert none.count == 0
    assert all(not np.any(getattr(none, name)) for name in SUMS)
    assert_equal(s + none, s)
    assert_equal(none + s, s)


@pytest.mark.equation("eq:ema")
@given(seed=seeds(), d=sizes(3), k=sizes(3), rate=st.sampled_from(RATES))
def test_decay_is_the_weighted_mean_exactly(seed, d, k, rate):
    old, new = exact(*exact_rows(seed, 3, d, k)), exact(*exact_rows(seed + 1, 2, d, k))
    mixed = old.decay(new, rate)
    for name in SUMS:
        assert np.array_equal(getattr(mixed, name), (1 - rate) * getattr(old, name) + rate * getattr(new, name))
    assert mixed.count == (1 - rate) * 3 + rate * 2
    assert_equal(old.scale(1 - rate) + new.scale(rate), mixed)


@pytest.mark.equation("eq:ema")
@given(seed=seeds(), steps=st.integers(1, 5), rate=st.sampled_from(RATES))
def test_the_moving_average_forgets_geometrically(seed, steps, rate):
    """After n steps batch t has weight β(1−β)^(n−1−t), the start (1−β)^n."""
    batches = [exact(*exact_rows(seed + t, 2, 2, 2)) for t in range(steps + 1)]
    running = batches[0]
    for batch in batches[1:]:
        running = running.decay(batch, rate)
    expected = batches[0].scale((1 - rate) ** steps)
    for t, batch in enumerate(batches[1:]):
        expected = expected + batch.scale(rate * (1 - rate) ** (steps - 1 - t))
    assert_equal(running, expected)


@pytest.mark.equation("eq:ema")
@given(problem=layer_problems(), seed=seeds())
def test_rate_one_is_the_new_batch_to_the_last_bit(problem, seed):
    new = problem.statistics
    d, k = problem.prior.mean.shape
    old = random_layer_problem(seed, 3, (d, k), problem.inputs.dtype).statistics
    assert_equal(old.decay(new, 1), new)
    assert_equal(old.decay(new, 0), old)


@pytest.mark.equation("eq:ema")
@given(seed=seeds(), d=sizes(3), k=sizes(3), parts=st.sampled_from([1, 2, 4]))
def test_batches_scaled_by_total_over_rows_average_to_the_whole(seed, d, k, parts):
    """N/m, not m/N: the mean over the batches of one pass, each scaled by N/m, is the full sum."""
    a, t, z = exact_rows(seed, 8, d, k)
    m = 8 // parts
    batches = [exact(a[i : i + m], t[i : i + m], z[i : i + m]).scale(8 / m) for i in range(0, 8, m)]
    total = batches[0]
    for batch in batches[1:]:
        total = total + batch
    assert_equal(total.scale(1 / parts), exact(a, t, z))


@given(seed=seeds(), d=sizes(3), k=sizes(3), rows=row_counts(5))
def test_mapping_targets_is_exact_on_dyadic_data(seed, d, k, rows):
    a, t, z = exact_rows(seed, rows, d, k)
    matrix = np.random.default_rng(seed + 1).integers(-8, 9, (k, k)) / 4
    assert_equal(exact(a, t, z).map_targets(matrix), exact(a, t @ matrix, z))


@given(problem=layer_problems())
def test_mapping_targets_by_a_rotation(problem):
    a, t, z = float_rows(problem)
    R = orthogonal(problem.generator(), t.shape[1], t.dtype)
    mapped = LayerStatistics.from_batch(a, t, probes=z).map_targets(R)
    direct = LayerStatistics.from_batch(a, t @ R, probes=z)
    size = max(len(a), t.shape[1])
    scale = float(np.linalg.norm(t.astype(float)))
    ratio = comparison_residual(mapped.cross, direct.cross, scale=scale * float(np.linalg.norm(a)), size=size)
    assert_residual(ratio, "AᵀT R", "eq:statistics")
    ratio = comparison_residual(mapped.target_gram, direct.target_gram, scale=scale**2, size=size)
    assert_residual(ratio, "Rᵀ TᵀT R", "eq:statistics")


@given(problem=layer_problems(dtype="float32"))
def test_float32_stays_float32_under_every_operation(problem):
    s = problem.statistics
    for other in (s + s, s.scale(2.5), s.decay(s, 0.3), s.map_targets(np.eye(len(s.target_gram), dtype="float32"))):
        assert {getattr(other, name).dtype for name in SUMS} == {np.dtype("float32")}


@given(problem=layer_problems(rows=sizes(10)))
def test_the_callers_arrays_are_left_alone(problem):
    a, t, z = float_rows(problem)
    weights = np.full(len(a), 2, dtype=a.dtype)
    before = [x.copy() for x in (a, t, z, weights)]
    for x in (a, t, z, weights):
        x.flags.writeable = False
    s = LayerStatistics.from_batch(a, t, weights, z)
    assert s.decay(s + s, 0.5).scale(2).gram is not s.gram
    assert all(np.array_equal(x, y) for x, y in zip((a, t, z, weights), before))


def test_rows_that_disagree_are_refused():
    a, t = np.ones((3, 2)), np.ones((3, 1))
    for bad in ((a, t[:2]), (a, t, np.ones(2)), (a, t, None, np.ones((2, 1)))):
        with pytest.raises(InvalidArgumentError, match="must have one number of rows"):
            LayerStatistics.from_batch(*bad)


def test_statistics_of_different_layers_cannot_be_added():
    s = LayerStatistics.from_batch(np.ones((3, 2)), np.ones((3, 1)))
    for d, k in ((3, 1), (2, 2)):
        other = LayerStatistics.from_batch(np.ones((3, d)), np.ones((3, k)))
        for combine in (s.__add__, lambda o: s.decay(o, 0.5)):
            with pytest.raises(InvalidArgumentError, match="one layer only"):
                combine(other)


def test_numpy_scalars_do_not_change_the_dtype():
    """float64 scalars and weights meet float32 sums in every careless caller."""
    inputs, targets = np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)
    sums = LayerStatistics.from_batch(inputs, targets, weights=np.array([1, 2, 0]))
    for result in (sums, sums.scale(np.float64(2)), sums.decay(sums, np.float64(0.5)), sums + sums):
        assert {result.gram.dtype, result.cross.dtype, result.target_gram.dtype} == {np.dtype(np.float32)}


def test_negative_weights_are_refused():
    with pytest.raises(InvalidArgumentError, match="weights must not be negative, got -1"):
        LayerStatistics.from_batch(np.ones((2, 1)), np.ones((2, 1)), weights=np.array([1.0, -1.0]))
