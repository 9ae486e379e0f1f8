"""Private names of scikit-learn, imported only here, and parameter constraints made of them."""

from numbers import Integral, Real

from sklearn.base import _fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
    validate_params,
)
from sklearn.utils.validation import (
    _check_feature_names_in,
    _num_samples,
    check_is_fitted,
    validate_data,
)

__all__ = [
    "MAX_SAMPLES",
    "POSITIVE",
    "HasMethods",
    "Interval",
    "RealNotInt",
    "StrOptions",
    "_check_feature_names_in",
    "_fit_context",
    "_num_samples",
    "check_is_fitted",
    "validate_data",
    "validate_parameter_constraints",
    "validate_params",
]

#: Constraint on a parameter that is a positive number.
POSITIVE = Interval(Real, 0, None, closed="neither")

#: Constraint on ``max_samples``, a number of samples or a share of them.
MAX_SAMPLES = [
    None,
    Interval(Integral, 1, None, closed="left"),
    Interval(RealNotInt, 0, 1, closed="right"),
]
