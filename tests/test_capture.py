"""What `GateExtractor` captures, against gates computed by hand with plain torch and NumPy."""

import itertools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from skgate import GateCaptureWarning, GateExtractor


def integers(*shape, low=-3, high=4, seed=0):
    """Return whole numbers as floats, so that sums hit the thresholds exactly."""
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, size=shape).astype(np.float32)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def linear(n_in, n_out, seed=0):
    layer = nn.Linear(n_in, n_out)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(integers(n_out, n_in, low=-2, high=3, seed=seed)))
        layer.bias.copy_(torch.from_numpy(integers(n_out, low=-1, high=2, seed=seed + 1)))
    return layer


class Around(nn.Module):
    """An activation between two linear layers: a submodule, or a function that forward calls."""

    def __init__(self, activation, n_in=5, n_units=7):
        super().__init__()
        self.pre = linear(n_in, n_units)
        self.act = activation
        self.post = linear(n_units, 2, seed=5)

    def forward(self, x):
        return self.post(self.act(self.pre(x)))


class Nested(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.block = Around(activation)

    def forward(self, x):
        return self.block(x)


class Apply(nn.Module):
    """A function of the input and nothing else; keeps what it returned."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.seen = []

    def forward(self, *inputs, **named):
        out = self.function(*inputs, **named)
        self.seen.append(out)
        return out


def hooked(net, module, X, **named):
    """Return what a module gives out on the way through a network, by a plain forward hook."""
    kept = []
    handle = module.register_forward_hook(lambda m, i, out: kept.append(out.detach().clone()))
    was = net.training
    with torch.no_grad():
        net.eval()(torch.as_tensor(X), **named)
    net.train(was)
    handle.remove()
    return torch.stack(kept) if len(kept) > 1 else kept[0]


def extract(net, X, **params):
    return GateExtractor(net, batch_size=4, **params).fit_transform(X)


def flat(gates):
    return np.asarray(gates).reshape(len(gates), -1)


# Thresholds ----------------------------------------------------------------------------------

X5 = integers(11, 5)

# activation, name of the operation, thresholds
ONE_MODULE = {
    "ReLU": (lambda: nn.ReLU(), "relu", [0]),
    "ReLU inplace": (lambda: nn.ReLU(inplace=True), "relu", [0]),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), "leaky_relu", [0]),
    "LeakyReLU inplace": (lambda: nn.LeakyReLU(0.2, inplace=True), "leaky_relu", [0]),
    "PReLU": (lambda: nn.PReLU(7), "prelu", [0]),
    "RReLU": (lambda: nn.RReLU(), "rrelu", [0]),
    "RReLU inplace": (lambda: nn.RReLU(inplace=True), "rrelu", [0]),
    "ReLU6": (lambda: nn.ReLU6(), "hardtanh", [0, 6]),
    "ReLU6 inplace": (lambda: nn.ReLU6(inplace=True), "hardtanh", [0, 6]),
    "Hardtanh": (lambda: nn.Hardtanh(), "hardtanh", [-1, 1]),
    "Hardtanh -2 3": (lambda: nn.Hardtanh(-2, 3, inplace=True), "hardtanh", [-2, 3]),
    "Hardsigmoid": (lambda: nn.Hardsigmoid(), "hardsigmoid", [-3, 3]),
    "Threshold": (lambda: nn.Threshold(2, -9), "threshold", [2]),
    "Threshold inplace": (lambda: nn.Threshold(2, -9, inplace=True), "threshold", [2]),
    "Hardshrink": (lambda: nn.Hardshrink(2), "hardshrink", [-2, 2]),
    "Softshrink": (lambda: nn.Softshrink(1), "softshrink", [-1, 1]),
}

ZERO, SIX = torch.tensor(0.0), torch.tensor(6.0)

ONE_FUNCTION = {
    "F.relu": (F.relu, "relu", [0]),
    "F.relu inplace": (lambda z: F.relu(z, inplace=True), "relu", [0]),
    "F.relu_": (F.relu_, "relu", [0]),
    "torch.relu": (torch.relu, "relu", [0]),
    "torch.relu keyword": (lambda z: torch.relu(input=z), "relu", [0]),
    "torch.relu_": (torch.relu_, "relu", [0]),
    "Tensor.relu": (lambda z: z.relu(), "relu", [0]),
    "Tensor.relu_": (lambda z: z.relu_(), "relu", [0]),
    "F.relu6": (F.relu6, "relu6", [0, 6]),
    "F.leaky_relu": (lambda z: F.leaky_relu(z, 0.3), "leaky_relu", [0]),
    "F.prelu": (lambda z: F.prelu(z, torch.tensor([0.5])), "prelu", [0]),
    "Tensor.prelu": (lambda z: z.prelu(torch.tensor([0.5])), "prelu", [0]),
    "F.rrelu": (lambda z: F.rrelu(z, training=True), "rrelu", [0]),
    "torch.rrelu": (lambda z: torch.rrelu(z, 0.1, 0.3, True), "rrelu", [0]),
    "F.hardtanh": (F.hardtanh, "hardtanh", [-1, 1]),
    "F.hardtanh 0 2": (lambda z: F.hardtanh(z, 0, 2), "hardtanh", [0, 2]),
    "F.hardsigmoid": (F.hardsigmoid, "hardsigmoid", [-3, 3]),
    "F.threshold": (lambda z: F.threshold(z, -1, 0), "threshold", [-1]),
    "clamp(min=0)": (lambda z: torch.clamp(z, min=0), "clamp", [0]),
    "clamp(z, 0)": (lambda z: torch.clamp(z, 0), "clamp", [0]),
    "clamp(input=)": (lambda z: torch.clamp(input=z, min=0), "clamp", [0]),
    "clamp(max=6)": (lambda z: torch.clamp(z, max=6), "clamp", [6]),
    "clamp(lo, hi)": (lambda z: torch.clamp(z, -2, 3), "clamp", [-2, 3]),
    "clamp(min=Tensor)": (lambda z: torch.clamp(z, min=torch.tensor(1.0)), "clamp", [1]),
    "Tensor.clamp": (lambda z: z.clamp(min=0), "clamp", [0]),
    "Tensor.clamp(lo, hi)": (lambda z: z.clamp(0, 6), "clamp", [0, 6]),
    "Tensor.clamp_": (lambda z: z.clamp_(min=0), "clamp", [0]),
    "clamp_min": (lambda z: torch.clamp_min(z, 0), "clamp_min", [0]),
    "Tensor.clamp_min": (lambda z: z.clamp_min(0), "clamp_min", [0]),
    "Tensor.clamp_min_": (lambda z: z.clamp_min_(0), "clamp_min", [0]),
    "clamp_max": (lambda z: torch.clamp_max(z, 6), "clamp_max", [6]),
    "clip": (lambda z: torch.clip(z, min=0), "clip", [0]),
    "Tensor.clip": (lambda z: z.clip(0, 6), "clip", [0, 6]),
    "Tensor.clip_": (lambda z: z.clip_(0), "clip", [0]),
    "maximum(z, 0)": (lambda z: torch.maximum(z, ZERO), "maximum", [0]),
    "maximum(0, z)": (lambda z: torch.maximum(ZERO, z), "maximum", [0]),
    "maximum(z, zeros)": (lambda z: torch.maximum(z, torch.zeros_like(z)), "maximum", [0]),
    "maximum(zeros, z)": (lambda z: torch.maximum(torch.zeros_like(z), z), "maximum", [0]),
    "maximum(input=, other=)": (lambda z: torch.maximum(input=z, other=ZERO), "maximum", [0]),
    "Tensor.maximum": (lambda z: z.maximum(ZERO), "maximum", [0]),
    "max(z, zeros)": (lambda z: torch.max(z, torch.zeros_like(z)), "maximum", [0]),
    "max(z, 0)": (lambda z: torch.max(z, ZERO), "maximum", [0]),
    "max(0, z)": (lambda z: torch.max(ZERO, z), "maximum", [0]),
    "max(z, other=0)": (lambda z: torch.max(z, other=ZERO), "maximum", [0]),
    "Tensor.max": (lambda z: z.max(ZERO), "maximum", [0]),
    "minimum(z, 6)": (lambda z: torch.minimum(z, SIX), "minimum", [6]),
    "minimum(6, z)": (lambda z: torch.minimum(SIX, z), "minimum", [6]),
    "min(z, 6)": (lambda z: torch.min(z, SIX), "minimum", [6]),
}


def threshold_gates(z, thresholds):
    return flat(torch.stack([z > t for t in thresholds], dim=-1))


@pytest.mark.parametrize("case", ONE_MODULE)
@pytest.mark.parametrize("sampling", ["off", "on"])
def test_activation_modules_gate_their_input(case, sampling):
    make, operation, thresholds = ONE_MODULE[case]
    net = Nested(make())
    z = (
        hooked(net, net.block.pre, X5)
        if "inplace" not in case and case != "Hardtanh -2 3"
        else None
    )
    if z is None:  # the hook would see the tensor after it was overwritten
        z = F.linear(torch.from_numpy(X5), net.block.pre.weight, net.block.pre.bias)
    states = extract(net, X5, sampling=sampling, random_state=0)
    np.testing.assert_array_equal(np.asarray(states), threshold_gates(z, thresholds))
    assert states.layer_names == ("block.act",)
    assert states.n_gates == (7 * len(thresholds),)
    assert states.kinds == (operation,)
    assert states.layers[0].unit_size == len(thresholds)


@pytest.mark.parametrize("case", ONE_FUNCTION)
def test_functions_gate_their_input(case):
    function, operation, thresholds = ONE_FUNCTION[case]
    net = Nested(function)
    z = F.linear(torch.from_numpy(X5), net.block.pre.weight, net.block.pre.bias)
    assert all((z == t).any() for t in thresholds)  # a unit right on its threshold is closed
    states = extract(net, X5)
    np.testing.assert_array_equal(np.asarray(states), threshold_gates(z, thresholds))
    assert states.layer_names == (f"block.{operation}",)
    assert states.n_gates == (7 * len(thresholds),)
    assert states.kinds == (operation,)


@pytest.mark.parametrize("case", [case for case in ONE_FUNCTION if "rrelu" not in case])
def test_functions_return_under_extraction_what_they_return_plainly(case):
    function, _, _ = ONE_FUNCTION[case]
    net = Apply(lambda x: function(x + 0))
    plain = net(torch.from_numpy(X5))
    extractor = GateExtractor(net).fit(X5)
    net.seen.clear()
    extractor.transform(X5)
    assert torch.equal(net.seen[0], plain)


def test_maximum_of_two_activations_says_which_won():
    X = integers(9, 6)
    net = Apply(lambda x: torch.maximum(x[:, :3], x[:, 3:]))
    np.testing.assert_array_equal(np.asarray(extract(net, X)), X[:, :3] > X[:, 3:])


@pytest.mark.parametrize("flip", [False, True], ids=["maximum(z, c)", "maximum(c, z)"])
def test_maximum_against_thresholds_does_not_depend_on_batch_size(flip):
    # at few samples there are more thresholds than data
    X, c = integers(12, 1), torch.arange(-2.0, 3.0)
    net = Apply(lambda x: torch.maximum(c, x) if flip else torch.maximum(x, c))
    for batch_size in (1, 4, 12):
        states = GateExtractor(net, batch_size=batch_size).fit_transform(X)
        np.testing.assert_array_equal(np.asarray(states), c.numpy() < X)


def test_maximum_of_alike_samples_is_read_as_that_of_others():
    X, c = integers(12, 1), torch.arange(-2.0, 3.0)[None]
    X[4:8] = 1  # a batch of its own
    states = extract(Apply(lambda x: torch.maximum(x, c)), X)
    np.testing.assert_array_equal(np.asarray(states), c.numpy() < X)


def test_clamp_gates_of_a_unit_are_neighbours():
    X = np.array([[-5.0, 5.0], [0.0, -5.0], [5.0, 0.0]], dtype=np.float32)
    states = extract(Apply(lambda x: x.clamp(-1, 1)), X)
    wanted = [[0, 0, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]
    np.testing.assert_array_equal(np.asarray(states), np.array(wanted, dtype=bool))


def test_recurrence_written_with_cells_has_gates():
    # what the warning about nn.RNN(nonlinearity="relu") advises
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNNCell(3, 4, nonlinearity="relu")

        def forward(self, x):
            h = x.new_zeros(len(x), 4)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
            return h

    net, X = Recurrent(), noise(8, 2, 3)
    h0 = hooked(net, net.cell, X)
    states = extract(net, X)
    assert states.layer_names == ("cell", "cell:1")
    np.testing.assert_array_equal(np.asarray(states), np.hstack([h > 0 for h in h0.numpy()]))


def test_fused_recurrent_relu_warns():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.RNN(3, 4, nonlinearity="relu"))
    with pytest.warns(GateCaptureWarning, match="RNNCell"):
        states = extract(net, noise(6, 2, 3))
    assert states.layer_names == ("1",)


# Max pooling ---------------------------------------------------------------------------------


def pooled_by_hand(x, out_shape, starts, window, dilation, ends=None):
    """Return the one-hot winner of each window, by going through all its positions."""
    n_axes, x = len(window), np.asarray(x, dtype=np.float64)
    offsets = list(itertools.product(*(range(k) for k in window)))
    gates = np.zeros((*x.shape[:2], *out_shape, len(offsets)), dtype=bool)
    for place in itertools.product(*(range(n) for n in out_shape)):
        values = np.full((*x.shape[:2], len(offsets)), -np.inf)
        for k, offset in enumerate(offsets):
            at = [starts[a][place[a]] + offset[a] * dilation[a] for a in range(n_axes)]
            stop = x.shape[2:] if ends is None else [ends[a][place[a]] for a in range(n_axes)]
            if all(0 <= c < s for c, s in zip(at, stop, strict=True)):
                values[..., k] = x[(slice(None), slice(None), *at)]
        winner = values.argmax(-1)
        gates[(slice(None), slice(None), *place)] = np.eye(len(offsets), dtype=bool)[winner]
    return flat(gates)


POOL_SHAPES = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}
POOL_CASES = {
    "k2": dict(kernel_size=2),
    "k3 s2": dict(kernel_size=3, stride=2),
    "k3 s1": dict(kernel_size=3, stride=1),
    "k3 s2 p1": dict(kernel_size=3, stride=2, padding=1),
    "k2 s2 d2": dict(kernel_size=2, stride=2, dilation=2),
    "k2 s3 ceil": dict(kernel_size=2, stride=3, ceil_mode=True),
    "k3 s2 p1 ceil": dict(kernel_size=3, stride=2, padding=1, ceil_mode=True),
    "k3 s1 p1 d2": dict(kernel_size=3, stride=1, padding=1, dilation=2),
}


@pytest.mark.parametrize("return_indices", [False, True], ids=["output", "indices"])
@pytest.mark.parametrize("case", POOL_CASES)
@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_max_pooling_gates_are_the_winners(n_axes, case, return_indices):
    options = {"padding": 0, "dilation": 1, **POOL_CASES[case]}
    k, p, d = (options[name] for name in ("kernel_size", "padding", "dilation"))
    s = options.get("stride", k)
    X = noise(5, 2, *POOL_SHAPES[n_axes])
    pool = getattr(nn, f"MaxPool{n_axes}d")(**options, return_indices=return_indices)
    plain = pool(torch.from_numpy(X))
    out_shape = (plain[0] if return_indices else plain).shape[2:]
    starts = [[i * s - p for i in range(n)] for n in out_shape]
    wanted = pooled_by_hand(X, out_shape, starts, [k] * n_axes, [d] * n_axes)

    net = Apply(pool)
    extractor = GateExtractor(net).fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    np.testing.assert_array_equal(np.asarray(states), wanted)
    assert (states.layer_names, states.kinds) == (("function",), (f"max_pool{n_axes}d",))
    assert states.n_gates == (wanted.shape[1],)
    layer = states.layers[0]
    assert (layer.unit_size, layer.one_hot) == (k**n_axes, True)
    assert_same_output(net.seen[0], plain)


def assert_same_output(seen, plain):
    assert type(seen) is type(plain)
    seen, plain = ((t,) if isinstance(t, torch.Tensor) else t for t in (seen, plain))
    assert len(seen) == len(plain)
    assert all(torch.equal(a, b) for a, b in zip(seen, plain, strict=True))


@pytest.mark.parametrize("return_indices", [False, True], ids=["output", "indices"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_adaptive_max_pooling_gates_are_the_winners(n_axes, size, return_indices):
    X = noise(5, 2, *POOL_SHAPES[n_axes], seed=1)
    pool = getattr(nn, f"AdaptiveMaxPool{n_axes}d")(size, return_indices=return_indices)
    plain = pool(torch.from_numpy(X))
    extents = X.shape[2:]
    starts = [[int(np.floor(i * e / size)) for i in range(size)] for e in extents]
    ends = [[int(np.ceil((i + 1) * e / size)) for i in range(size)] for e in extents]
    window = [max(np.subtract(b, a)) for a, b in zip(starts, ends, strict=True)]
    wanted = pooled_by_hand(X, [size] * n_axes, starts, window, [1] * n_axes, ends)

    net = Apply(pool)
    extractor = GateExtractor(net).fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    np.testing.assert_array_equal(np.asarray(states), wanted)
    assert states.kinds == (f"adaptive_max_pool{n_axes}d",)
    assert states.layers[0].unit_size == np.prod(window)
    assert_same_output(net.seen[0], plain)


def unfolded_winners(X, **options):
    """Return the one-hot winners of a 2-d pooling by `unfold`, which pads with zeros."""
    x = torch.from_numpy(X)
    c = x.shape[1]
    columns = F.unfold(x, **options).unflatten(1, (c, -1)).movedim(2, -1)
    return flat(F.one_hot(columns.argmax(-1), columns.shape[-1]).bool())


POOL_FUNCTIONS = {
    "F.max_pool2d": lambda x: F.max_pool2d(x, (2, 3), stride=(1, 2)),
    "F.max_pool2d keywords": lambda x: F.max_pool2d(input=x, kernel_size=(2, 3), stride=(1, 2)),
    "F.max_pool2d indices": lambda x: F.max_pool2d(x, (2, 3), (1, 2), return_indices=True),
    "F.max_pool2d_with_indices": lambda x: F.max_pool2d_with_indices(x, (2, 3), (1, 2)),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, (2, 3), (1, 2)),
}


@pytest.mark.parametrize("case", POOL_FUNCTIONS)
def test_pooling_functions_gate_and_return_as_ever(case):
    net, X = Apply(POOL_FUNCTIONS[case]), noise(6, 3, 7, 9)
    plain = net(torch.from_numpy(X))
    extractor = GateExtractor(net).fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    wanted = unfolded_winners(X, kernel_size=(2, 3), stride=(1, 2))
    np.testing.assert_array_equal(np.asarray(states), wanted)
    assert (states.layer_names, states.kinds) == (("max_pool2d",), ("max_pool2d",))
    assert_same_output(net.seen[0], plain)


ADAPTIVE_FUNCTIONS = {
    "F.adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 3),
    "F.adaptive_max_pool1d indices": lambda x: F.adaptive_max_pool1d(x, 3, True),
    "torch.adaptive_max_pool1d": lambda x: torch.adaptive_max_pool1d(x, 3),
    "torch.max_pool1d_with_indices": lambda x: torch.max_pool1d_with_indices(x, 2),
    "torch.max_pool1d": lambda x: torch.max_pool1d(x, 2),
}


@pytest.mark.parametrize("case", ADAPTIVE_FUNCTIONS)
def test_one_axis_pooling_functions_return_as_ever(case):
    net, X = Apply(ADAPTIVE_FUNCTIONS[case]), noise(6, 2, 6)
    plain = net(torch.from_numpy(X))
    extractor = GateExtractor(net).fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    pairs = X.reshape(6, 2, 3, 2)
    np.testing.assert_array_equal(np.asarray(states), flat(pairs == pairs.max(-1, keepdims=True)))
    assert_same_output(net.seen[0], plain)


def test_pooling_that_is_not_selected_runs_as_ever():
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=False), Apply(lambda x: x))
    X = noise(5, 1, 4, 4)
    states = extract(net, X, layers="0")
    np.testing.assert_array_equal(np.asarray(states), flat(X > 0))
    assert torch.equal(net[2].seen[-1], F.max_pool2d(F.relu(torch.from_numpy(X[4:])), 2))


def test_unpooling_finds_the_indices_of_the_pooling():
    class Unpool(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x):
            return F.relu(self.unpool(*self.pool(x)))

    X = noise(5, 2, 4, 4)
    x = torch.from_numpy(X)
    states = extract(Unpool(), X)
    assert states.layer_names == ("pool", "relu")
    wanted = flat(F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2) > 0)
    np.testing.assert_array_equal(np.asarray(states.select("relu")), wanted)


# Dropout -------------------------------------------------------------------------------------

DROPOUT_MODULES = {
    "Dropout": (nn.Dropout, (6,), "dropout"),
    "Dropout image": (nn.Dropout, (3, 2, 2), "dropout"),
    "Dropout1d": (nn.Dropout1d, (6, 4), "dropout1d"),
    "Dropout2d": (nn.Dropout2d, (6, 3, 2), "dropout2d"),
    "Dropout3d": (nn.Dropout3d, (6, 2, 2, 2), "dropout3d"),
    "AlphaDropout": (nn.AlphaDropout, (6,), "alpha_dropout"),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, (6, 2, 2, 2), "feature_alpha_dropout"),
}
BY_CHANNEL = {"dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"}


def positive(*shape):
    return 1 + np.random.default_rng(3).random(shape).astype(np.float32)


def kept_by_hand(output, operation):
    """Return where the output is not that of a dropped element: 0, or the least for alpha."""
    output = output.numpy()
    kept = output != 0 if "alpha" not in operation else output > output.min() + 1e-4
    if operation in BY_CHANNEL:
        kept = kept.reshape(*kept.shape[:2], -1)
        assert (kept == kept[..., :1]).all()
        kept = kept[..., 0]
    return flat(kept)


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
@pytest.mark.parametrize("case", DROPOUT_MODULES)
def test_dropout_on_has_the_mask_of_its_output(case, inplace):
    cls, shape, operation = DROPOUT_MODULES[case]
    dropout = cls(0.4, inplace=inplace)
    net, X = Apply(lambda x: dropout(x + 0)), positive(30, *shape)
    net.dropout = dropout
    params = dict(sampling="on", random_state=0, batch_size=8)
    extractor = GateExtractor(net, layers="*dropout*", **params).fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    wanted = kept_by_hand(torch.cat(net.seen), operation)
    assert 0.2 < wanted.mean() < 0.8
    np.testing.assert_array_equal(np.asarray(states), wanted)
    assert (states.layer_names, states.kinds) == (("dropout",), (operation,))
    assert states.n_gates == (shape[0] if operation in BY_CHANNEL else np.prod(shape),)


@pytest.mark.parametrize("case", DROPOUT_MODULES)
def test_dropout_is_a_layer_only_with_sampling_on(case):
    # its gates are the mask, and without sampling there is none
    cls, shape, operation = DROPOUT_MODULES[case]
    net, X = nn.Sequential(nn.ReLU(), cls(0.4)), positive(7, *shape)
    off, on = (extract(net, X, sampling=sampling, random_state=0) for sampling in ("off", "on"))
    assert off.layer_names == ("0",)
    assert on.layer_names == ("0", "1")
    assert on.kinds == ("relu", operation)
    assert off == on.select("0")
    assert not np.asarray(on.select("1")).all()
    record = GateExtractor(net).fit(X).coverage_[1]
    assert record == ("1", operation, "dropout", 0, False, "it drops nothing: sampling is off")


def test_dropout_off_passes_its_input_on():
    # training by default, whatever the module's flag
    net = Apply(lambda x: F.dropout(F.relu(x), 0.5))
    X = positive(6, 5)
    extractor = GateExtractor(net).fit(X)
    net.seen.clear()
    assert extractor.transform(X).layer_names == ("relu",)
    np.testing.assert_array_equal(net.seen[0].numpy(), X)


DROPOUT_FUNCTIONS = {
    "F.dropout": (lambda x: F.dropout(x, 0.4), "dropout"),
    "F.dropout(p=)": (lambda x: F.dropout(input=x, p=0.4, training=True), "dropout"),
    "F.dropout inplace": (lambda x: F.dropout(x + 0, 0.4, True, True), "dropout"),
    "torch.dropout": (lambda x: torch.dropout(x, 0.4, True), "dropout"),
    "torch.dropout_": (lambda x: torch.dropout_(x + 0, 0.4, True), "dropout"),
    "F.alpha_dropout": (lambda x: F.alpha_dropout(x, 0.4, True), "alpha_dropout"),
    "torch.feature_dropout": (lambda x: torch.feature_dropout(x, 0.4, True), "feature_dropout"),
}


@pytest.mark.parametrize("case", DROPOUT_FUNCTIONS)
def test_dropout_functions_have_the_mask_of_their_output(case):
    function, operation = DROPOUT_FUNCTIONS[case]
    net, X = Apply(function), positive(30, 6)
    extractor = GateExtractor(net, sampling="on", random_state=0, layers="*dropout").fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    wanted = kept_by_hand(net.seen[0], operation)
    assert 0.2 < wanted.mean() < 0.8
    np.testing.assert_array_equal(np.asarray(states), wanted)
    assert states.layer_names == (operation,)


DROPPING_NOTHING = {
    "p=0": (nn.Dropout(0), "p is 0"),
    "F p=0": (lambda x: F.dropout(x, 0.0), "p is 0"),
    "p=0 by channel": (nn.Dropout1d(0.0), "p is 0"),
    "flag": (lambda x: F.dropout(x, 0.5, False), "flag is off"),
    "flag by default": (lambda x: F.alpha_dropout(x, 0.4), "flag is off"),
    "torch": (lambda x: torch.dropout(x, 0.4, train=False), "flag is off"),
}


@pytest.mark.parametrize("case", DROPPING_NOTHING)
def test_dropout_that_drops_nothing_is_no_layer(case):
    dropout, why = DROPPING_NOTHING[case]
    net, X = Apply(lambda x: dropout(F.relu(x))), noise(6, 5, 3)
    extractor = GateExtractor(net, sampling="on").fit(X)
    assert extractor.layer_names_ == ["relu"]
    assert extractor.coverage_[1].reason.startswith("it drops nothing: ")
    assert why in extractor.coverage_[1].reason
    net.seen.clear()
    extractor.transform(X)
    np.testing.assert_array_equal(net.seen[0].numpy(), X.clip(0))
    with pytest.raises(ValueError, match=f"(?s)no gating layer.*{why}"):
        GateExtractor(Apply(dropout), sampling="on").fit(X)


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_module_whose_only_gates_are_dropout_raises(p):
    # 0.1 gave a transformer without ReLUs as many open gates as it has units
    layer = nn.TransformerEncoderLayer(8, 2, 6, dropout=p, activation=F.gelu, batch_first=True)
    with pytest.raises(ValueError, match=r"no gating layer.*Set smooth=True.*operations ran"):
        GateExtractor(layer).fit(noise(5, 3, 8))
    if p:
        remedies = r"no gates but those that dropout draws.*smooth=True.*layers=\['dropout1'"
        with pytest.raises(ValueError, match=remedies):
            GateExtractor(layer, sampling="on").fit(noise(5, 3, 8))


def test_dropout_of_everything_has_all_gates_closed():
    net = nn.Sequential(nn.Dropout(1.0))
    states = extract(net, positive(6, 5), sampling="on", layers="0")
    assert not np.asarray(states).any()


@pytest.mark.parametrize("seed", range(4))
def test_dropout_on_merged_axes_keeps_the_mask_of_each_sample(seed):
    # a mask is random, so that two passes do not share rows by which to tell the axis
    class TimeMajor(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, x):  # (n, t, d)
            merged = x.transpose(0, 1).reshape(-1, x.shape[2])
            out = F.dropout(merged, 0.5, self.training)
            self.seen.append(out.reshape(x.shape[1], x.shape[0], -1).transpose(0, 1))
            return out

    net, X = TimeMajor(), positive(9, 3, 4)
    extractor = GateExtractor(net, layers="dropout", sampling="on", random_state=seed).fit(X)
    net.seen.clear()
    states = extractor.transform(X)
    np.testing.assert_array_equal(np.asarray(states), flat(net.seen[0] != 0))


# Names ---------------------------------------------------------------------------------------


def test_further_calls_of_a_module_are_numbered():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = linear(5, 4), linear(4, 3, 1), linear(3, 2, 2)
            self.r = nn.ReLU()

        def forward(self, x):
            return self.r(self.c(self.r(self.b(self.r(self.a(x))))))

    net = Shared()
    states = extract(net, X5)
    assert states.layer_names == ("r", "r:1", "r:2")
    assert states.n_gates == (4, 3, 2)
    wanted = [(hooked(net, m, X5) > 0).numpy() for m in (net.a, net.b, net.c)]
    np.testing.assert_array_equal(np.asarray(states), np.hstack(wanted))


def test_functions_go_by_their_caller_and_are_numbered():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = linear(5, 5)

        def forward(self, x):
            return torch.relu(self.fc(F.relu(x)).clamp(max=3))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return F.relu(x)

    names = extract(Net(), X5).layer_names
    block = ["relu", "clamp", "relu:1"]
    assert list(names) == [f"blocks.{i}.{name}" for i in (0, 1) for name in block] + ["relu"]


def test_a_module_and_a_function_of_one_name_are_two_layers():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return F.relu(self.relu(x - 1) - 1)

    states = extract(Both(), X5)
    assert len(set(states.layer_names)) == 2
    np.testing.assert_array_equal(
        np.asarray(states), np.hstack([X5 - 1 > 0, np.maximum(X5 - 1, 0) - 1 > 0])
    )


def test_a_module_that_swallows_an_error_keeps_the_names_of_later_calls():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError

    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.fails, self.act = Fails(), nn.ReLU()

        def forward(self, x):
            try:
                return self.fails(x)
            except RuntimeError:
                return F.relu(self.act(x))

    assert extract(nn.Sequential(Tries()), X5).layer_names == ("0.act", "0.relu")


def test_a_module_under_two_names_goes_by_its_first():
    relu = nn.ReLU()
    net = nn.Sequential(linear(5, 4), relu, linear(4, 3), relu)
    assert extract(net, X5).layer_names == ("1", "1:1")


# Wrappers ------------------------------------------------------------------------------------


def mlp():
    return nn.Sequential(linear(5, 6), nn.ReLU(), linear(6, 4, 2), nn.ReLU(inplace=True))


def mlp_gates(net, X):
    with torch.no_grad():
        first = net[0](torch.as_tensor(X))
        second = net[2](first.clamp(min=0))
    return np.hstack([first.float() > 0, second.float() > 0])


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("how", ["torch.compile", "Module.compile"])
def test_compiled_network_has_the_gates_of_the_plain_one(how, warm):
    net = mlp()
    wanted = mlp_gates(net, X5)
    model = net
    if how == "torch.compile":
        model = torch.compile(net, backend="eager")
    else:
        net.compile(backend="eager")
    if warm:
        model(torch.from_numpy(X5))
    states = extract(model, X5)
    np.testing.assert_array_equal(np.asarray(states), wanted)
    assert states.layer_names == ("1", "3")
    if warm:
        torch.testing.assert_close(model(torch.from_numpy(X5)), net(torch.from_numpy(X5)))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_compiled_submodule_keeps_plain_names(warm):
    inner = mlp()
    net = nn.Sequential(torch.compile(inner, backend="eager"), linear(4, 3), nn.ReLU())
    if warm:
        net(torch.from_numpy(X5))
    states = extract(net, X5)
    assert states.layer_names == ("0.1", "0.3", "2")
    np.testing.assert_array_equal(np.asarray(states.select(["0.1", "0.3"])), mlp_gates(inner, X5))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("how", ["torch.compile", "Module.compile"])
def test_extraction_compiles_nothing_and_leaves_the_network_compiled(how):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    block = Around(F.relu)
    if how == "torch.compile":
        block = torch.compile(block, backend=backend)
    else:
        block.compile(backend=backend)
    net = nn.Sequential(block, nn.ReLU())
    assert extract(net, X5).layer_names == ("0.relu", "1")
    assert not graphs
    net(torch.from_numpy(X5))
    assert graphs


@pytest.mark.usefixtures("fresh_dynamo")
def test_function_called_in_a_compiled_block_keeps_its_plain_name():
    block = torch.compile(Around(F.relu), backend="eager")
    states = extract(nn.Sequential(block, nn.Identity()), X5)
    assert states.layer_names == ("0.relu",)


def test_data_parallel_is_seen_through():
    net = mlp()
    states = extract(nn.DataParallel(net), X5)
    assert states.layer_names == ("1", "3")
    np.testing.assert_array_equal(np.asarray(states), mlp_gates(net, X5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_other_precisions(dtype, as_tensor):
    net = mlp().to(dtype)
    X = torch.from_numpy(X5).to(dtype) if as_tensor else X5
    states = extract(net, X)
    np.testing.assert_array_equal(
        np.asarray(states), mlp_gates(net, torch.from_numpy(X5).to(dtype))
    )


def test_pooling_and_dropout_in_bfloat16():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Dropout(0.5)).bfloat16()
    X = torch.from_numpy(noise(5, 1, 6, 6)).bfloat16()
    z = hooked(net, net[0], X).float().numpy()
    states = extract(net, X)
    np.testing.assert_array_equal(
        np.asarray(states.select("1")), unfolded_winners(z, kernel_size=2, stride=2)
    )
    assert states.n_gates == (2 * 4 * 4,)
    assert extract(net, X, sampling="on").n_gates == (2 * 4 * 4, 2 * 4)


# Transformers and merged axes ----------------------------------------------------------------


class Transposed(nn.Module):
    """A module that wants (time, batch, features), given (batch, time, features)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("n_layers", [0, 2])
def test_transformer_layers_in_eval_mode(batch_first, n_layers):
    inner = nn.TransformerEncoderLayer(8, 2, 6, dropout=0.3, batch_first=batch_first)
    if n_layers:
        inner = nn.TransformerEncoder(inner, n_layers, enable_nested_tensor=batch_first)
    net = nn.Sequential(inner if batch_first else Transposed(inner)).eval()
    X = noise(7, 3, 8)
    layers = list(inner.layers) if n_layers else [inner]

    # the fused path would not call linear1, nor its hook
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        wanted = [hooked(net, layer.linear1, X) for layer in layers]
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    if not batch_first:
        wanted = [z.transpose(0, 1) for z in wanted]

    states = extract(net, X, layers="*relu")
    root = "0" if batch_first else "0.inner"
    path = [f"{root}.layers.{i}" for i in range(n_layers)] or [root]
    assert states.layer_names == tuple(f"{p}.relu" for p in path)
    assert states.n_gates == (3 * 6,) * len(layers)
    np.testing.assert_array_equal(np.asarray(states), np.hstack([flat(z > 0) for z in wanted]))


def test_attention_dropout_that_cannot_be_seen_warns_only_when_on():
    layer = nn.TransformerEncoderLayer(8, 2, 6, dropout=0.3, batch_first=True)
    extract(layer, noise(5, 3, 8))
    with pytest.warns(GateCaptureWarning, match="one fused call"):
        states = extract(layer, noise(5, 3, 8), sampling="on", random_state=0)
    assert {"dropout", "dropout1", "dropout2"} <= set(states.layer_names)


MERGES = {
    "(n, t) -> n * t": (lambda x: x.reshape(-1, x.shape[-1]), lambda z, n: z.reshape(n, -1)),
    "(t, n) -> t * n": (
        lambda x: x.transpose(0, 1).reshape(-1, x.shape[-1]),
        lambda z, n: z.reshape(-1, n, z.shape[-1]).transpose(0, 1),
    ),
    "(t, n)": (lambda x: x.transpose(0, 1), lambda z, n: z.transpose(0, 1)),
    "(d, t, n)": (lambda x: x.permute(2, 1, 0), lambda z, n: z.movedim(2, 0)),
}


@pytest.mark.parametrize("n_samples", [1, 2, 3, 10])
@pytest.mark.parametrize("t", [2, 3, 4])
@pytest.mark.parametrize("case", MERGES)
def test_samples_are_found_wherever_they_are(case, t, n_samples):
    there, back = MERGES[case]
    X = noise(n_samples, t, 5)
    states = extract(Apply(lambda x: F.relu(there(x))), X)
    wanted = back(there(torch.from_numpy(X)), n_samples)
    assert states.shape == (n_samples, t * 5)
    np.testing.assert_array_equal(np.asarray(states), flat(wanted > 0))


def test_alike_samples_do_not_hide_a_merged_axis():
    there, back = MERGES["(t, n) -> t * n"]
    X = noise(10, 3, 5)
    X[1:4] = X[0]
    states = extract(Apply(lambda x: F.relu(there(x))), X)
    wanted = back(there(torch.from_numpy(X)), 10)
    np.testing.assert_array_equal(np.asarray(states), flat(wanted > 0))


def test_positions_alike_in_the_first_samples_do_not_hide_a_merged_axis():
    # blank images come first in many a dataset
    there, back = MERGES["(t, n) -> t * n"]
    X = noise(10, 3, 5)
    X[:3] = 0
    states = extract(Apply(lambda x: F.relu(there(x))), X)
    wanted = back(there(torch.from_numpy(X)), 10)
    np.testing.assert_array_equal(np.asarray(states), flat(wanted > 0))


def test_merged_axis_with_sampling_upstream():
    # the two passes that tell the axis draw other noise
    there, back = MERGES["(t, n) -> t * n"]
    net, X = nn.Sequential(nn.Dropout(0.5), Apply(there), nn.ReLU()), noise(10, 3, 5)
    extractor = GateExtractor(net, sampling="on", random_state=0, layers=nn.ReLU).fit(X)
    net[1].seen.clear()
    states = extractor.transform(X)
    np.testing.assert_array_equal(np.asarray(states), flat(back(net[1].seen[0], 10) > 0))


# Inputs and outputs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output", [lambda z: (z, None), lambda z: {"logits": z}, lambda z: [z, (z,)]]
)
def test_any_output_will_do(output):
    inner = mlp()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return output(self.inner(x))

    states = extract(Net(), X5)
    assert states.layer_names == ("inner.1", "inner.3")
    np.testing.assert_array_equal(np.asarray(states), mlp_gates(inner, X5))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = linear(5, 4)

    def forward(self, a, b):
        return F.relu(self.fc(a) + b)


class OneDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.two = TwoInputs()

    def forward(self, batch):
        return self.two(batch["a"], batch["b"])


class AnyKeywords(OneDict):
    def forward(self, **batch):
        return super().forward(batch)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(TwoInputs, tuple), (TwoInputs, dict), (OneDict, dict), (AnyKeywords, dict)],
)
@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_several_inputs(make, kind, as_tensor):
    net = make()
    a, b = X5, integers(11, 4, seed=9)
    fc = net.fc if make is TwoInputs else net.two.fc
    wanted = (fc(torch.from_numpy(a)) + torch.from_numpy(b) > 0).numpy()
    parts = {"b": b, "a": a}  # the order of keys does not matter
    if as_tensor:
        parts = {name: torch.from_numpy(part) for name, part in parts.items()}
    states = extract(net, parts if kind is dict else (parts["a"], parts["b"]))
    np.testing.assert_array_equal(np.asarray(states), wanted)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_embedding_keeps_integers(kind):
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3), nn.ReLU())
    X = np.random.default_rng(0).integers(0, 10, size=(9, 6))
    states = extract(net, kind(X))
    wanted = hooked(net, net[1], torch.from_numpy(X)) > 0
    assert states.n_gates == (18,)
    np.testing.assert_array_equal(np.asarray(states), flat(wanted))


def test_integers_of_a_network_without_embedding_are_numbers():
    states = extract(mlp(), X5.astype(int))
    np.testing.assert_array_equal(np.asarray(states), mlp_gates(mlp(), X5))


def test_indices_beside_numbers_stay_integers():
    class Picks(nn.Module):
        def forward(self, x, index):
            assert index.dtype == torch.int64
            return F.relu(x.gather(1, index.clamp(min=0)))

    index = np.array([[0], [4], [-1], [2], [3]])
    states = extract(Picks(), (X5[:5], index))
    assert states.layer_names == ("relu",)
    np.testing.assert_array_equal(
        np.asarray(states), np.take_along_axis(X5[:5], index.clip(0), 1) > 0
    )


def test_integer_columns_with_vocabularies_of_their_own():
    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = nn.Embedding(2, 3), nn.Embedding(1000, 3)

        def forward(self, x):
            return F.relu(self.small(x[:, 0]) + self.large(x[:, 1]))

    rng, net = np.random.default_rng(0), Columns()
    X = np.column_stack([rng.integers(0, 2, 9), rng.integers(900, 1000, 9)])
    small, large = net.small.weight.detach().numpy(), net.large.weight.detach().numpy()
    states = extract(net, X)
    np.testing.assert_array_equal(np.asarray(states), small[X[:, 0]] + large[X[:, 1]] > 0)


def test_category_in_a_column_of_real_numbers():
    table = noise(4, 3)
    net = Apply(lambda x: F.relu(torch.from_numpy(table)[x[:, 0].long()] + 1e-4 * x[:, 1:]))
    X = np.column_stack([np.arange(9) % 4, 1e4 * noise(9)]).astype(np.float32)
    states = extract(net, X)
    wanted = table[X[:, 0].astype(int)] + np.float32(1e-4) * X[:, 1:] > 0
    np.testing.assert_array_equal(np.asarray(states), wanted)


def test_pixels_that_are_probabilities():
    # zeros and ones are the ends of what torch.bernoulli takes
    X = np.random.default_rng(0).integers(0, 2, (9, 6)).astype(np.float32)
    states = extract(Apply(lambda x: F.relu(torch.bernoulli(x) - 0.5)), X)
    np.testing.assert_array_equal(np.asarray(states), X > 0.5)
    states = extract(Apply(lambda x: F.relu(torch.distributions.Bernoulli(x).sample() - 0.5)), X)
    np.testing.assert_array_equal(np.asarray(states), X > 0.5)


def test_embedding_called_below_its_function():
    table, X = torch.from_numpy(noise(10, 3)), np.arange(18).reshape(9, 2) % 10
    net = Apply(lambda x: F.relu(torch.embedding(table, x.long())))
    np.testing.assert_array_equal(np.asarray(extract(net, X)), flat(table.numpy()[X] > 0))


# Selection -----------------------------------------------------------------------------------


class Selectable(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(linear(5, 4), nn.ReLU(), linear(4, 3), nn.LeakyReLU())
        self.dec = nn.Sequential(linear(3, 4), nn.ReLU())

    def forward(self, x):
        return F.relu(self.dec(self.enc(x)) - 1)


SELECTIONS = {
    "name": ("enc.1", ["enc.1"]),
    "glob": ("enc.*", ["enc.1", "enc.3"]),
    "glob ?": ("???.1", ["enc.1", "dec.1"]),
    "all": ("*", ["enc.1", "enc.3", "dec.1", "relu"]),
    "pattern": (re.compile(r".*\.1"), ["enc.1", "dec.1"]),
    "pattern matches in full": (re.compile(r"relu|enc"), ["relu"]),
    "type": (nn.ReLU, ["enc.1", "dec.1"]),
    "caller's type": (Selectable, ["relu"]),
    "slice": (slice(-2, None), ["dec.1", "relu"]),
    "slice step": (slice(None, None, 2), ["enc.1", "dec.1"]),
    "int": (1, ["enc.3"]),
    "negative int": (-1, ["relu"]),
    "list": (["relu", 0, nn.LeakyReLU], ["enc.1", "enc.3", "relu"]),
    "tuple": (("dec.*", re.compile("enc.1")), ["enc.1", "dec.1"]),
    "None": (None, ["enc.1", "enc.3", "dec.1", "relu"]),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_selection_keeps_the_gates_of_the_named_layers(case):
    layers, names = SELECTIONS[case]
    net = Selectable()
    extractor = GateExtractor(net, layers=layers).fit(X5)
    assert extractor.layer_names_ == names
    whole = GateExtractor(net).fit_transform(X5)
    assert extractor.transform(X5) == whole.select(names)
    assert [r.layer for r in extractor.coverage_ if r.captured] == names
    unselected = {r.reason for r in extractor.coverage_ if not r.captured}
    assert unselected <= {"not selected by layers"}
    assert len(extractor.get_feature_names_out()) == sum(whole.select(names).n_gates)


@pytest.mark.parametrize("layers", ["enc.l", ["enc.1", "enc.l"], re.compile("nothing"), nn.GELU, 4])
def test_unknown_layer_raises(layers):
    with pytest.raises(ValueError, match="No layer matches"):
        GateExtractor(Selectable(), layers=layers).fit(X5)


def test_unknown_name_raises_with_the_nearest():
    with pytest.raises(ValueError, match=r"'dec\.2'.*nearest are \['dec\.1'"):
        GateExtractor(Selectable(), layers="dec.2").fit(X5)


EXCLUSIONS = {
    "name": ("enc.1", ["enc.3", "dec.1", "relu"]),
    "pattern": ("enc.*", ["dec.1", "relu"]),
    "type": (nn.LeakyReLU, None),
    "expression": (re.compile("[de].*1"), ["enc.3", "relu"]),
    "list": (["relu", "enc.1"], ["enc.3", "dec.1"]),
    "none": ([], ["enc.1", "enc.3", "dec.1", "relu"]),
}


@pytest.mark.parametrize("case", EXCLUSIONS)
def test_excluded_layers_are_left_out(case):
    exclude, names = EXCLUSIONS[case]
    net, every = Selectable(), GateExtractor(Selectable()).fit(X5).layer_names_
    if names is None:
        names = [n for n in every if not isinstance(dict(net.named_modules()).get(n), exclude)]
    assert names != every or not exclude
    extractor = GateExtractor(net, exclude=exclude).fit(X5)
    assert extractor.layer_names_ == names
    assert extractor.transform(X5) == GateExtractor(net).fit_transform(X5).select(names)
    reasons = {r.reason for r in extractor.coverage_ if not r.captured}
    assert reasons == ({"excluded"} if exclude else set())


def test_layers_and_exclude_together():
    net = Selectable()
    extractor = GateExtractor(net, layers="*c.*", exclude="enc*").fit(X5)
    assert extractor.layer_names_ == ["dec.1"]
    with pytest.raises(ValueError, match=r"(?s)no gating layer.*enc\.1.*excluded"):
        GateExtractor(net, layers="enc.1", exclude="enc*").fit(X5)
    with pytest.raises(ValueError, match=r"No layer matches 'drop\*'"):
        GateExtractor(net, exclude="drop*").fit(X5)


@pytest.mark.parametrize("sampling", ["off", "on"])
def test_dropout_can_be_excluded_with_either_sampling(sampling):
    net = nn.Sequential(linear(5, 4), nn.ReLU(), nn.Dropout(), nn.GELU())
    extractor = GateExtractor(net, exclude=[nn.Dropout, nn.GELU], sampling=sampling).fit(X5)
    assert extractor.layer_names_ == ["1"]  # without a warning of GELU
    assert [r.reason for r in extractor.coverage_] == ["", "excluded", "excluded"]


# Coverage ------------------------------------------------------------------------------------

SMOOTH = {
    "GELU": (nn.GELU, "gelu"),
    "SiLU": (nn.SiLU, "silu"),
    "Tanh": (nn.Tanh, "tanh"),
    "ELU": (nn.ELU, "elu"),
    "SELU": (nn.SELU, "selu"),
    "CELU": (nn.CELU, "celu"),
    "Mish": (nn.Mish, "mish"),
    "Softplus": (nn.Softplus, "softplus"),
    "Sigmoid": (nn.Sigmoid, "sigmoid"),
    "Hardswish": (nn.Hardswish, "hardswish"),
    "LogSigmoid": (nn.LogSigmoid, "logsigmoid"),
    "Softsign": (nn.Softsign, "softsign"),
    "Tanhshrink": (nn.Tanhshrink, "tanhshrink"),
    "torch.tanh": (lambda: torch.tanh, "tanh"),
    "Tensor.tanh_": (lambda: lambda z: z.tanh_(), "tanh"),
    "F.silu inplace": (lambda: lambda z: F.silu(z, inplace=True), "silu"),
}


@pytest.mark.parametrize("case", SMOOTH)
def test_smooth_activations_have_gates_on_demand(case):
    make, operation = SMOOTH[case]
    net = Nested(make())
    z = F.linear(torch.from_numpy(X5), net.block.pre.weight, net.block.pre.bias)
    states = extract(net, X5, smooth=True)
    np.testing.assert_array_equal(np.asarray(states), (z > 0).numpy())
    assert states.kinds == (operation,)
    assert states.layer_names[0] in ("block.act", f"block.{operation}")


@pytest.mark.parametrize("case", SMOOTH)
def test_smooth_activations_are_missed_aloud(case):
    make, operation = SMOOTH[case]
    net = nn.Sequential(Nested(make()), nn.ReLU())
    with pytest.warns(GateCaptureWarning, match=rf"{operation}.*smooth=True"):
        extractor = GateExtractor(net).fit(X5)
    assert extractor.layer_names_ == ["1"]
    record = extractor.coverage_[0]
    assert (record.operation, record.captured, record.n_gates) == (operation, False, 0)


def test_smooth_layer_that_was_not_selected_does_not_warn():
    net = nn.Sequential(linear(5, 4), nn.GELU(), linear(4, 3), nn.ReLU())
    states = extract(net, X5, smooth=True, layers=nn.ReLU)
    assert states.layer_names == ("3",)


def test_coverage_says_what_ran_in_order():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.drop = linear(5, 4), nn.Dropout(0.3)

        def forward(self, x):
            z = self.drop(F.relu(self.fc(x)))
            return z.exp().softmax(-1) + torch.randn_like(z)

    extractor = GateExtractor(Net()).fit(X5)
    records = [(r.layer, r.operation, r.kind, r.n_gates, r.captured) for r in extractor.coverage_]
    assert records == [
        ("relu", "relu", "threshold", 4, True),
        ("drop", "dropout", "dropout", 0, False),
        ("exp", "exp", "smooth", 0, False),
        ("softmax", "softmax", "normalising", 0, False),
        ("randn_like", "randn_like", "random", 0, False),
    ]
    assert [bool(r.reason) for r in extractor.coverage_] == [False, True, True, True, True]


def test_network_without_gates_raises_with_what_ran():
    net = nn.Sequential(linear(5, 4), nn.Softmax(-1))
    with pytest.raises(
        ValueError,
        match=r"(?s)Sequential has no gating layer.*Set gates=.*ran:.*1\b.*softmax.*not captured",
    ):
        GateExtractor(net).fit(X5)
    with pytest.raises(ValueError, match="no non-linear operation ran"):
        GateExtractor(linear(5, 4)).fit(X5)


def test_script_module_raises():
    with pytest.raises(ValueError, match="script module"):
        GateExtractor(torch.jit.trace(mlp(), torch.from_numpy(X5))).fit(X5)


def test_class_instead_of_instance_raises():
    with pytest.raises((TypeError, ValueError), match="instance"):
        GateExtractor(Selectable).fit(X5)


INTEGER_FUNCTIONS = {
    "clamp": lambda i: i.clamp(min=0),
    "clamp both": lambda i: torch.clamp(i, 0, 3),
    "clip": lambda i: i.clip(0),
    "relu": torch.relu,
    "maximum": lambda i: torch.maximum(i, torch.tensor(0)),
    "max": lambda i: torch.max(i, torch.zeros_like(i)),
}


@pytest.mark.parametrize("case", INTEGER_FUNCTIONS)
def test_arithmetic_on_indices_is_no_layer(case):
    function = INTEGER_FUNCTIONS[case]
    table = torch.from_numpy(noise(9, 3))
    net = Apply(lambda x: F.relu(x[:, :1] + table[function(x[:, 0].long())]))
    states = extract(net, X5)
    assert states.layer_names == ("relu",)
    index = X5[:, 0].astype(int).clip(0)
    np.testing.assert_array_equal(np.asarray(states), X5[:, :1] + table.numpy()[index] > 0)


PARAMETER_FUNCTIONS = {
    "F.relu": F.relu,
    "clamp": lambda w: w.clamp(-1, 1),
    "maximum": lambda w: torch.maximum(w, torch.zeros_like(w)),
}


@pytest.mark.parametrize("case", PARAMETER_FUNCTIONS)
def test_function_of_a_parameter_is_no_layer(case):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.arange(-2.0, 3.0))

        def forward(self, x):
            return torch.hardshrink(x * PARAMETER_FUNCTIONS[case](self.scale), 0.5)

    net = Scaled()
    extractor = GateExtractor(net).fit(X5)
    assert extractor.layer_names_ == ["hardshrink"]
    assert "does not depend on the batch" in extractor.coverage_[0].reason
    z = X5 * PARAMETER_FUNCTIONS[case](net.scale).detach().numpy()
    wanted = flat(np.stack([z > -0.5, z > 0.5], axis=-1))
    np.testing.assert_array_equal(np.asarray(extractor.transform(X5)), wanted)


# Randomness ----------------------------------------------------------------------------------


class VAE(nn.Module):
    def __init__(self, sample):
        super().__init__()
        self.enc, self.dec = nn.Linear(5, 8), nn.Linear(4, 6)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.from_numpy(noise(*p.shape, seed=i)))
        self.sample = sample

    def forward(self, x):
        mu, log_std = F.relu(self.enc(x)).chunk(2, dim=-1)
        return F.relu(self.dec(self.sample(mu - 0.5, log_std.exp())))


def distinct(mu):
    return mu + 0.01 * torch.arange(4)  # the most likely class is one, whoever looks for it


def probabilities(mu):
    return distinct(mu).softmax(-1)


# how it draws, and the same written with the mean
DRAWS = {
    "randn_like": (lambda mu, std: mu + std * torch.randn_like(std), lambda mu, std: mu),
    "randn": (lambda mu, std: mu + std * torch.randn(mu.shape), lambda mu, std: mu),
    "randn(a, b)": (lambda mu, std: mu + torch.randn(len(mu), 4), lambda mu, std: mu),
    "rand": (lambda mu, std: mu + torch.rand(mu.shape), lambda mu, std: mu + 0.5),
    "rand_like": (lambda mu, std: mu + torch.rand_like(mu), lambda mu, std: mu + 0.5),
    "normal": (lambda mu, std: torch.normal(mu, std), lambda mu, std: mu),
    "normal(tensor, float)": (lambda mu, std: torch.normal(mu, 2.0), lambda mu, std: mu),
    "normal(float, tensor)": (lambda mu, std: mu + torch.normal(1.0, std), lambda mu, std: mu + 1),
    "normal(mean=, std=)": (lambda mu, std: torch.normal(mean=mu, std=std), lambda mu, std: mu),
    "normal(size)": (lambda mu, std: mu + torch.normal(1.0, 3.0, mu.shape), lambda mu, std: mu + 1),
    "normal(size=)": (
        lambda mu, std: mu + torch.normal(mean=1.0, std=3.0, size=mu.shape),
        lambda mu, std: mu + 1,
    ),
    "normal(mean tensor)": (lambda mu, std: torch.normal(mu), lambda mu, std: mu),
    "normal_": (lambda mu, std: mu + torch.empty_like(mu).normal_(), lambda mu, std: mu),
    "normal_(mean, std)": (
        lambda mu, std: mu + torch.empty_like(mu).normal_(0.5, 3.0),
        lambda mu, std: mu + 0.5,
    ),
    "normal_(mean=)": (
        lambda mu, std: mu + torch.empty_like(mu).normal_(mean=0.5),
        lambda mu, std: mu + 0.5,
    ),
    "uniform_": (
        lambda mu, std: mu + torch.empty_like(mu).uniform_(-1, 3),
        lambda mu, std: mu + 1,
    ),
    "bernoulli": (
        lambda mu, std: torch.bernoulli(probabilities(mu)),
        lambda mu, std: probabilities(mu),
    ),
    "Tensor.bernoulli": (
        lambda mu, std: probabilities(mu).bernoulli(),
        lambda mu, std: probabilities(mu),
    ),
    "bernoulli_": (
        lambda mu, std: mu + torch.empty_like(mu).bernoulli_(0.3),
        lambda mu, std: mu + 0.3,
    ),
    "bernoulli_()": (
        lambda mu, std: mu + torch.empty_like(mu).bernoulli_(),
        lambda mu, std: mu + 0.5,
    ),
    "bernoulli_(tensor)": (
        lambda mu, std: torch.empty_like(mu).bernoulli_(probabilities(mu)),
        lambda mu, std: probabilities(mu),
    ),
    "exponential_": (
        lambda mu, std: mu + torch.empty_like(mu).exponential_(2.0),
        lambda mu, std: mu + 0.5,
    ),
    "poisson": (lambda mu, std: torch.poisson(std), lambda mu, std: std),
    "Normal.rsample": (
        lambda mu, std: torch.distributions.Normal(mu, std).rsample(),
        lambda mu, std: mu,
    ),
    "Normal.sample": (
        lambda mu, std: torch.distributions.Normal(mu, std).sample(),
        lambda mu, std: mu,
    ),
    "Independent.rsample": (
        lambda mu, std: torch.distributions.Independent(
            torch.distributions.Normal(mu, std), 1
        ).rsample(),
        lambda mu, std: mu,
    ),
    "Uniform.rsample": (
        lambda mu, std: torch.distributions.Uniform(mu, mu + 2).rsample(),
        lambda mu, std: mu + 1,
    ),
    "Laplace.rsample": (
        lambda mu, std: torch.distributions.Laplace(mu, std).rsample(),
        lambda mu, std: mu,
    ),
    "Exponential.rsample": (
        lambda mu, std: torch.distributions.Exponential(std).rsample(),
        lambda mu, std: 1 / std,
    ),
    "Bernoulli.sample": (
        lambda mu, std: torch.distributions.Bernoulli(probabilities(mu)).sample(),
        lambda mu, std: probabilities(mu),
    ),
    "Categorical.sample": (
        lambda mu, std: F.one_hot(
            torch.distributions.Categorical(probabilities(mu)).sample(), 4
        ).float(),
        lambda mu, std: F.one_hot(distinct(mu).argmax(-1), 4).float(),
    ),
    "OneHotCategorical.sample": (
        lambda mu, std: torch.distributions.OneHotCategorical(probabilities(mu)).sample(),
        lambda mu, std: F.one_hot(distinct(mu).argmax(-1), 4).float(),
    ),
    "gumbel_softmax": (
        lambda mu, std: F.gumbel_softmax(mu, tau=0.5),
        lambda mu, std: (2 * mu).softmax(-1),
    ),
    "gumbel_softmax hard": (
        lambda mu, std: F.gumbel_softmax(distinct(mu), hard=True),
        lambda mu, std: F.one_hot(distinct(mu).argmax(-1), 4).float(),
    ),
    "gumbel_softmax keywords": (
        lambda mu, std: F.gumbel_softmax(logits=mu.mT[None], tau=2.0, hard=False, dim=1)[0].mT,
        lambda mu, std: (mu / 2).softmax(-1),
    ),
}

X_VAE = noise(40, 5)


@pytest.mark.parametrize("case", DRAWS)
def test_sampling_off_puts_the_mean_in_place_of_what_is_drawn(case):
    draw, mean = DRAWS[case]
    states = extract(VAE(draw), X_VAE)
    wanted = VAE(mean)
    parts = []
    for start in range(0, 40, 4):
        with torch.no_grad():
            x = torch.from_numpy(X_VAE[start : start + 4])
            hidden = wanted.enc(x)
            mu, log_std = hidden.clamp(min=0).chunk(2, dim=-1)
            out = wanted.dec(mean(mu - 0.5, log_std.exp()))
        parts.append(np.hstack([hidden > 0, out > 0]))
    np.testing.assert_array_equal(np.asarray(states), np.vstack(parts))


@pytest.mark.parametrize("case", DRAWS)
def test_sampling_on_follows_random_state(case):
    net = VAE(DRAWS[case][0])
    first, again, other = (
        np.asarray(extract(net, X_VAE, sampling="on", random_state=seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_sampling_on_does_not_follow_the_global_generator():
    net, runs = VAE(DRAWS["randn_like"][0]), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        runs.append(extract(net, X_VAE, sampling="on", random_state=0))
    assert runs[0] == runs[1]


def test_sampling_on_draws_each_batch_afresh():
    X = np.repeat(positive(1, 6), 8, axis=0)
    params = dict(sampling="on", layers="dropout", batch_size=4, random_state=0)
    gates = np.asarray(GateExtractor(nn.Dropout(0.5), **params).fit_transform(X))
    assert (gates[:4] != gates[4:]).any()


def test_fit_then_transform_is_extract_under_sampling():
    net = VAE(DRAWS["randn_like"][0])
    params = dict(sampling="on", random_state=0, batch_size=16)
    at_once, _ = GateExtractor(net, **params).extract(X_VAE)
    assert GateExtractor(net, **params).fit(X_VAE).transform(X_VAE) == at_once


GENERATORS = {
    "randn": lambda mu, g: torch.randn(mu.shape, generator=g),
    "rand": lambda mu, g: torch.rand(mu.shape, generator=g),
    "normal": lambda mu, g: torch.normal(mu, 1.0, generator=g),
    "normal_": lambda mu, g: torch.empty_like(mu).normal_(generator=g),
    "bernoulli": lambda mu, g: torch.bernoulli(mu.softmax(-1), generator=g),
    "multinomial": lambda mu, g: torch.multinomial(mu.softmax(-1), 4, generator=g).float(),
}


@pytest.mark.parametrize("sampling", ["off", "on"])
@pytest.mark.parametrize("case", GENERATORS)
def test_generator_of_the_module_is_left_untouched(case, sampling):
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    net = VAE(lambda mu, std: mu + GENERATORS[case](mu, generator))
    runs = [extract(net, X_VAE, sampling=sampling, random_state=0) for _ in range(2)]
    assert torch.equal(generator.get_state(), before)
    assert runs[0] == runs[1]


def test_random_integers_warn():
    net = Apply(lambda x: F.relu(x + torch.randint(0, 2, x.shape)))
    with pytest.warns(GateCaptureWarning, match="random integers"):
        assert extract(net, X5).layer_names == ("relu",)


# An independent count ------------------------------------------------------------------------


class Count(TorchDispatchMode):
    """Count ReLUs and max poolings below autograd, where every way to call them ends."""

    relus = {"relu", "relu_", "threshold", "threshold_", "clamp", "clamp_", "clamp_min"}
    pools = {"max_pool2d_with_indices", "adaptive_max_pool2d"}

    def __init__(self):
        super().__init__()
        self.n_relus = self.n_pools = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.n_relus += function.overloadpacket.__name__ in self.relus
        self.n_pools += function.overloadpacket.__name__ in self.pools
        return function(*args, **(kwargs or {}))


class FunctionalMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 5) for _ in range(5)])
        self.act = nn.ReLU()

    def forward(self, x):
        a, b, c, d, e = self.layers
        x = F.relu(a(x))
        x = torch.relu(b(x)).relu()
        x = c(x).relu_()
        x = self.act(d(x)).clamp(min=0)
        return F.threshold(e(x), 0, 0)


class Residual(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)  # twice a block, as in torchvision
        self.down = None
        if stride > 1:
            self.down = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))

    def forward(self, x):
        z = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        z += x if self.down is None else self.down(x)
        return self.relu(z)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 2, 3, 1, 1), nn.BatchNorm2d(2), nn.ReLU()
        widths = [(2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 3, 2), (3, 3, 1), (3, 3, 1), (3, 4, 2)]
        self.blocks = nn.Sequential(*(Residual(*w) for w in [*widths, (4, 4, 1), (4, 4, 1)]))
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = self.blocks(self.relu(self.bn(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def vgg():
    features = []
    for n_in, n_out in [(3, 2), (2, 3), (3, 4)]:
        features += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 5), nn.ReLU()]
    return nn.Sequential(*features, nn.AdaptiveMaxPool2d(1), *head, nn.Dropout(), nn.Linear(5, 2))


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True)
    return nn.TransformerEncoder(layer, 3)


# network, its input, ReLUs and poolings that it runs
COUNTED = {
    "MLP": (FunctionalMLP, (5,), 7, 0),
    "ResNet-20": (ResNet20, (3, 8, 8), 19, 0),
    "VGG": (vgg, (3, 8, 8), 5, 4),
    "Transformer": (transformer, (3, 8), 3, 0),
    "VAE": (lambda: VAE(DRAWS["randn_like"][0]), (5,), 2, 0),
}


@pytest.mark.parametrize("case", COUNTED)
def test_every_relu_and_pooling_that_the_dispatcher_saw_is_captured(case):
    make, shape, n_relus, n_pools = COUNTED[case]
    net, X = make().eval(), noise(5, *shape)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), Count() as count:
            net(torch.from_numpy(X))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert (count.n_relus, count.n_pools) == (n_relus, n_pools)
    kinds = extract(net, X).kinds
    pools = [kind for kind in kinds if "pool" in kind]
    relus = [kind for kind in kinds if kind in ("relu", "clamp", "threshold")]
    assert (len(relus), len(pools)) == (count.n_relus, count.n_pools)


def test_resnet_gates_equal_those_at_its_relu_modules():
    net, X, wanted = ResNet20().eval(), noise(5, 3, 8, 8), []

    def keep(module, args):  # a pre-hook sees the input before the module overwrites it
        wanted.append(flat(args[0] > 0).copy())

    handles = [m.register_forward_pre_hook(keep) for m in net.modules() if isinstance(m, nn.ReLU)]
    with torch.no_grad():
        net(torch.from_numpy(X))
    for handle in handles:
        handle.remove()
    states = extract(net, X)
    np.testing.assert_array_equal(np.asarray(states), np.hstack(wanted))
    assert states.layer_names[:4] == ("relu", "blocks.0.relu", "blocks.0.relu:1", "blocks.1.relu")
