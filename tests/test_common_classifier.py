"""scikit-learn's own checks on the classifier; a file of its own, since they train networks."""

import pytest
import sklearn.utils.estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgate import ComplexityRegularizedClassifier


@parametrize_with_checks([ComplexityRegularizedClassifier()])
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "name", ["check_param_validation", "check_dataframe_column_names_consistency"]
)
def test_checks_that_check_estimator_leaves_out(name):
    estimator = ComplexityRegularizedClassifier(max_epochs=1)
    getattr(checks, name)(type(estimator).__name__, estimator)
