"""What balinp says when it refuses: which argument, what it got, and the remedy."""

from __future__ import annotations


class BALIError(Exception):
    """Base of every refusal; each concrete one is also a ValueError or a TypeError."""


class InvalidArgumentError(BALIError, ValueError):
    """A value that cannot be used."""


class InvalidTypeError(BALIError, TypeError):
    """An argument of a kind that cannot be used."""


class NotFittedError(BALIError, ValueError, AttributeError):
    """A method that needs a fitted estimator was called before fit (scikit-learn's convention)."""


class ModelFileError(BALIError, ValueError):
    """A file that is not a model this version can read."""


class BackendUnavailableError(BALIError, ValueError):
    """The array library that was asked for is not installed or has no device."""


class DivergenceError(BALIError, ValueError):
    """Training left the range of finite numbers."""


class NotPositiveDefiniteError(BALIError, ValueError):
    """A matrix whose Cholesky factorisation fails.

    Attributes: name of the matrix, layer (None outside a network), size, pivot_index (from 0),
    pivot_value (the value that should have been positive), dtype.
    """

    def __init__(
        self, name: str, size: int, pivot_index: int, pivot_value: float, dtype: str, layer: int | None = None
    ):
        self.name, self.size, self.dtype, self.layer = name, size, dtype, layer
        self.pivot_index, self.pivot_value = pivot_index, pivot_value
        where = "" if layer is None else f" of layer {layer}"
        remedy = "use a larger prior precision, float64, or remove duplicate or non-finite columns"
        if "noise" in name:  # the curvature over the outputs; with the tied prior nothing of the prior is added to it
            remedy = "use the setting damping (0.01, say), float64, or the independent prior"
        # a deep network whose steps overshoot has inputs beside which its prior is lost in rounding
        diverged = "" if layer is None else "; if the loss was rising, the setting trust_region=True keeps it from it"
        super().__init__(
            f"{name}{where} ({size} x {size}, {dtype}) is not positive definite: pivot {pivot_index} is "
            f"{pivot_value:.6g}, must be > 0 and finite; {remedy}{diverged}"
        )

    def in_layer(self, layer: int) -> NotPositiveDefiniteError:
        """The same error, naming the layer (counted from 0) that it happened in."""
        return NotPositiveDefiniteError(self.name, self.size, self.pivot_index, self.pivot_value, self.dtype, layer)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.name, self.size, self.pivot_index, self.pivot_value, self.dtype, self.layer)


class DataConversionWarning(UserWarning):
    """Data came in another shape than asked for, and were understood all the same (scikit-learn's convention)."""


class ConvergenceWarning(UserWarning):
    """The budget of iterations ended before the training loss stopped falling."""


class InterruptedFitWarning(UserWarning):
    """Ctrl-C ended the fit before it had come to its end; the model is what it had learnt."""
