"""`Measure`, the base of all measures: names of output columns, and scikit-learn's tags."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from .sklearn import _check_feature_names_in, check_is_fitted


class Measure(TransformerMixin, BaseEstimator):
    """Base of the estimators that measure a network; subclasses may add to ``_columns``."""

    _needs_labels = True

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Compared with the fitted names and otherwise ignored.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return np.asarray(self._columns(), dtype=object)

    def _columns(self):
        return self.layer_names_

    @property
    def _n_features_out(self):
        return len(self._columns())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._needs_labels
        tags.input_tags.three_d_array = self.model is not None
        tags.transformer_tags.preserves_dtype = []
        return tags
