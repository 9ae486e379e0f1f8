r"""Information of gates about labels, from calibrated probabilities of the classes.

With :math:`q(y \mid \sigma)` fitted to other samples than it is applied to,

.. math::

    \hat I(\Sigma; Y) = \hat H(Y) + \frac1n \sum_j \log q(y_j \mid \sigma_j)
        = \frac1n \sum_j \log \frac{q(y_j \mid \sigma_j)}{\hat p(y_j)}

is in expectation a lower bound, for any :math:`q`.

    _folds          which rows each model is fitted to, and which it scores
    _class_rates    scores of classes as if gates were independent given the class
    _discriminants  scores by linear discriminants, in coordinates of `_coordinates`
    _scores         both of these, or a classifier of scikit-learn, of ranges of layers
    _calibration    probabilities from scores
    _information    `label_information`, from all of these

Scores of a row are :math:`\ell_y \approx \log p(\sigma \mid y)` up to what classes have in common.
"""

from ._class_rates import class_rate_gains
from ._information import label_information, label_log_ratios

__all__ = ["class_rate_gains", "label_information", "label_log_ratios"]
