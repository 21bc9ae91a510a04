"""The few choices of a fit, with the defaults that every figure in the README was measured with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from .errors import InvalidArgumentError

STEPS = ("natural", "isotropic", "gradient")


@dataclass(frozen=True)
class Settings:
    """How a fit proceeds: our choices where the abstract is silent. ``preset("literal")`` is its bare reading.
    (eq:defaults)

    step: the pseudo-target step S and noise Σ of a layer. "natural": S = Σ = (curvature)⁻¹; "isotropic": S = Σ = I/b
        with b the mean curvature; "gradient": S = αI.
    step_size: α, for step="gradient" only.
    noise: "step" takes Σ = S; "residual" (step="gradient" only) the residual covariance of the pseudo-targets.
    gradients: "sampled", at weights drawn from the tempered posterior, or "mean", at the posterior mean.
    prior: "independent", N(0, 1/τ) on every weight, or "tied", precision Σ⁻¹ ⊗ λI.
    prior_precision: τ/fan-in (λ for the tied prior); with evidence=True where it starts.
    evidence: re-estimate τ of each layer by MacKay's fixed point.
    rate: β, the weight of the newest batch in the moving averages, which start bias-corrected: β_t = max(β, 1/(t+1)).
    step_scale: the share of the way to the layer's new posterior mean that one iteration goes, β included; None: β_t,
        which makes the step the moving average over the natural parameters (eq:ema).
    warmup: iterations at the mean, with noise and prior held fixed, before sampling and re-estimation begin.
    joint_iterations: the first so many iterations take the step of the joint regression (balinp.joint), at the mean,
        cut like a trust region's; sampling begins when they and the warm-up are over. 0: none.
    averaging: ω, the weight of the newest means in the moving average that a fit ends at: of its iterations at drawn
        weights, at first the plain one; None: the last means.
    tempering: covariances are multiplied by min(max_temperature, tempering / effective parameters per target), counted
        by what a draw does to the outputs; None: never.
    damping: δ of S = Σ = (B + δ tr(B)/K · I)⁻¹; with the tied prior B may need it to be invertible.
    noise_floor: the smallest noise variance that learning may reach; learn_noise=False keeps it as given.
    trust_region: the step is cut until the objective falls (at the weights the gradient was taken at) and grows again
        after success, never above step_scale; allowed_rise: by so many nats per target it may rise all the same.
    batch_size: rows of a mini-batch; None: all of them.
    block_rows: rows worked on at once; None: the backend's (a CPU is fastest with blocks that fit the cache, a GPU with
        large ones).
    block_bytes: the memory that those rows may take (passes.rows_in_memory): wide networks get fewer rows; None: the
        backend's.
    max_iterations: calls of bali_step, rounded up to whole passes over the data.
    tolerance, patience: stop when the median training NLL of the last ``patience`` iterations (with mini-batches as
        many whole passes, three at least) is less than ``tolerance`` nats below that of the ``patience`` before;
        tolerance 0: never.
    """

    step: str = "natural"
    step_size: float = 1.0
    noise: str = "step"
    gradients: str = "sampled"
    prior: str = "independent"
    prior_precision: float = 0.1
    evidence: bool = True
    rate: float = 0.3
    step_scale: float | None = 0.15
    warmup: int = 10
    joint_iterations: int = 0
    averaging: float | None = None
    tempering: float | None = 0.2
    max_temperature: float = 0.15
    damping: float = 0.0
    noise_floor: float = 1e-4
    learn_noise: bool = True
    trust_region: bool = False
    allowed_rise: float = 0.0
    batch_size: int | None = None
    block_rows: int | None = None
    block_bytes: int | None = None
    max_iterations: int = 600
    tolerance: float = 0.01
    patience: int = 60

    def __post_init__(self) -> None:
        _choice("step", self.step, STEPS)
        _choice("noise", self.noise, ("step", "residual"))
        _choice("gradients", self.gradients, ("sampled", "mean"))
        _choice("prior", self.prior, ("independent", "tied"))
        if self.noise == "residual" and self.step != "gradient":
            raise InvalidArgumentError(f"noise='residual' goes with step='gradient' only, got step={self.step!r}")
        for name in ("step_size", "prior_precision", "noise_floor", "max_temperature"):
            _number(name, getattr(self, name), 0, float("inf"))
        _number("rate", self.rate, 0, 1, closed=True)
        if self.step_scale is not None:
            _number("step_scale", self.step_scale, 0, 1, closed=True)
        if self.averaging is not None:
            _number("averaging", self.averaging, 0, 1, closed=True)
        if self.tempering is not None:
            _number("tempering", self.tempering, 0, float("inf"))
        for name in ("damping", "tolerance", "allowed_rise"):
            if getattr(self, name) != 0:
                _number(name, getattr(self, name), 0, float("inf"))
        for name, least in (
            ("warmup", 0),
            ("joint_iterations", 0),
            ("max_iterations", 1),
            ("patience", 1),
            ("block_rows", 1),
            ("block_bytes", 1),
            ("batch_size", 1),
        ):
            check_integer(name, getattr(self, name), least, optional=name.startswith(("block", "batch")))
        if self.joint_iterations and self.prior != "independent":
            raise InvalidArgumentError(
                f"joint_iterations go with prior='independent' only, got prior={self.prior!r}; set joint_iterations=0"
            )

    @classmethod
    def preset(cls, name: str | None = None, **changes: Any) -> Settings:
        """Named settings with ``changes`` on top.   (eq:defaults)

        None: the defaults, for regression. "classification": fixed prior, small batches, sampling from the start.
        "literal": the abstract's reading alone: T = H − αG with noise αI, tied prior λI, gradients at the mean, the
        whole step, no tempering, evidence, warm-up or learning of the noise.
        Raises InvalidArgumentError for an unknown preset or setting.
        """
        known = {f.name for f in fields(cls)}
        for change in changes:
            if change not in known:
                raise InvalidArgumentError(f"there is no setting {change!r}; the settings are {sorted(known)}")
        if name not in PRESETS:
            raise InvalidArgumentError(f"preset must be one of {list(PRESETS)}, got {name!r}")
        return replace(PRESETS[name], **changes)


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidArgumentError(f"{name} must be one of {allowed}, got {value!r}")


def _number(name: str, value: Any, low: float, high: float, closed: bool = False) -> None:
    number = isinstance(value, (int, float)) or hasattr(value, "__float__")
    if (
        isinstance(value, (bool, str))
        or not number
        or not isfinite(value)
        or not (low < value < high or (closed and value == high))
    ):
        raise InvalidArgumentError(
            f"{name} must be a number above {low:g} and {'at most' if closed else 'below'} {high:g}, got {value!r}"
        )


def check_integer(name: str, value: Any, least: int, optional: bool = False) -> None:
    """Raise InvalidArgumentError, naming ``name``, unless ``value`` is an integer of at least ``least`` (or None where
    that is ``optional``).   (eq:defaults)"""
    if optional and value is None:
        return
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise InvalidArgumentError(
            f"{name} must be an integer of at least {least}{' or None' if optional else ''}, got {value!r}"
        )


PRESETS = {
    None: Settings(),
    "classification": Settings(
        prior_precision=0.015,
        evidence=False,
        rate=0.1,
        step_scale=0.1,
        warmup=0,
        max_temperature=1.0,
        tolerance=0.001,
        patience=120,
    ),
    "literal": Settings(
        step="gradient",
        gradients="mean",
        prior="tied",
        prior_precision=1.0,
        evidence=False,
        rate=1.0,
        step_scale=None,
        warmup=0,
        tempering=None,
        learn_noise=False,
    ),
}
