"""Lines of code that work on NumPy: those that break on CuPy, and those that are right on both.

Each runs with ``xp`` the namespace, ``np`` NumPy, ``linalg_raises`` a context manager (cupyx.errstate(linalg="raise"),
or nothing on NumPy) and these arrays of the namespace: a (3, 3) symmetric positive definite, b (3, 2), v (3,), n (4,)
integers 0 to 3. A mistake ends in an exception where it is refused. ``quiet`` mistakes are those that real CuPy lets
through, slowly or with a wrong result: the double refuses them all the same.
"""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """What is wrong, the code, and whether real CuPy says nothing."""

    what: str
    code: str
    quiet: bool = False


MISTAKES = (
    Mistake("implicit conversion by asarray", "np.asarray(a)"),
    Mistake("implicit conversion by array", "np.array([v, v])"),
    Mistake("implicit conversion by a list of scalars", "np.array([x for x in v])"),
    Mistake("implicit conversion on assignment", "host = np.zeros(3); host[:] = v"),
    Mistake("device + host", "v + np.ones(3)"),
    Mistake("host + device", "np.ones(3) + v"),
    Mistake("host @ device", "np.eye(3) @ a"),
    Mistake("device @ host", "a @ np.eye(3)"),
    Mistake("host array added in place", "v += np.ones(3)"),
    Mistake("device array added to a host array in place", "host = np.ones(3); host += v"),
    Mistake("0-d host array", "v * np.array(2.0)"),
    Mistake("comparison with a host array", "v > np.zeros(3)"),
    Mistake("ufunc of device and host", "xp.maximum(v, np.zeros(3))"),
    Mistake("where with a host branch", "xp.where(v > 0, v, np.zeros(3))"),
    Mistake("stack of device and host", "xp.stack([v, np.ones(3)])"),
    Mistake("concatenate of device and host", "xp.concatenate([v, np.ones(3)])"),
    Mistake("einsum of device and host", "xp.einsum('ij,j->i', a, np.ones(3))", quiet=True),
    Mistake("host array assigned into a device array", "b[:, 0] = np.ones(3)"),
    Mistake("a NumPy ufunc of a device array", "np.exp(v)", quiet=True),
    Mistake("a NumPy function of a device array", "np.sum(a, axis=0)", quiet=True),
    Mistake("numpy.linalg of a device array", "np.linalg.norm(v)", quiet=True),
    Mistake("zeros_like of a host array", "xp.zeros_like(np.ones(3))", quiet=True),
    Mistake("broadcast_to of a host array", "xp.broadcast_to(np.ones(3), (2, 3))"),
    Mistake("sum of a list", "xp.sum([1.0, 2.0])"),
    Mistake("mean of a Python number", "xp.mean(3.0)"),
    Mistake("maximum of a list", "xp.maximum(v, [0.0, 0.0, 0.0])"),
    Mistake("a list of device and host numbers", "xp.asarray([xp.sum(v), 1.0])"),
    Mistake("range(argmax)", "range(xp.argmax(v))"),
    Mistake("a list indexed by argmax", "['x', 'y', 'z'][xp.argmax(v)]"),
    Mistake("a slice up to argmax", "v[: xp.argmax(v)]", quiet=True),
    Mistake("a shape from the device", "xp.zeros(xp.max(n))"),
    Mistake("a size from the device", "xp.eye(xp.max(n))"),
    Mistake("an axis from the device", "xp.sum(a, axis=xp.argmin(v) * 0)"),
    Mistake("reshape to a size from the device", "a.reshape(xp.max(n) * 3)"),
    Mistake("sum(where=)", "xp.sum(v, where=v > 0)"),
    Mistake("mean(where=)", "v.mean(where=v > 0)"),
    Mistake("max(initial=)", "xp.max(v, initial=0)"),
    Mistake("a method's max(initial=)", "v.max(initial=0)"),
    Mistake("ufunc(where=)", "xp.log(v, out=v, where=v > 0)"),
    Mistake("einsum(out=)", "xp.einsum('ij,jk->ik', a, b, out=b)"),
    Mistake("item(index)", "a.item(0)"),
    Mistake("a function that CuPy lacks", "xp.nested_iters"),
    Mistake("a method that CuPy lacks", "v.resize(4)"),
    Mistake("setflags", "v.setflags(write=False)"),
    Mistake("LAPACK's cho_solve", "import scipy.linalg; scipy.linalg.cho_solve((a, True), b)"),
    Mistake("SciPy's special functions", "import scipy.special; scipy.special.erf(v)", quiet=True),
    Mistake("a @= b changes the array in place", "alias = a; a @= a; assert alias is a", quiet=True),
    Mistake("text", "xp.asarray(['a', 'b'])"),
    Mistake("objects", "xp.zeros(3, dtype=object)"),
    Mistake("astype(str)", "v.astype(str)"),
    Mistake("indexing by a host array", "v[np.array([0, 2])]", quiet=True),
    Mistake("indexing by a list", "v[[0, 2]]", quiet=True),
    Mistake(
        "a gather out of range, expected to raise",
        "try:\n    v[xp.asarray([0, 7])]\nexcept IndexError:\n    pass\nelse:\n    raise ValueError",
        quiet=True,
    ),
    Mistake(
        "take out of range, expected to raise",
        "try:\n    xp.take(v, xp.asarray([7]))\nexcept IndexError:\n    pass\nelse:\n    raise ValueError",
        quiet=True,
    ),
    Mistake("an index twice in an assignment", "v[xp.asarray([0, 0])] = v[:2]", quiet=True),
    Mistake(
        "cholesky expected to raise by itself",
        "try:\n    xp.linalg.cholesky(-a)\nexcept np.linalg.LinAlgError:\n    pass\nelse:\n    raise ValueError",
    ),
    Mistake(
        "a failed cholesky expected to be NaN",
        "try:\n    bad = xp.linalg.cholesky(a - 5 * xp.eye(3))\nexcept np.linalg.LinAlgError:\n    pass\n"
        "else:\n    assert not bool(xp.all(xp.isfinite(bad)))",
        quiet=True,
    ),
    Mistake("a Generator's normal", "xp.random.default_rng(0).normal(size=3)"),
    Mistake("a Generator's permutation", "xp.random.default_rng(0).permutation(3)"),
    Mistake("a Generator's choice", "xp.random.default_rng(0).choice(3)"),
    Mistake("hash of an array", "{(v.shape, bytes(3)): 0}[v if xp is not np else (v.shape, bytes(3))]"),
    Mistake("a NumPy Generator writing into the array", "np.random.default_rng(0).standard_normal(out=v)"),
    Mistake("json of a device scalar", "import json; json.dumps(float(v[0]) if xp is np else v[0])"),
    Mistake("a boolean array as a number of a loop", "[0] * xp.sum(n)"),
)

CORRECT = (
    "a @ b + v[:, None]",
    "2.5 * v - 1 / (1 + xp.exp(-v))",
    "np.float64(2) * v",
    "xp.sum(a, axis=0, keepdims=True) / a.shape[0]",
    "xp.einsum('ij,jk->ik', a, b)",
    "xp.where(v > 0, v, 0)",
    "xp.maximum(v, 0)",
    "xp.clip(v, -1, 1)",
    "xp.stack([v, 2 * v]).mean(axis=1)",
    "xp.concatenate([b, b[:1]], axis=0)",
    "xp.moveaxis(b[None], 0, 1).reshape(3, -1)",
    "xp.broadcast_to(xp.eye(3)[None], (2, 3, 3)) * v",
    "xp.diagonal(a).copy()",
    "a.T @ a.astype('float64', copy=False)",
    "n[xp.asarray([0, 2])]",
    "v[v > -10]",
    "xp.asarray(np.arange(3.0)) + v",
    "xp.asarray([1.0, 2.0], dtype='float64')",
    "xp.asarray([xp.sum(v), xp.max(v)])",
    "range(int(xp.argmax(v)))",
    "float(xp.trace(a))",
    "bool(xp.all(xp.isfinite(a)))",
    "[float(x) for x in v]",
    "xp.linalg.eigh(a)[0]",
    "with linalg_raises():\n    result = xp.linalg.cholesky(a)",
    "try:\n    with linalg_raises():\n        xp.linalg.cholesky(-a)\n        result = 0.0\n"
    "except np.linalg.LinAlgError:\n    result = 1.0",
    "out = xp.empty((3, 4)); out[:, :2] = b; out[:, 2:] = 1; result = out",
    "c = v.copy(); c += 1; c *= v; result = c",
    "xp.exp(v, out=v); result = v",
    "result = len(v), v.ndim, v.size, v.dtype.kind == 'f'",
    "(n[:, None] == xp.arange(4)[None, :]).astype('float32')",
    "result = format(xp.sum(v), '.3f')",
)
