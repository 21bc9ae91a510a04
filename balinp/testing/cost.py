"""Counting multiplications: a NumPy backend whose arrays note every matrix product, and the formula they must obey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np


def multiplications_per_row(widths: Sequence[int], probed: bool, measured: bool = False, uneven: bool = False) -> int:
    """Multiply-adds per row of one iteration's matrix products, ``widths`` as of MLP; ``probed``: with curvature
    probes; ``measured``: with the spread of the outputs at a draw; ``uneven``: with noise that depends on the input,
    whose rows have weights of their own in AᵀA.   (eq:cost)
    """
    layers = [(d + 1, k) for d, k in zip(widths, widths[1:])]
    forward = sum(d * k for d, k in layers)
    backward = (2 if probed else 1) * sum(k * (d - 1) for d, k in layers[1:])
    sums = sum((2 if uneven else 1) * d * d + d * k + k * k for d, k in layers)
    probes = sum(k * k for _, k in layers[:-1]) if probed else 0
    return forward + backward + sums + probes + (2 * forward if measured else 0)


def counting_backend(numpy_backend: Any) -> tuple[Any, list[int]]:
    """(the backend with counting arrays, a list whose one number is the count so far).

    A product of p × q by q × r counts pqr; products with vectors are not counted.
    """
    counter = [0]

    class Counted(np.ndarray):
        """An array that adds its matrix products to ``counter``."""

        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
            plain = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]
            if out is not None:
                options["out"] = tuple(np.asarray(x) for x in out)
            result = getattr(ufunc, method)(*plain, **options)
            if ufunc is np.matmul and min(np.ndim(x) for x in plain) >= 2:
                counter[0] += int(np.size(result)) * int(np.shape(plain[0])[-1])
            if out is not None:
                return out[0]
            return result.view(Counted) if isinstance(result, np.ndarray) else result

    class Library:
        """numpy, whose new arrays count."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        @staticmethod
        def empty(*shape: Any, **options: Any) -> Any:
            return np.empty(*shape, **options).view(Counted)

        @staticmethod
        def stack(*arrays: Any, **options: Any) -> Any:
            return np.stack(*arrays, **options).view(Counted)

        @staticmethod
        def dot(left: Any, right: Any) -> Any:
            return np.matmul(np.asarray(left).view(Counted), right)

    library: Any = Library()
    return replace(numpy_backend, xp=library), counter
