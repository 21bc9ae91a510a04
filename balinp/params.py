"""scikit-learn's conventions for hyperparameters, without needing scikit-learn."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Self

from .errors import InvalidArgumentError


def kin(own: type[Any]) -> type[Any]:
    """``own``, an exception or a warning; where scikit-learn is imported also its class of that name, so that whoever
    catches either has it."""
    theirs = getattr(sys.modules.get("sklearn.exceptions"), own.__name__, None)
    if theirs is None:
        return own
    return type(own.__name__, (own, theirs), {"__module__": own.__module__, "__reduce__": lambda e: (own, e.args)})


class Parameters:
    """get_params, set_params, repr and tags for a class whose __init__ only stores its keyword arguments."""

    _estimator_type: str

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyperparameters by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change hyperparameters; raises InvalidArgumentError for an unknown name."""
        for name, value in params.items():
            if name not in self._parameter_names():
                known = self._parameter_names()
                raise InvalidArgumentError(f"Invalid parameter {name!r} for {type(self).__name__}; parameters: {known}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [f"{n}={v!r}" for n, v in self.get_params().items() if repr(v) != repr(defaults[n].default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        regressor = self._estimator_type == "regressor"
        return Tags(
            estimator_type=self._estimator_type,
            target_tags=TargetTags(required=True, multi_output=regressor),
            transformer_tags=None,
            classifier_tags=None if regressor else ClassifierTags(),
            regressor_tags=RegressorTags() if regressor else None,
            input_tags=InputTags(),
            non_deterministic=False,
        )
