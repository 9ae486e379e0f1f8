"""Synthetic data of known entropy, to test estimates of information."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state

from .utils.sklearn import Interval, validate_params

__all__ = ["make_oriented_images"]


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "size": [Interval(Integral, 2, None, closed="left")],
        "noise_variance": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_oriented_images(n_samples=512, size=32, *, noise_variance=1.0, random_state=None):
    r"""Return noisy images of one pattern in four orientations, with two labels.

    Pixel (i, j) of the pattern is ``size * min(i, j) / (size - |i - j|)``. Images show it in turn
    unchanged, rotated by 180 degrees, mirrored left to right, and mirrored top to bottom; their
    labels are 0, 1, 0, 1. Gaussian noise around the mean of the pattern is added to each pixel, and
    each image is standardised. The orientation is the only information in an image, so that
    H(X) = 2 bits and H(Y) = 1 bit if ``n_samples`` is a multiple of four.

    Parameters
    ----------
    n_samples : int, default=512
        Number of images.
    size : int, default=32
        Height and width of an image.
    noise_variance : float, default=1.0
        Variance of the noise in each pixel.
    random_state : int, RandomState instance or None, default=None
        Seed of the noise.

    Returns
    -------
    X : ndarray of shape (n_samples, size * size)
        Images as rows, each of mean 0 and standard deviation 1; ``reshape(-1, size, size)``
        restores their axes.
    y : ndarray of shape (n_samples,), dtype int
        Labels, 0 and 1.
    orientation : ndarray of shape (n_samples,), dtype int
        Index of the orientation, 0 to 3 in the order above.

    Raises
    ------
    ValueError
        If a parameter is invalid.

    References
    ----------
    .. [1] "A Probabilistic Representation for Deep Learning: Delving into The Information
       Bottleneck Principle", submitted to NeurIPS 2021, Section 4.1; the pattern and the
       standardisation are those of the authors' released code.

    Examples
    --------
    >>> from skgate.datasets import make_oriented_images
    >>> X, y, orientation = make_oriented_images(random_state=0)
    >>> X.shape, y[:6].tolist(), orientation[:6].tolist()
    ((512, 1024), [0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 0, 1])
    """
    i, j = np.indices((size, size))
    pattern = size * np.minimum(i, j) / (size - np.abs(i - j))
    views = np.stack([pattern, pattern[::-1, ::-1], pattern[:, ::-1], pattern[::-1]])
    orientation = np.arange(n_samples) % 4
    X = views[orientation].reshape(n_samples, -1)
    X += check_random_state(random_state).normal(pattern.mean(), np.sqrt(noise_variance), X.shape)
    X -= X.mean(axis=1, keepdims=True)
    X /= X.std(axis=1, keepdims=True)
    return X, orientation % 2, orientation
