"""The device double: every planted mistake is refused, every correct line passes, and both are true of CuPy itself."""

from __future__ import annotations

import ast
import contextlib
import copy
import operator

import device_snippets
import numpy as np
import pytest

from balinp import NUMPY, NotPositiveDefiniteError, get_backend
from balinp.testing import assert_residual, comparison_residual
from balinp.testing.device import DOUBLE, DeviceArray, count_transfers, cupy, cupyx
from balinp.testing.device_api import API, CUPY_VERSION, check_call, signature

MISTAKES = [pytest.param(m, id=m.what) for m in device_snippets.MISTAKES]
CORRECT = [pytest.param(code, id=code.split("\n")[0]) for code in device_snippets.CORRECT]


def run(code: str, backend, linalg_raises=contextlib.nullcontext):
    """Execute a snippet on ``backend``; its ``result``, or the value of its last line."""
    host = np.random.default_rng(3)
    a, b, v = host.standard_normal((3, 3)), host.standard_normal((3, 2)), np.array([0.5, 2.0, -1.0])
    arrays = {"a": a @ a.T + np.eye(3), "b": b, "v": v, "n": np.arange(4)}
    names = {name: backend.xp.asarray(value.copy()) for name, value in arrays.items()}
    names |= {"xp": backend.xp, "np": np, "linalg_raises": linalg_raises}
    tree = ast.parse(code)
    if "result" not in code and isinstance(tree.body[-1], ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("result", ast.Store())], tree.body[-1].value)
    exec(compile(ast.fix_missing_locations(tree), "<snippet>", "exec"), names)
    return names.get("result")


def refuse(code: str, backend) -> None:
    with pytest.raises(Exception):  # noqa: B017 - which one is CuPy's affair
        run(code, backend)


def test_there_are_enough_of_both():
    assert len(MISTAKES) >= 30
    assert len({m.code for m in device_snippets.MISTAKES}) == len(MISTAKES)
    assert len(CORRECT) >= 20


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_works_on_numpy_and_is_refused_by_the_double(mistake):
    if "xp.nested_iters" not in mistake.code:
        run(mistake.code.replace("v.resize(4)", "v.resize(4, refcheck=False)"), NUMPY)
    refuse(mistake.code, DOUBLE)


@pytest.mark.gpu
@pytest.mark.parametrize("mistake", [p for p in MISTAKES if not p.values[0].quiet])
def test_cupy_refuses_the_mistake_as_well(mistake, cupy_backend):
    refuse(mistake.code, cupy_backend)


@pytest.mark.parametrize("code", CORRECT)
def test_a_correct_line_passes_the_double(code):
    assert_same(run(code, DOUBLE, raising(cupyx)), run(code, NUMPY), DOUBLE, code)


@pytest.mark.gpu
@pytest.mark.parametrize("code", CORRECT)
def test_a_correct_line_passes_cupy(code, cupy_backend):
    import cupyx

    assert_same(run(code, cupy_backend, raising(cupyx)), run(code, NUMPY), cupy_backend, code)


def raising(module):
    return lambda: module.errstate(linalg="raise")


def assert_same(computed, expected, backend, what: str) -> None:
    if not isinstance(computed, backend.xp.ndarray):
        assert computed == expected
        return
    computed = backend.to_host(computed)
    assert computed.dtype == np.asarray(expected).dtype
    if computed.dtype.kind == "f":
        assert_residual(comparison_residual(computed, expected, scale=10.0), what, "double")
    else:
        assert np.array_equal(computed, expected)


def test_the_double_has_no_attribute_or_operator_that_cupy_lacks():
    mine = {name for name in dir(DeviceArray) if not name.startswith("_") or name.startswith("__")}
    assert {f"ndarray.{name}" for name in mine - set(dir(object)) - {"__slots__", "__getattr__"}} <= API.keys()


def test_what_the_snapshot_says_of_the_rules():
    """The facts that the double stands on, read from the real CuPy."""
    assert CUPY_VERSION.startswith("14.")
    assert not {"ndarray.__index__", "ndarray.__imatmul__", "ndarray.__contains__"} & API.keys()
    assert not {f"random.Generator.{name}" for name in ("normal", "permutation", "choice")} & API.keys()
    assert "cupyx.scipy.linalg.cho_solve" not in API
    assert "cupyx.scipy.linalg.solve_triangular" in API
    assert list(signature("exp").parameters) == ["x", "out", "casting", "dtype"]
    assert {"where", "initial"}.isdisjoint(signature("sum").parameters)
    assert {"where", "initial"}.isdisjoint(signature("ndarray.max").parameters)
    assert "out" not in signature("einsum").parameters
    assert set(API.values()) & {"opaque"} == set()


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("sum", (), {}),
        ("sum", (1, 0, None, None, False, 1), {}),
        ("ndarray.astype", (1, "float32"), {"device": 0}),
        ("linalg.cholesky", (1,), {"upper": True}),
        ("exp", (), {"x": 1}),
        ("stack", ([1], 0, None, "float32"), {}),
    ],
)
def test_calls_that_do_not_fit_a_signature_are_refused(name, args, kwargs):
    with pytest.raises(TypeError, match="of CuPy 14"):
        check_call(name, args, kwargs)


def test_results_share_memory_as_views_do():
    a = cupy.asarray(np.arange(6.0).reshape(2, 3))
    a[:, 1] = 7
    a.T[0] += 1
    row = a[1]
    row *= 2
    assert np.array_equal(a.get(), [[1, 7, 2], [8, 14, 10]])
    host = np.arange(3.0)
    moved = cupy.asarray(host)
    moved += 1
    assert np.array_equal(host, np.arange(3.0))
    assert cupy.asarray(moved) is moved
    assert cupy.array(moved) is not moved
    moved.get()[:] = 9
    assert np.array_equal(moved.get(), [1, 2, 3])
    twin = copy.deepcopy(moved)
    twin += 1
    assert np.array_equal(moved.get(), [1, 2, 3])


def test_a_failed_factorisation_is_finite_garbage(dtype):
    good = np.array([[4.0, 2.0], [2.0, 3.0]], dtype=dtype)
    for bad in (-good, np.array([[1, 2], [2, 1]], dtype=dtype), np.array([[np.nan, 0], [0, 1]], dtype=dtype)):
        factor = cupy.linalg.cholesky(cupy.asarray(bad))
        assert factor.dtype == dtype
        assert np.all(np.isfinite(factor.get()))
    assert cupy.linalg.eigh(cupy.asarray(np.full((2, 2), np.nan)))[1].shape == (2, 2)
    assert np.all(np.isfinite(cupy.linalg.solve(cupy.asarray(0 * good), cupy.asarray(good)).get()))
    with cupyx.errstate(linalg="raise"):
        with pytest.raises(np.linalg.LinAlgError):
            cupy.linalg.cholesky(cupy.asarray(-good))
        with cupyx.errstate(linalg="ignore"):
            cupy.linalg.cholesky(cupy.asarray(-good))
    assert np.array_equal(cupy.linalg.cholesky(cupy.asarray(good)).get(), np.linalg.cholesky(good))


def test_waits_and_uploads_are_counted_with_their_places():
    a = cupy.asarray(np.eye(2))
    with count_transfers() as outer:
        for wait in (float, bool, int, complex, repr, lambda s: s.item(), lambda s: s.get(), lambda s: s.tolist()):
            wait(a[0, 0])
        assert len(outer.waits) == 8
        assert outer.uploads == []
        with count_transfers() as inner:
            a[a > 0], cupy.unique(a), cupy.nonzero(a), cupy.where(a), cupy.asnumpy(a)
            cupy.asarray(np.ones(2)), cupy.asarray(2.0), cupy.where(a > 0, a, 0), a[cupy.asarray(a > 0)[0, 0]]
        assert (len(inner.waits), len(inner.uploads)) == (6, 2)
    assert len(outer.waits) == 14
    with count_transfers() as transfers:
        DOUBLE.floats(a[0, 0], 2.0, a[1, 1])
        DOUBLE.cholesky(a)
    assert [place.split(":")[1] for place in transfers.waits] == [
        "test_waits_and_uploads_are_counted_with_their_places"
    ] * 2
    before = len(transfers.waits)
    float(a[0, 0])
    assert len(transfers.waits) == before


def test_streams_of_random_numbers_differ_from_numpys():
    drawn = cupy.random.default_rng(0).standard_normal(3).get()
    assert not np.any(drawn == np.random.default_rng(0).standard_normal(3))
    assert np.array_equal(drawn, cupy.random.default_rng(0).standard_normal(3).get())


def test_the_double_is_a_backend_by_name():
    assert get_backend("double") is DOUBLE
    with pytest.raises(NotPositiveDefiniteError, match="pivot 1 is -3"):
        DOUBLE.cholesky(cupy.asarray(np.array([[1.0, 2.0], [2.0, 1.0]])))


@pytest.mark.parametrize("value", ["text", None, [1.0], {}])
@pytest.mark.parametrize("combine", [operator.add, operator.mul, operator.lt, operator.matmul])
def test_operators_refuse_what_is_no_number(value, combine):
    with pytest.raises(TypeError):
        combine(cupy.asarray(np.ones(1)), value)
