"""balinp: Bayesian Layerwise Inference (BALI), the minimal NumPy/CuPy reference."""

from .activations import ACTIVATIONS, Activation, get_activation
from .backend import NUMPY, Backend, get_backend
from .checkpoint import Checkpoint
from .classifier import BALIClassifier
from .errors import (
    BackendUnavailableError,
    BALIError,
    ConvergenceWarning,
    DataConversionWarning,
    DivergenceError,
    InterruptedFitWarning,
    InvalidArgumentError,
    InvalidTypeError,
    ModelFileError,
    NotFittedError,
    NotPositiveDefiniteError,
)
from .heteroscedastic import Heteroscedastic
from .joint import conjugate_gradients, curvature_product, joint_regression
from .joint_posterior import JointPosterior, joint_precision, with_joint_draws
from .likelihoods import Categorical, Gaussian
from .matrix_normal import MatrixNormal
from .mlp import MLP, Activations
from .predictive import Predictive, predict_joint, predict_linearized, predict_monte_carlo, probit_probabilities
from .regression import Prior, layer_posterior, log_evidence, pseudo_targets
from .regressor import BALIRegressor
from .settings import Settings
from .solver import bali_step
from .state import BALIState, LayerState, initial_state
from .statistics import LayerStatistics
from .training import FitResult, IterationRecord, fit

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "NUMPY",
    "Activation",
    "Activations",
    "BALIClassifier",
    "BALIError",
    "BALIRegressor",
    "BALIState",
    "Backend",
    "BackendUnavailableError",
    "Categorical",
    "Checkpoint",
    "ConvergenceWarning",
    "DataConversionWarning",
    "DivergenceError",
    "FitResult",
    "Gaussian",
    "Heteroscedastic",
    "InterruptedFitWarning",
    "InvalidArgumentError",
    "InvalidTypeError",
    "IterationRecord",
    "JointPosterior",
    "LayerState",
    "LayerStatistics",
    "MatrixNormal",
    "ModelFileError",
    "NotFittedError",
    "NotPositiveDefiniteError",
    "Predictive",
    "Prior",
    "Settings",
    "bali_step",
    "conjugate_gradients",
    "curvature_product",
    "fit",
    "get_activation",
    "get_backend",
    "initial_state",
    "joint_precision",
    "joint_regression",
    "layer_posterior",
    "log_evidence",
    "predict_joint",
    "predict_linearized",
    "predict_monte_carlo",
    "probit_probabilities",
    "pseudo_targets",
    "with_joint_draws",
]
