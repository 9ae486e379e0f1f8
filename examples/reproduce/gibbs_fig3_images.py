r"""
The images of known entropy
===========================

The Gibbs paper makes 512 images from one pattern in four orientations, and adds noise: Image0 is
the pattern itself, Image1 is flipped along the secondary diagonal, Image2 along the vertical and
Image3 along the horizontal direction. Images differ only in their orientation, apart from the
noise, so H(X) = 2 bits; two labels divide them evenly, so H(Y) = 1 bit.

:func:`~skgate.datasets.make_oriented_images` follows the authors' released recipe. The images are
drawn with three seeds, and each statement is checked on the pixels. The run has the published size,
so ``--full`` changes nothing.

.. image:: /reproduction/gibbs_fig3_images.png
   :alt: The pattern, and one noisy image of each orientation.
"""

# sphinx_gallery_thumbnail_path = "reproduction/gibbs_fig3_images.png"

import numpy as np
from _reproduction import Reproduction, near, show
from matplotlib.figure import Figure
from scipy.stats import entropy

from skgate.datasets import make_oriented_images

paper = Reproduction(
    "Gibbs paper, Fig. 3",
    "512 images of one pattern in four orientations, with noise of variance 1: H(X) = 2 bits, and "
    "H(Y) = 1 bit of two labels.",
    n_seeds=3,
)

# %%
# Without noise: the four orientations of one pattern.
pattern, *turned = make_oriented_images(4, noise_variance=0)[0].reshape(-1, 32, 32)
along_secondary_diagonal = pattern.T[::-1, ::-1]
paper.claim(
    "Image1 is Image0 along the secondary diagonal",
    np.allclose(turned[0], along_secondary_diagonal),
)
paper.claim(
    "Image2 is Image0 along the vertical direction", np.allclose(turned[1], pattern[:, ::-1])
)
paper.claim(
    "Image3 is Image0 along the horizontal direction", np.allclose(turned[2], pattern[::-1])
)

# %%
# With noise: the orientation of an image is inferred from the most similar pattern.
patterns = np.stack([pattern, *turned]).reshape(4, -1)
h_x, h_y, right, noise = [], [], [], []
i, j = np.indices((32, 32))
variance = (32 * np.minimum(i, j) / (32 - np.abs(i - j))).var()  # of the pattern, before scaling
for seed in paper.seeds:
    X, y, orientation = make_oriented_images(random_state=seed)
    likeness = X @ patterns.T / 1024
    inferred = likeness.argmax(axis=1)
    h_x.append(entropy(np.bincount(inferred), base=2))
    h_y.append(entropy(np.bincount(y), base=2))
    right.append(np.mean(inferred == orientation))
    noise.append(variance * (1 / np.mean(likeness.max(axis=1)) ** 2 - 1))
paper.claim(f"there are 512 images of 32 × 32: {X.shape}", X.shape == (512, 32 * 32))
paper.claim(f"the orientation can be told of all: {np.mean(right):.0%}", np.min(right) == 1)
paper.claim(f"H(X) = 2 bits, of the orientation that is told: {show(h_x)}", near(h_x, 2, 1e-9))
paper.claim(f"H(Y) = 1 bit: {show(h_y)}", near(h_y, 1, 1e-9))
paper.claim(f"the noise has variance 1, within 0.1: {show(noise)}", near(noise, 1, 0.1))

# %%
# The pattern and the first four images.
figure = Figure(figsize=(7.5, 2), layout="constrained")
titles = ["pattern", *(f"Image{m}" for m in range(4))]
for ax, title, picture in zip(figure.subplots(1, 5), titles, [pattern, *X[:4]], strict=True):
    ax.imshow(picture.reshape(32, 32), cmap="gray")
    ax.set_title(title)
    ax.set_axis_off()
paper.finish(figure)
