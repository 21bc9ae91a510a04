"""Every setting refuses what it cannot use, by name; presets are settings with a name."""

from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest

from balinp import InvalidArgumentError, Settings
from balinp.settings import check_integer

POSITIVE = ("step_size", "prior_precision", "noise_floor", "max_temperature", "tempering")
SHARES = ("rate", "step_scale")
COUNTS = ("max_iterations", "patience", "block_rows", "batch_size")
MAY_BE_ZERO = ("damping", "tolerance", "warmup")
CHOICES = {
    "noise": ("step",),
    "step": ("natural", "isotropic", "gradient"),
    "gradients": ("sampled", "mean"),
    "prior": ("independent", "tied"),
}


@pytest.mark.parametrize("name", POSITIVE + SHARES)
@pytest.mark.parametrize("bad", [0, -1.0, np.nan, np.inf, -np.inf, "1", True, None, [1.0]])
def test_positive_numbers(name, bad):
    if name in ("tempering", "step_scale") and bad is None:
        assert getattr(Settings(**{name: None}), name) is None  # never tempered; the rate itself
        return
    with pytest.raises(InvalidArgumentError, match=f"^{name} must"):
        Settings(**{name: bad})


@pytest.mark.parametrize("name", SHARES)
def test_shares_are_at_most_one(name):
    assert getattr(Settings(**{name: 1}), name) == 1
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be a number above 0 and at most 1"):
        Settings(**{name: 1 + 1e-12})


@pytest.mark.parametrize("name", [*COUNTS, "warmup"])
@pytest.mark.parametrize("bad", [-1, 0, 1.0, "3", True, np.nan])
def test_counts(name, bad):
    if bad == 0 and name == "warmup":
        assert Settings(warmup=0).warmup == 0
        return
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be an integer of at least"):
        Settings(**{name: bad})
    assert getattr(Settings(**{name: np.int64(3)}), name) == 3


@pytest.mark.parametrize("name", MAY_BE_ZERO)
def test_zero_switches_off(name):
    assert getattr(Settings(**{name: 0}), name) == 0
    with pytest.raises(InvalidArgumentError, match=f"^{name} must"):
        Settings(**{name: -1e-9})


def test_numbers_of_any_kind_are_numbers():
    assert Settings(rate=np.float32(0.25), damping=Fraction(1, 4), warmup=np.int64(3)).rate == 0.25


def test_only_sizes_of_batches_and_blocks_may_be_none_among_the_counts():
    for name in ("batch_size", "block_rows", "block_bytes"):
        assert getattr(Settings(**{name: None}), name) is None
    for name in ("max_iterations", "patience", "warmup", "joint_iterations"):
        with pytest.raises(InvalidArgumentError, match=name):
            Settings(**{name: None})
    with pytest.raises(InvalidArgumentError, match="draws must be an integer of at least 1, got None"):
        check_integer("draws", None, 1)


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name):
    for value in CHOICES[name]:
        assert getattr(Settings(**{name: value}), name) == value
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be one of .*'other'"):
        Settings(**{name: "other"})


def test_residual_noise_goes_with_the_gradient_step_only():
    assert Settings(step="gradient", noise="residual").noise == "residual"
    for step in ("natural", "isotropic"):
        with pytest.raises(InvalidArgumentError, match="noise='residual'"):
            Settings(step=step, noise="residual")


def test_presets():
    assert Settings.preset() == Settings.preset(None) == Settings()
    literal = Settings.preset("literal")
    expected = {
        "step": "gradient",
        "noise": "step",
        "gradients": "mean",
        "prior": "tied",
        "evidence": False,
        "rate": 1.0,
        "step_scale": None,
        "warmup": 0,
        "tempering": None,
        "damping": 0.0,
        "learn_noise": False,
        "trust_region": False,
        "batch_size": None,
    }
    assert {name: getattr(literal, name) for name in expected} == expected
    assert Settings.preset("literal", rate=0.5) == replace(literal, rate=0.5)
    assert Settings.preset(rate=0.5) == Settings(rate=0.5)


def test_unknown_presets_and_settings_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"preset must be .*'poetic'"):
        Settings.preset("poetic")
    with pytest.raises(InvalidArgumentError, match="no setting 'learning_rate'"):
        Settings.preset("literal", learning_rate=0.1)
    with pytest.raises(InvalidArgumentError, match=r"^rate must"):
        Settings.preset("literal", rate=2.0)


def test_settings_are_frozen_and_all_documented():
    with pytest.raises(AttributeError):
        Settings().rate = 0.5
    for field in fields(Settings):
        assert field.name in (Settings.__doc__ or "")
