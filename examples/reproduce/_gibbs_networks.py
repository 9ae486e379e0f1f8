"""Networks of the scripts on the Gibbs paper: one MLP is trained from many random starts at once.

Results of functions decorated with ``cache`` are kept on disk and shared by several scripts. They
do not notice changes to the functions that they call: delete the folder ``.cache`` after one.
"""

from itertools import pairwise

import joblib
import numpy as np
import torch
from _reproduction import HERE
from torch.nn import functional as F

from skgate.datasets import make_oriented_images

cache = joblib.Memory(HERE / ".cache", verbose=0).cache

MLPS = {  # Table 1
    "MLP1": ([1024, 8, 6, 2], "relu"),
    "MLP2": ([1024, 8, 6, 2], "tanh"),
    "MLP3": ([1024, 2, 6, 2], "relu"),
}
#: Epochs at which the MLPs of Table 1 are measured; the last is the published one.
EPOCHS = (0, 1, 4, 16, 64, 128, 300, 1000)
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def train(
    X,
    y,
    widths,
    activation,
    *,
    n_starts,
    record,
    learning_rate,
    batch_size=None,
    output_bias=True,
    seed=0,
):
    """Yield (epoch, activations, features) at the epochs in ``record``; 0 is before training.

    Activations are arrays (n_starts, n_samples, n_units), one a layer, the last the logits;
    features are the weights of the first layer, (n_starts, n_inputs, n_units). All weights start
    Glorot uniform; hidden layers have no biases. The starts learn independently: each has its own
    weights, its own gradient and its own moments in Adam.
    """
    # Adam's moments fall to 1e-40 once a network fits, where arithmetic is 30 times slower
    torch.set_flush_denormal(True)
    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    generator = torch.Generator().manual_seed(seed)
    weights = [_glorot_uniform(n_starts, *pair, generator) for pair in pairwise(widths)]
    bias = torch.zeros(n_starts, 1, widths[-1], requires_grad=output_bias)
    parameters = [*weights, bias] if output_bias else weights
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    batches = [slice(i, i + (batch_size or len(X))) for i in range(0, len(X), batch_size or len(X))]
    for epoch in range(max(record) + 1):
        if epoch in record:
            with torch.no_grad():
                layers = [t.numpy() for t in _forward(weights, bias, X, activation)]
                yield epoch, layers, weights[0].numpy().copy()
        for rows in batches:
            logits = _forward(weights, bias, X[rows], activation)[-1]
            # a mean over samples, but a sum over starts: no start changes another's gradient
            losses = F.cross_entropy(
                logits.flatten(0, 1), y[rows].repeat(n_starts), reduction="sum"
            )
            optimizer.zero_grad()
            (losses / len(X[rows])).backward()
            optimizer.step()


def _glorot_uniform(n_starts, n_in, n_out, generator):
    limit = (6 / (n_in + n_out)) ** 0.5
    weights = torch.empty(n_starts, n_in, n_out).uniform_(-limit, limit, generator=generator)
    return weights.requires_grad_()


def _forward(weights, bias, X, activation):
    """Return the activations of each layer, (n_starts, n_samples, n_units)."""
    layers = []
    # all starts see the same samples: their first layers are one matrix product
    t = torch.einsum("ni,siu->snu", X, weights[0])
    for W in weights[1:]:
        layers.append(ACTIVATIONS[activation](t))
        t = layers[-1] @ W
    return [*layers, t + bias]


def fits(logits, y):
    """Return for each start whether the logit of every sample's class is above all others.

    A tie does not count: without output bias, all logits are 0 where the last hidden layer is 0,
    and argmax would then call every sample of class 0 correct.
    """
    logits = logits.copy()
    own = np.take_along_axis(logits, y[None, :, None], axis=2)[..., 0]
    np.put_along_axis(logits, y[None, :, None], -np.inf, axis=2)
    return (own > logits.max(axis=2)).all(axis=1)


def oriented_images(noise=1.0):
    """Return the paper's 512 images and their labels.

    The noise has the variance 1 of the text, or 0.1, as in the released scripts of Fig. 8 to 13.
    """
    return make_oriented_images(noise_variance=noise, random_state=0)[:2]


@cache
def train_oriented(name, n_starts, *, epochs=EPOCHS, output_bias=True, noise=1.0):
    """Return (activations, features) of all starts of one MLP of Table 1, by epoch.

    The output layer has biases, as in the released code: without them, a class for which the last
    hidden layer is 0 is never fitted.
    """
    widths, activation = MLPS[name]
    settings = dict(n_starts=n_starts, record=epochs, learning_rate=0.03, output_bias=output_bias)
    steps = train(*oriented_images(noise), widths, activation, **settings)
    return {epoch: (layers, features) for epoch, layers, features in steps}
