"""make_oriented_images against its recipe."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skgate import gibbs_layer_mi
from skgate.datasets import make_oriented_images


def pixel(view, i, j, size):
    """A pixel of the pattern as it is, with both axes flipped, left-right, up-down."""
    if view in (1, 3):
        i = size - 1 - i
    if view in (1, 2):
        j = size - 1 - j
    return size * min(i, j) / (size - abs(i - j))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_images_follow_the_recipe(size):
    n = 10
    X, y, orientation = make_oriented_images(n, size, random_state=3)
    pattern = [pixel(0, i, j, size) for i in range(size) for j in range(size)]
    noise = np.random.RandomState(3).normal(sum(pattern) / size**2, 1.0, (n, size * size))
    for k in range(n):
        assert orientation[k] == k % 4
        assert y[k] == k % 2
        image = [
            pixel(k % 4, i, j, size) + noise[k, size * i + j]
            for i in range(size)
            for j in range(size)
        ]
        mean = sum(image) / size**2
        deviation = (sum((p - mean) ** 2 for p in image) / size**2) ** 0.5
        assert_allclose(X[k], [(p - mean) / deviation for p in image], rtol=1e-10, atol=1e-12)


def test_defaults_are_the_published_ones():
    X, y, orientation = make_oriented_images(random_state=0)
    assert X.shape == (512, 1024)
    assert X.dtype == np.float64
    assert np.bincount(orientation).tolist() == [128] * 4
    assert y.dtype.kind == orientation.dtype.kind == "i"
    assert_array_equal(y, np.arange(512) % 2)
    assert_allclose(X.mean(axis=1), 0, atol=1e-12)
    assert_allclose(X.std(axis=1), 1, rtol=1e-12)


def test_orientations_are_flips_of_one_pattern():
    X, _, orientation = make_oriented_images(4000, 16, random_state=0)
    means = [X[orientation == k].mean(axis=0).reshape(16, 16) for k in range(4)]
    for k, turned in enumerate([means[0], means[0][::-1, ::-1], means[0][:, ::-1], means[0][::-1]]):
        assert_allclose(means[k], turned, atol=0.15)
    assert np.abs(means[0] - means[2]).max() > 1


def test_the_image_knows_its_orientation_and_label():
    X, y, orientation = make_oriented_images(random_state=0)
    means = np.stack([X[orientation == k].mean(axis=0) for k in range(4)])
    nearest = (X @ means.T).argmax(axis=1)
    assert_array_equal(nearest, orientation)
    result = gibbs_layer_mi(200 * np.eye(4)[nearest], y)
    assert_allclose([result.layer_mi_x, result.layer_mi_y], [[2], [1]], rtol=1e-12)


def test_seeds():
    first, again = (make_oriented_images(8, 4, random_state=5)[0] for _ in range(2))
    assert_array_equal(first, again)
    assert_array_equal(make_oriented_images(8, 4, random_state=np.random.RandomState(5))[0], first)
    assert (make_oriented_images(8, 4, random_state=6)[0] != first).any()
    images = [make_oriented_images(8, 4, random_state=5)[0][k] for k in range(8)]
    assert (images[0] != images[4]).any()  # noise of its own, not of its orientation


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_images(n):
    X, y, orientation = make_oriented_images(n, 2, random_state=0)
    assert X.shape == (n, 4)
    assert len(y) == len(orientation) == n
    assert np.isfinite(X).all()


@pytest.mark.parametrize(
    "params", [{"n_samples": 0}, {"n_samples": 2.5}, {"size": 1}, {"random_state": "seed"}]
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        make_oriented_images(**params)
