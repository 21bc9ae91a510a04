"""Dask: the same iteration as on one machine, the same bits for any workers and when one is killed, little traffic."""

import contextlib
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

distributed = pytest.importorskip("distributed", reason="Dask is not installed; pip install 'balinp[distributed]'")
dask = pytest.importorskip("dask", reason="Dask is not installed; pip install 'balinp[distributed]'")
da = pytest.importorskip("dask.array", reason="Dask's arrays are not installed; pip install 'balinp[distributed]'")

from balinp import (  # noqa: E402
    MLP,
    BALIClassifier,
    BALIRegressor,
    Categorical,
    Gaussian,
    InvalidArgumentError,
    InvalidTypeError,
    Settings,
    bali_step,
    fit,
    initial_state,
)
from balinp.blocks import held_rows  # noqa: E402
from balinp.distributed import ChunkBatch, DaskRows  # noqa: E402
from balinp.heteroscedastic import Heteroscedastic  # noqa: E402
from balinp.joint import curvature_product  # noqa: E402
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
N, WIDTHS = 90, (3, 5, 4, 2)
CHUNKS = {"one": (90,), "ragged": (1, 40, 0, 7, 42), "many": (9,) * 10}


@contextlib.contextmanager
def cluster(workers, processes):
    quiet = {"dashboard_address": ":0", "silence_logs": 50}
    with (  # on a busy machine stealing may send a lagging worker's rows to another: no bit changes, but traffic
        dask.config.set({"distributed.scheduler.work-stealing": False}),
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, processes=processes, **quiet) as one,
        distributed.Client(one),
    ):
        yield one


@pytest.fixture(scope="module")
def processes():
    """A cluster of two worker processes."""
    with cluster(2, True) as two:
        yield two


def problem(kind="gaussian", n=N, widths=WIDTHS, **changes):
    """A state that samples and learns all that can be learnt, and data."""
    rng = np.random.default_rng(0)
    k = widths[-1]
    x, y = rng.standard_normal((n, widths[0])), rng.standard_normal((n, k))
    likelihood = {"gaussian": Gaussian(np.full(k, 0.3)), "categorical": Categorical()}.get(kind, Heteroscedastic())
    mlp = MLP(widths, "tanh")
    if kind == "categorical":
        y = rng.integers(0, k, n)
    elif kind != "gaussian":
        y = y[:, : k // 2]
    settings = Settings(**{"warmup": 1, "block_rows": 16, **changes})
    state = initial_state(mlp, likelihood, rng, settings)
    for _ in range(3):
        state = bali_step(state, x, y, rng, settings)
    return state, x, y, settings


def spread(array, chunks):
    return da.from_array(array, chunks=(chunks, *array.shape[1:]))


def arrays(state):
    """Everything that an iteration computes, as arrays."""
    for l, layer in enumerate(state.layers):
        yield f"mean of layer {l}", layer.posterior.mean
        yield f"P of layer {l}", layer.posterior.row_precision
        yield f"Σ of layer {l}", layer.posterior.column_covariance
        yield f"gram of layer {l}", layer.statistics.gram
        yield f"cross of layer {l}", layer.statistics.cross
        yield f"curvature of layer {l}", layer.statistics.curvature
        scalars = layer.prior_precision, layer.effective_parameters, layer.log_evidence, layer.determined
        yield f"scalars of layer {l}", np.array(scalars)
    yield "scalars", np.array([state.temperature, state.step_scale, state.training_loss, state.parameters_per_target])
    noise = getattr(state.likelihood, "noise_variance", getattr(state.likelihood, "reference_precision", 1.0))
    yield "noise", np.asarray(noise)


def ratios(one, other):
    """Residual ratio of all that an iteration computes, the means by their normal equations."""
    conditions = [np.linalg.cond(layer.posterior.row_precision) for layer in other.layers]
    conditions = [
        c * np.linalg.cond(layer.posterior.column_covariance) for c, layer in zip(conditions, other.layers, strict=True)
    ]
    for (name, a), (_, b) in zip(arrays(one), arrays(other), strict=True):
        condition = conditions[int(name[-1])] if "layer" in name else max(conditions)
        plain = name.startswith(("gram", "cross", "curvature", "P"))
        scale = 1.0 if name.startswith("cross") else 0.0  # sums of terms of order one, which may cancel
        yield name, comparison_residual(a, b, 1.0 if plain else condition, scale, N)


def identical(one, other):
    for (name, a), (_, b) in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.equation("eq:block-sum")
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gaussian", {}),
        ("categorical", {}),
        ("heteroscedastic", {"trust_region": True}),
        ("gaussian", {"step": "gradient", "noise": "residual", "prior": "tied"}),
    ],
)
def test_an_iteration_is_that_of_one_machine(processes, kind, changes, chunks):
    state, x, y, settings = problem(kind, **changes)
    weight = np.random.default_rng(1).uniform(0.5, 2, N) if len(chunks) > 1 else None
    here = bali_step(state, x, y, np.random.default_rng(7), settings, 200.0, weight)
    rows = held_rows(spread(x, chunks), spread(y, N), weight)  # y in other chunks, the weights in memory
    there = bali_step(state, *rows[:2], np.random.default_rng(7), settings, 200.0, rows[2])
    for name, ratio in ratios(there, here):
        assert_residual(ratio, f"{name}, {kind} in chunks {chunks}", "eq:block-sum")
    other = bali_step(state, x, y, np.random.default_rng(8), settings, 200.0, weight)  # negative control: other noise
    sampled = settings.step != "gradient"
    assert not sampled or max(ratio for _, ratio in ratios(other, here)) > THRESHOLD


def test_the_bits_are_the_same_for_any_number_of_workers(processes):
    state, x, y, settings = problem()
    chunks = CHUNKS["many"]
    run = replace(settings, max_iterations=4, tolerance=0)

    def fitted(chunks=chunks):
        data = spread(x, chunks), spread(y, chunks)
        return fit(*data, state.mlp, state.likelihood, np.random.default_rng(3), run, state=state).state

    two = fitted()
    identical(fitted(), two)
    with cluster(3, False):
        identical(fitted(), two)
        assert any(np.any(a != b) for (_, a), (_, b) in zip(arrays(fitted((90,))), arrays(two), strict=True))


def test_a_killed_worker_changes_no_bit(processes):
    """kill -9 of one of the two workers after the third iteration; the nanny starts another in its place."""
    state, x, y, settings = problem()
    chunks, run = CHUNKS["many"], replace(settings, max_iterations=6, tolerance=0)
    killed = []

    def kill(after, record):
        if after.iteration == state.iteration + 3:
            client = distributed.get_client()
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    def fitted(callback):
        data = spread(x, chunks), spread(y, chunks)
        generator = np.random.default_rng(3)
        return fit(*data, state.mlp, state.likelihood, generator, run, state=state, callbacks=callback).state

    undisturbed = fitted(None)
    identical(fitted(kill), undisturbed)
    assert len(killed) == 1
    distributed.get_client().wait_for_workers(2, timeout=60)
    assert killed[0] not in distributed.get_client().run(os.getpid).values()


@pytest.mark.equation("eq:ema")
def test_mini_batches_are_a_partition_and_equal_the_same_rows_on_one_machine(processes):
    state, x, y, settings = problem()
    w, chunks = np.random.default_rng(1).uniform(0.5, 2, N), CHUNKS["ragged"]
    rows = held_rows(spread(x, chunks), spread(y, chunks), spread(w, chunks))
    chunks = rows[0].chunks  # without the empty one
    starts, seen = np.cumsum([0, *chunks]), []
    for batch in rows[0].batches(4, np.random.default_rng(5)):
        parts = [start + batch.rows(c, n) for c, (start, n) in enumerate(zip(starts, chunks))]
        order = np.concatenate(parts).astype(int)
        np.testing.assert_array_equal(rows[0][batch].gathered(), x[order])
        here = bali_step(state, x[order], y[order], np.random.default_rng(7), settings, float(N), w[order])
        data = [r[batch] for r in rows]
        state = bali_step(state, *data[:2], np.random.default_rng(7), settings, float(N), data[2])
        for name, ratio in ratios(state, here):
            assert_residual(ratio, f"{name}, batch {batch.index}", "eq:ema")
        seen.extend(order)
    assert sorted(seen) == list(range(N))
    assert seen != sorted(seen)


def test_a_pass_of_mini_batches(processes):
    """fit takes ⌈N/batch_size⌉ batches with a new key per pass, and reports the mean loss over the rows."""
    state, x, y, settings = problem(n=N)
    run = replace(settings, batch_size=30, max_iterations=6, tolerance=0)
    data = held_rows(spread(x, 20), spread(y, 20), None)[:2]
    result = fit(*data, state.mlp, state.likelihood, np.random.default_rng(3), run, state=state)
    generator, losses = np.random.default_rng(3), []
    for _ in range(2):
        for batch in data[0].batches(3, generator):
            rows = data[0][batch], data[1][batch]
            state = bali_step(state, *rows, generator, run, float(N))
            losses.append(state.training_loss * len(rows[0]) / N)
    identical(result.state, state)
    assert [r.train_nll for r in result.history] == pytest.approx([sum(losses[:3]), sum(losses[3:])], rel=1e-14)


def test_batches_depend_on_key_and_chunk():
    rows = {key: [ChunkBatch(key, i, 3).rows(0, 10) for i in range(3)] for key in (1, 2)}
    assert [len(r) for r in rows[1]] == [ChunkBatch(1, i, 3).size(10) for i in range(3)] == [3, 3, 4]
    assert not np.array_equal(np.concatenate(rows[1]), np.concatenate(rows[2]))
    assert not np.array_equal(rows[1][0], ChunkBatch(1, 0, 3).rows(1, 10))


def count_from_now():
    """Count what this process (the scheduler runs in the tests') writes to TCP connections."""
    from distributed.comm.tcp import TCP

    if not hasattr(TCP, "balinp_sent"):
        write = TCP.write

        async def counted(self, *args, **kwargs):
            size = await write(self, *args, **kwargs)
            TCP.balinp_sent += size
            return size

        TCP.write = counted
    TCP.balinp_sent = 0


def test_traffic_does_not_grow_with_the_rows(processes):
    """400 000 rows of 5 features, 16 MB: five iterations write less than two bits per row and iteration to connections.

    The better of two rounds counts: what is sent once, not in every iteration, is in the first. Negative control: the
    rows brought here once are more than that.
    """
    state, *_, settings = problem(widths=(5, 6, 1))
    x = da.random.default_rng(0).standard_normal((400_000, 5), chunks=(100_000, 5))
    rows = held_rows(x, x[:, :1] ** 2, None)
    settings = replace(settings, block_rows=2048, warmup=0)
    client, rng, rounds = distributed.get_client(), np.random.default_rng(0), []
    for _ in range(2):
        count_from_now()
        client.run(count_from_now)
        for _ in range(5):
            state = bali_step(state, *rows[:2], rng, settings)
        written = [counted_so_far(), *client.run(counted_so_far).values()]
        assert min(written) > 0
        rounds.append(sum(written))
    assert min(rounds) < 5 * 400_000 / 4
    count_from_now()
    client.run(count_from_now)
    rows[0].gathered()
    assert sum([counted_so_far(), *client.run(counted_so_far).values()]) > 5 * 400_000 / 4


def counted_so_far():
    from distributed.comm.tcp import TCP

    return TCP.balinp_sent


@pytest.mark.equation("eq:curvature-product")
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_product_with_the_curvature_is_that_of_one_machine(processes, chunks):
    """And a fit of joint steps takes rows at workers; control: of half the rows it is another."""
    state, x, y, settings = problem()
    v = [np.random.default_rng(1).standard_normal(m.shape) for m in state.means]
    w = np.random.default_rng(2).uniform(0.5, 2, N)

    def product(x, w):
        return curvature_product(state.mlp, state.likelihood, state.means, v, x, settings, w)

    rows = held_rows(da.from_array(x, chunks=(chunks, 3)), da.from_array(w, chunks=(chunks,)))
    for there, here, half in zip(product(*rows), product(x, w), product(x[:45], w[:45]), strict=True):
        assert_residual(comparison_residual(there, here, size=N), f"{len(chunks)} chunks", "eq:curvature-product")
        assert comparison_residual(half, here, size=N) > THRESHOLD
    joint = {"hidden_widths": (4,), "max_iterations": 6, "random_state": 0, "draws": 5, "validation_fraction": 0}
    model = BALIRegressor(**joint).fit(da.from_array(x, chunks=(chunks, 3)), da.from_array(y, chunks=(chunks, 2)))
    assert np.all(np.isfinite(model.predict(x)))


def test_the_regressor_takes_dask_arrays(processes):
    """Checks, scales, relevance, fit, held-out noise and predictions where the rows are; dtypes as in memory."""
    _, x, y, _ = problem(n=600)
    x, y = (3 * x + 1).astype("float32"), (np.sin(x[:, 0]) + 0.1 * y[:, 0]).astype("float32")
    layerwise = {"joint_iterations": 0, "warmup": 10, "rate": 0.3}  # joint steps have a test of their own
    model = {"hidden_widths": (6,), "max_iterations": 3, "random_state": 0, "draws": 5, "settings": layerwise}
    here = BALIRegressor(**model).fit(x.astype(float), y.astype(float))
    there = BALIRegressor(**model).fit(da.from_array(x, chunks=(250, 2)).astype(float), spread(y.astype(float), 170))
    for a, b in zip(there.state_.means, here.state_.means, strict=True):
        assert comparison_residual(a, b, 1e3, size=600) < THRESHOLD  # seven iterations, each of some hundred eps
    assert there.noise_variance_ == pytest.approx(here.noise_variance_, rel=1e-6)  # of a search to 1e-5 in log σ²
    mean, std = there.predict(spread(x, 200), return_std=True)
    assert (mean.chunks, mean.dtype, mean.shape) == (((200,) * 3,), np.float64, (600,))
    for lazy, now in zip((mean, std), there.predict(x, return_std=True), strict=True):
        assert comparison_residual(lazy.compute(), now, 10.0, size=600) < THRESHOLD
    single = BALIRegressor(**model).fit(spread(x, 200), spread(y, 200))
    assert {m.dtype for m in single.state_.means} == {np.dtype("float32")}
    assert there.score(spread(x, 200), spread(y, 200)) == pytest.approx(there.score(x, y), rel=1e-6)
    stream = BALIRegressor(**model).partial_fit(spread(x, 200), spread(y, 200)).partial_fit(spread(x, 100), y)
    assert stream.n_rows_seen_ == 1200


def test_the_classifier_takes_dask_arrays(processes):
    x = problem(n=300)[1]
    labels = np.where(x[:, 0] > 0, "left", "right")
    w = np.where(np.arange(300) < 20, 0.0, 1.0)
    labels[:20] = "nowhere"  # rows without weight
    model = BALIClassifier(hidden_widths=(6,), max_iterations=20, batch_size=None, random_state=0)
    watched = spread(x[20:], 100), spread(labels[20:], 100)
    model.fit(spread(x, 80), spread(labels, 110), spread(w, 300), test=watched)
    assert model.history_[-1].test_nll < model.history_[0].test_nll
    assert list(model.classes_) == ["left", "right"]
    assert model.score(spread(x[20:], 100), spread(labels[20:], 100)) > 0.9
    probabilities = model.predict_proba(spread(x, 100))
    assert probabilities.shape == (300, 2)
    assert comparison_residual(probabilities.compute(), model.predict_proba(x), 10.0, size=300) < THRESHOLD
    assert model.predict(spread(x, 100)).compute().tolist() == model.predict(x).tolist()


def test_what_is_refused(processes):
    _, x, y, _ = problem(n=60)
    model = BALIRegressor(hidden_widths=(4,), max_iterations=2)
    bad = x.copy()
    bad[47, 1] = np.nan
    with pytest.raises(InvalidArgumentError, match="X contains NaN in row 47, column 1"):
        model.fit(spread(bad, 20), y)
    with pytest.raises(InvalidArgumentError, match="as many rows as X"):
        model.fit(spread(x, 20), spread(y[:-1], 20))
    with pytest.raises(InvalidArgumentError, match="compute_chunk_sizes"):
        model.fit(spread(x, 20)[spread(x, 20)[:, 0] > 0], y)
    with pytest.raises(InvalidArgumentError, match="must have 60 rows as x, got 59"):
        held_rows(spread(x, 20), y[:-1])
    with pytest.raises(InvalidArgumentError, match="y contains infinity"):
        model.fit(spread(x, 20), spread(np.where(y == y.max(), np.inf, y), 20))
    with pytest.raises(InvalidTypeError, match="must be a Dask array, got Delayed"):
        held_rows(spread(x, 20).to_delayed()[0, 0], y)


def test_without_a_cluster_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr("balinp.distributed.get_client", lambda: (_ for _ in ()).throw(ValueError("none")))
    with pytest.raises(InvalidArgumentError, match=r"make a dask\.distributed\.Client first"):
        DaskRows.of(da.ones((4, 2))).gathered()
