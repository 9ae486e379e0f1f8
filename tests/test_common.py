"""scikit-learn's own checks on every public estimator."""

import inspect

import pytest
import sklearn.utils.estimator_checks as checks
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import skgate
from skgate import (
    BinnedLayerMI,
    ComplexityRegularizedClassifier,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GibbsLayerMI,
    KDELayerMI,
    TotalCorrelation,
    densities,
)


def lazy_network():
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(6), nn.ReLU())


MEASURES = [
    GatingEntropy(),
    GatingMI(),
    TotalCorrelation(),
    GibbsLayerMI(),
    BinnedLayerMI(),
    KDELayerMI(),
]
DENSITIES = [
    densities.Kernel(),
    densities.Product(),
    densities.ChowLiu(),
    densities.Autoregressive(),
    densities.Convolutional(),
    densities.Auto(),
    densities.PerLayer({"*": densities.Product()}),
]
TRANSFORMERS = [*MEASURES, GateExtractor(lazy_network())]
ESTIMATORS = [*TRANSFORMERS, *DENSITIES, ComplexityRegularizedClassifier()]
WITH_A_MODEL = [
    measure(lazy_network()) for measure in (GatingMI, GibbsLayerMI, BinnedLayerMI, KDELayerMI)
]
WITH_A_DENSITY = [
    measure(density=density, cv=2, random_state=0)
    for measure in (GatingEntropy, GatingMI, TotalCorrelation)
    for density in DENSITIES[1:]
]


def names(estimators):
    return [type(estimator).__name__ for estimator in estimators]


pytestmark = [
    pytest.mark.filterwarnings("ignore::skgate.SaturationWarning"),
    pytest.mark.filterwarnings("ignore:All gates are open"),
    pytest.mark.filterwarnings("ignore:All samples are in one cell"),
    pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning"),
]


def test_no_public_estimator_is_left_out():
    public = {
        name
        for module in (skgate, densities)
        for name in module.__all__
        if inspect.isclass(getattr(module, name))
        and issubclass(getattr(module, name), BaseEstimator)
    }
    assert public == set(names(ESTIMATORS))


@parametrize_with_checks(TRANSFORMERS + DENSITIES + WITH_A_MODEL + WITH_A_DENSITY)
def test_estimator_checks(estimator, check):
    check(estimator)


# GateExtractor returns GatingStates whatever is asked for: a dataframe would lose the layers.
DATAFRAME_CHECKS = [
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
]


@pytest.mark.parametrize("estimator", MEASURES, ids=names(MEASURES))
@pytest.mark.parametrize("name", DATAFRAME_CHECKS)
def test_dataframe_output_checks(estimator, name):
    getattr(checks, name)(type(estimator).__name__, estimator)


@pytest.mark.parametrize("estimator", TRANSFORMERS, ids=names(TRANSFORMERS))
@pytest.mark.parametrize(
    "name",
    [
        "check_param_validation",
        "check_set_output_transform",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_dataframe_column_names_consistency",
        "check_estimators_partial_fit_n_features",
        "check_get_feature_names_out_error",
    ],
)
def test_checks_that_check_estimator_leaves_out(estimator, name):
    getattr(checks, name)(type(estimator).__name__, estimator)
