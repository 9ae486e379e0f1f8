"""What the measures read from a torch module, against activations computed by hand."""

import copy
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from test_module_restored import assert_unchanged, build, snapshot
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from skgate import (
    BinnedLayerMI,
    GibbsLayerMI,
    KDELayerMI,
    gibbs_layer_mi,
    layer_activations,
)
from skgate.capture import ActivationReader

pytestmark = [
    # activations of the networks here are small beside the default bins
    pytest.mark.filterwarnings("ignore:All samples are in one cell"),
    # and samples are few
    pytest.mark.filterwarnings("ignore::skgate.SaturationWarning"),
]

MEASURES = [GibbsLayerMI, BinnedLayerMI, KDELayerMI]
TIGHT = {"rtol": 1e-12, "atol": 1e-12}
N = 11
Y = np.arange(N) % 3


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X4, SEQUENCES, IMAGES = noise(N, 4), noise(N, 5, 4), noise(N, 2, 6, 5)


def read(net, X, y=None, *, layers=None, spatial="channels", batch_size=4):
    """Return the activations of each layer, and the names of the functions that made them."""
    reader = ActivationReader(net, layers=layers, spatial=spatial, batch_size=batch_size)
    parts = [part for part, _ in reader.read(GibbsLayerMI(), X, y, reset=True)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return arrays, dict(zip(arrays, reader.activation_functions, strict=True))


def rows(tensor):
    """Samples by positions by units, of a tensor with the units last."""
    array = tensor.detach().double().numpy()
    return array.reshape(len(array), -1, array.shape[-1])


def channels(tensor):
    return rows(tensor.movedim(1, -1))


class Net(nn.Module):
    """A function of the input and of some parts."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def double(net, seed=0):
    """Return a network in float64 and evaluation mode, its statistics far from 0 and 1."""
    net = net.double()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(values.abs() + 0.3 if name.endswith("running_var") else values)
    return net.eval()


def around(activation):
    """An activation between two linear layers."""
    net = Net(lambda s, x: s.out(s.act(s.fc(x))), fc=nn.Linear(4, 6), out=nn.Linear(6, 3))
    net.act = activation
    return double(net)


# Activation functions ----------------------------------------------------------------------------

FUNCTIONS = {
    "ReLU": (nn.ReLU(), F.relu),
    "ReLU inplace": (nn.ReLU(inplace=True), F.relu),
    "F.relu": (F.relu, F.relu),
    "F.relu inplace": (lambda z: F.relu(z, inplace=True), F.relu),
    "Tensor.relu": (lambda z: z.relu(), F.relu),
    "Tensor.relu_": (lambda z: z.relu_(), F.relu),
    "torch.relu": (torch.relu, F.relu),
    "clamp": (lambda z: z.clamp(min=0), F.relu),
    "maximum": (lambda z: torch.maximum(z, torch.zeros_like(z)), F.relu),
    "max of two": (lambda z: torch.max(z, torch.zeros_like(z)), F.relu),
    "ReLU6": (nn.ReLU6(), F.relu6),
    "LeakyReLU": (nn.LeakyReLU(0.2), lambda z: F.leaky_relu(z, 0.2)),
    "RReLU": (nn.RReLU(0.1, 0.3), lambda z: F.leaky_relu(z, 0.2)),
    "Hardtanh": (nn.Hardtanh(), F.hardtanh),
    "Hardswish": (nn.Hardswish(), F.hardswish),
    "Hardsigmoid": (nn.Hardsigmoid(), F.hardsigmoid),
    "Threshold": (nn.Threshold(0.3, -2), lambda z: torch.where(z > 0.3, z, -2.0)),
    "Softshrink": (nn.Softshrink(), F.softshrink),
    "Tanh": (nn.Tanh(), torch.tanh),
    "Tensor.tanh_": (lambda z: z.tanh_(), torch.tanh),
    "Sigmoid": (nn.Sigmoid(), torch.sigmoid),
    "GELU": (nn.GELU(), F.gelu),
    "GELU tanh": (nn.GELU("tanh"), lambda z: F.gelu(z, approximate="tanh")),
    "SiLU": (nn.SiLU(), F.silu),
    "SiLU inplace": (nn.SiLU(inplace=True), F.silu),
    "Mish": (nn.Mish(), F.mish),
    "ELU": (nn.ELU(inplace=True), F.elu),
    "CELU": (nn.CELU(0.5), lambda z: F.celu(z, 0.5)),
    "SELU": (nn.SELU(), F.selu),
    "Softplus": (nn.Softplus(), F.softplus),
    "Softsign": (nn.Softsign(), F.softsign),
    "LogSigmoid": (nn.LogSigmoid(), F.logsigmoid),
    "Tanhshrink": (nn.Tanhshrink(), F.tanhshrink),
    "sin": (torch.sin, torch.sin),
    "square": (torch.square, torch.square),
    "swish by hand": (lambda z: z * torch.sigmoid(z), F.silu),
    "swish by hand, method": (lambda z: z.mul(z.sigmoid()), F.silu),
    "mish by hand": (lambda z: z * torch.tanh(F.softplus(z)), F.mish),
    "gelu by hand": (lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)), F.gelu),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_layer_is_read_after_its_activation_function(case):
    activation, by_hand = FUNCTIONS[case]
    net = around(activation)
    x = torch.tensor(X4)
    hidden = by_hand(F.linear(x, net.fc.weight, net.fc.bias))
    arrays, functions = read(net, X4)
    assert list(arrays) == ["fc", "out"]
    assert functions["fc"] is not None
    assert functions["out"] is None
    assert_allclose(arrays["fc"], rows(hidden), **TIGHT)
    assert_allclose(arrays["out"], rows(net.out(hidden)), **TIGHT)


def test_a_mlp_of_modules_goes_by_their_names():
    net = double(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(),
                               nn.Linear(6, 5), nn.Linear(5, 3)))  # fmt: skip
    arrays, functions = read(net, X4)
    assert functions == {"0": "relu", "2": "tanh", "4": None, "5": None}
    x = torch.tensor(X4)
    expected = [net[:2](x), net[:4](x), net[:5](x), net(x)]
    for array, tensor in zip(arrays.values(), expected, strict=True):
        assert_allclose(array, rows(tensor), **TIGHT)


BETWEEN = {
    "BatchNorm": lambda: nn.BatchNorm1d(6),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "Dropout": lambda: nn.Dropout(0.5),
    "AlphaDropout": lambda: nn.AlphaDropout(0.5),
    "scaling": lambda: Net(lambda s, z: 2 * z / 3),
    "shift": lambda: Net(lambda s, z: 1 - z.add(0.5)),
    "bias": lambda: Net(lambda s, z: z + s.b, b=nn.Parameter(torch.zeros(6))),
    "scale by a parameter": lambda: Net(lambda s, z: s.g * z, g=nn.Parameter(torch.zeros(1))),
    "negation": lambda: Net(lambda s, z: -z),
    "reshape": lambda: Net(lambda s, z: z.view(-1, 2, 3).flatten(1)),
    "cast": lambda: Net(lambda s, z: z.float().double()),
    "two": lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Identity()),
}


@pytest.mark.parametrize("case", BETWEEN)
@pytest.mark.parametrize("training", [False, True])
def test_what_stands_between_a_layer_and_its_activation_function_is_part_of_it(case, training):
    between = BETWEEN[case]()
    net = double(
        nn.Sequential(nn.Linear(4, 6), between, nn.ReLU(), nn.Dropout(0.4), nn.Linear(6, 3))
    )
    expected = net[:3](torch.tensor(X4)), net(torch.tensor(X4))
    arrays, functions = read(net.train(training), X4)
    assert functions == {"0": "relu", "4": None}
    assert_allclose(arrays["0"], rows(expected[0]), **TIGHT)
    assert_allclose(arrays["4"], rows(expected[1]), **TIGHT)


def test_normalisation_without_an_activation_function_is_not_read():
    net = double(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)))
    arrays, functions = read(net, X4)
    assert functions == {"0": None, "2": None}
    assert_allclose(arrays["0"], rows(net[0](torch.tensor(X4))), **TIGHT)


ENDS = {
    "softmax": lambda z: z.softmax(-1),
    "log_softmax": lambda z: F.log_softmax(z, dim=-1),
    "sigmoid": torch.sigmoid,
    "sigmoid in place": lambda z: z.sigmoid_(),
    "ReLU": F.relu,
    "ReLU in place": lambda z: F.relu_(z),
    "BatchNorm and tanh": lambda z: torch.tanh(F.layer_norm(z, (3,))),
    "temperature": lambda z: (z / 7).softmax(-1),
    "dropout": lambda z: F.dropout(z, 0.5),
    "tuple": lambda z: (z.softmax(-1), z),
    "dict": lambda z: {"logits": z},
    "argmax": lambda z: z.argmax(-1),
    "nothing": lambda z: None,
}


@pytest.mark.parametrize("case", ENDS)
def test_the_last_layer_is_read_as_logits(case):
    net = double(Net(lambda s, x: s.end(s.out(F.relu(s.fc(x)))), fc=nn.Linear(4, 6),
                     out=nn.Linear(6, 3)))  # fmt: skip
    net.end = ENDS[case]
    logits = net.out(F.relu(net.fc(torch.tensor(X4))))
    for layers in (None, "out", -1, slice(-1, None)):
        arrays, functions = read(net, X4, layers=layers)
        assert functions["out"] is None
        assert_allclose(arrays["out"], rows(logits), **TIGHT)


def test_the_last_layer_called_twice_is_read_twice():
    net = double(Net(lambda s, x: F.relu(s.fc(F.tanh(s.fc(x)))), fc=nn.Linear(4, 4)))
    arrays, functions = read(net, X4)
    assert functions == {"fc": "tanh", "fc:1": None}
    x = torch.tensor(X4)
    assert_allclose(arrays["fc"], rows(torch.tanh(net.fc(x))), **TIGHT)
    assert_allclose(arrays["fc:1"], rows(net.fc(torch.tanh(net.fc(x)))), **TIGHT)


# Ways to write a linear layer --------------------------------------------------------------------


class OwnLinear(nn.Linear):
    """A subclass, with a forward of its own."""

    def forward(self, x):
        return super().forward(x) * 2


WAYS = {
    "linear": (lambda s, x: s.fc(x), {"fc": nn.Linear(4, 6)}),
    "F.linear": (lambda s, x: F.linear(x, s.W.T), {}),
    "@": (lambda s, x: x @ s.W + s.b, {}),
    "matmul": (lambda s, x: torch.matmul(x, s.W) + s.b, {}),
    "Tensor.mm": (lambda s, x: x.mm(s.W).add_(s.b), {}),
    "addmm": (lambda s, x: torch.addmm(s.b, x, s.W), {}),
    "einsum": (lambda s, x: torch.einsum("nd,do->no", x, s.W) + s.b, {}),
    "tensordot": (lambda s, x: torch.tensordot(x, s.W, 1) + s.b, {}),
    "transposed": (lambda s, x: (s.W.t() @ x.t()).t() + s.b, {}),
    "transposed by .T": (lambda s, x: (s.W.T @ x.T).T + s.b, {}),
    "Bilinear": (lambda s, x: s.fc(x, x), {"fc": nn.Bilinear(4, 4, 6)}),
    "tied": (lambda s, x: F.linear(x, s.fc.weight.t()), {"fc": nn.Linear(6, 4)}),
    "weight norm": (
        lambda s, x: s.fc(x),
        {"fc": nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))},
    ),
}


@pytest.mark.parametrize("case", WAYS)
def test_linear_layers_are_seen_however_they_are_written(case, recwarn):
    function, parts = WAYS[case]
    parts = {"W": nn.Parameter(torch.zeros(4, 6)), "b": nn.Parameter(torch.zeros(6)),
             "out": nn.Linear(6, 3), **parts}  # fmt: skip
    net = double(Net(lambda s, x: s.out(F.relu(function(s, x))), **parts))
    arrays, functions = read(net, X4)
    x = torch.tensor(X4)
    assert len(arrays) == 2
    assert list(functions.values()) == ["relu", None]
    assert_allclose(next(iter(arrays.values())), rows(F.relu(function(net, x))), **TIGHT)
    assert_allclose(arrays["out"], rows(net(x)), **TIGHT)
    assert [str(w.message) for w in recwarn] == []


def test_a_subclass_of_linear_is_read_after_what_it_adds():
    net = double(nn.Sequential(OwnLinear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    arrays, functions = read(net, X4)
    assert list(functions.values()) == ["relu", None]
    assert_allclose(next(iter(arrays.values())), rows(net[:2](torch.tensor(X4))), **TIGHT)


def test_a_product_of_two_inputs_is_no_layer():
    net = double(Net(lambda s, x: s.out((x @ x.transpose(1, 2)).flatten(1)), out=nn.Linear(25, 3)))
    assert list(read(net, SEQUENCES)[0]) == ["out"]


def test_gated_linear_units():
    net = double(Net(lambda s, x: s.out(F.silu(s.gate(x)) * s.up(x)), gate=nn.Linear(4, 6),
                     up=nn.Linear(4, 6), out=nn.Linear(6, 3)))  # fmt: skip
    arrays, functions = read(net, X4)
    x = torch.tensor(X4)
    assert functions == {"gate": "silu", "up": None, "out": None}
    assert_allclose(arrays["gate"], rows(F.silu(net.gate(x))), **TIGHT)
    assert_allclose(arrays["up"], rows(net.up(x)), **TIGHT)
    net = double(nn.Sequential(nn.Linear(4, 12), nn.GLU(), nn.Linear(6, 3)))
    arrays, functions = read(net, X4)
    assert functions == {"0": None, "2": None}
    assert_allclose(arrays["0"], rows(net[0](x)), **TIGHT)


def test_a_product_of_two_layers_is_neither_of_them():
    net = double(Net(lambda s, x: s.out(F.relu(s.a(x) * s.b(x))), a=nn.Linear(4, 6),
                     b=nn.Linear(4, 6), out=nn.Linear(6, 3)))  # fmt: skip
    arrays, functions = read(net, X4)
    assert functions == {"a": None, "b": None, "out": None}
    assert_allclose(arrays["b"], rows(net.b(torch.tensor(X4))), **TIGHT)


def test_an_autoencoder_of_tied_weights():
    net = double(Net(lambda s, x: F.linear(torch.tanh(s.fc(x)), s.fc.weight.t()),
                     fc=nn.Linear(4, 2)))  # fmt: skip
    arrays, functions = read(net, X4)
    assert list(functions.values()) == ["tanh", None]
    x = torch.tensor(X4)
    assert_allclose(arrays["fc"], rows(torch.tanh(net.fc(x))), **TIGHT)
    assert_allclose(list(arrays.values())[1], rows(net(x)), **TIGHT)


# Positions ---------------------------------------------------------------------------------------


def conv_net(k, layer, act, **kwargs):
    size = {1: (7,), 2: (6, 5), 3: (4, 3, 5)}[k]
    X = noise(N, 2, *size, seed=k)
    conv = layer(2, 5, 3, **kwargs)
    features = int(np.prod(conv(torch.tensor(X).float()).shape[1:]))
    net = nn.Sequential(conv, act, nn.Flatten(), nn.Linear(features, 3))
    return double(net), X


CONVS = {
    "conv1d": (1, nn.Conv1d, {}),
    "conv2d": (2, nn.Conv2d, {}),
    "conv3d": (3, nn.Conv3d, {}),
    "strided": (2, nn.Conv2d, {"stride": 2, "padding": 1, "bias": False}),
    "units as many as columns": (2, nn.Conv2d, {"padding": 1}),  # (5, 6, 5)
    "transpose1d": (1, nn.ConvTranspose1d, {}),
    "transpose2d": (2, nn.ConvTranspose2d, {"stride": 2}),
    "transpose3d": (3, nn.ConvTranspose3d, {}),
}


@pytest.mark.parametrize("case", CONVS)
@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.Identity()], ids=repr)
def test_channels_are_units_and_positions_samples(case, act):
    k, layer, kwargs = CONVS[case]
    net, X = conv_net(k, layer, act, **kwargs)
    expected = net[:2](torch.tensor(X))
    arrays, _ = read(net, X)
    assert_allclose(arrays["0"], channels(expected), **TIGHT)
    assert arrays["3"].shape == (N, 1, 3)
    flat, _ = read(net, X, spatial="flatten")
    assert_allclose(flat["0"], rows(expected.flatten(1)), **TIGHT)
    assert_array_equal(flat["3"], arrays["3"])


def test_measures_of_positions_are_those_of_all_positions():
    net, X = conv_net(2, nn.Conv2d, nn.ReLU())
    conv = channels(net[:2](torch.tensor(X)))
    logits = net(torch.tensor(X)).detach().numpy()
    y = np.repeat(Y, conv.shape[1])
    flat = conv.reshape(-1, 5)
    for measure in MEASURES:
        fitted = measure(net, spatial="channels", batch_size=4).fit(X, Y)
        for i, (activations, labels) in enumerate([(flat, y), (logits, Y)]):
            expected = measure().fit(activations, labels)
            assert_allclose(fitted.layer_mi_x_[i], expected.layer_mi_x_[0], **TIGHT)
            assert_allclose(fitted.layer_mi_y_[i], expected.layer_mi_y_[0], **TIGHT)
        assert fitted.n_units_ == [5, 3]
        alone = measure(net, spatial="channels", layers=0).fit(X, Y)
        assert_allclose(alone.score(X, Y), measure().fit(flat, y).score(flat, y), **TIGHT)
        by_position = measure().fit(flat, y).transform(flat)
        expected = by_position.reshape(N, -1, by_position.shape[1]).mean(axis=1)
        assert_allclose(alone.transform(X), expected, **TIGHT)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d], ids=["batch", "instance"])
def test_normalisation_between_a_convolution_and_its_activation_function(norm):
    net = double(nn.Sequential(nn.Conv2d(2, 5, 3), norm(5), nn.Dropout2d(), nn.ReLU(),
                               nn.Flatten(), nn.Linear(60, 3)))  # fmt: skip
    arrays, functions = read(net, IMAGES)
    assert functions == {"0": "relu", "5": None}
    assert_allclose(arrays["0"], channels(net[:4](torch.tensor(IMAGES))), **TIGHT)


def test_what_does_not_depend_on_the_input_is_no_layer(recwarn):
    net = double(Net(lambda s, x: s.out(F.relu(s.fc(x) + s.position(s.p))), fc=nn.Linear(4, 6),
                     position=nn.Linear(2, 6), out=nn.Linear(6, 3),
                     p=nn.Parameter(torch.zeros(2))))  # fmt: skip
    arrays, functions = read(net, X4)
    assert functions["fc"] == "relu"
    hidden = F.relu(net.fc(torch.tensor(X4)) + net.position(net.p))
    assert_allclose(arrays["fc"], rows(hidden), **TIGHT)
    query = double(Net(lambda s, x: s.out(s.fc(x) * s.position(s.p)), fc=nn.Linear(4, 6),
                       position=nn.Linear(2, 6), out=nn.Linear(6, 3),
                       p=nn.Parameter(torch.zeros(2))))  # fmt: skip
    assert list(read(query, X4)[0]) == ["fc", "out"]
    assert [str(w.message) for w in recwarn] == []


POOLS = [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(2)]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_pooling_between_a_convolution_and_its_activation_function(pool):
    conv = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), pool, nn.ReLU())
    n_features = conv(torch.zeros(2, 2, 6, 5)).flatten(1).shape[1]
    net = double(nn.Sequential(conv, nn.Flatten(), nn.Linear(n_features, 3)))
    arrays, functions = read(net, IMAGES)
    assert functions == {"0.0": "relu", "2": None}
    assert_allclose(arrays["0.0"], channels(net[0](torch.tensor(IMAGES))), **TIGHT)


def test_units_flattened_with_their_positions_are_told():
    net = double(nn.Sequential(nn.Conv2d(2, 7, 3), nn.Flatten(), nn.ReLU(), nn.Linear(84, 3)))
    with pytest.warns(UserWarning, match=r"which axis .* of shape \(84,\), holds its 7 units"):
        arrays, _ = read(net, IMAGES)
    assert_allclose(arrays["0"], rows(net[:3](torch.tensor(IMAGES))), **TIGHT)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.short, self.fc = nn.Conv2d(2, 4, 1), nn.Linear(4, 3)
        self.in_place = False

    def block(self, x):
        z = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.in_place:
            z += self.short(x)
            return z.relu_()
        return F.relu(z + self.short(x))

    def forward(self, x):
        return self.fc(self.block(x).mean((2, 3)))


@pytest.mark.parametrize("in_place", [False, True])
def test_convolutions_that_are_added_have_the_activation_function_of_the_sum(in_place):
    net = double(Residual())
    x = torch.tensor(IMAGES)
    block = net.block(x)
    net.in_place = in_place
    arrays, functions = read(net, IMAGES)
    assert functions == {"conv1": "relu", "conv2": "relu", "short": "relu", "fc": None}
    assert_allclose(arrays["conv1"], channels(F.relu(net.bn1(net.conv1(x)))), **TIGHT)
    assert_allclose(arrays["conv2"], channels(block), **TIGHT)
    assert_array_equal(arrays["short"], arrays["conv2"])
    assert_allclose(arrays["fc"], rows(net(x)), **TIGHT)


def test_activations_overwritten_later_are_read_as_they_were():
    def forward(s, x):
        a = F.relu(s.a(x))
        z = s.b(a)
        a.mul_(-100)
        raw = z * 1
        z.fill_(7)
        return s.out(raw).zero_()

    parts = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 5), "out": nn.Linear(5, 3)}
    net = double(Net(forward, **parts))
    arrays, functions = read(net, X4)
    a = F.relu(net.a(torch.tensor(X4)))
    assert functions == {"a": "relu", "b": None, "out": None}
    assert_allclose(arrays["a"], rows(a), **TIGHT)
    assert_allclose(arrays["b"], rows(net.b(a)), **TIGHT)
    assert_allclose(arrays["out"], rows(net.out(net.b(a))), **TIGHT)


@pytest.mark.parametrize("act", [F.relu, lambda z: z * 1], ids=["relu", "none"])
def test_samples_are_told_although_their_values_are_overwritten(act):
    def forward(s, x):
        z = act(s.fc(x.transpose(0, 1).reshape(-1, 4)))  # (t * n, d)
        kept = z * 1
        z.zero_()
        return s.out(kept.reshape(5, -1, 6).mean(0))

    def overwriting(s, x):
        z = s.fc(x.transpose(0, 1).reshape(-1, 4))
        kept = act(z) * 1
        z.zero_()
        return s.out(kept.reshape(5, -1, 6).mean(0))

    for function in (forward, overwriting):
        net = double(Net(function, fc=nn.Linear(4, 6), out=nn.Linear(6, 3)))
        expected = act(net.fc(torch.tensor(SEQUENCES)))
        assert_allclose(read(net, SEQUENCES)[0]["fc"], rows(expected), **TIGHT)


def test_the_first_of_two_activation_functions_is_that_of_the_layer():
    for function in (lambda z: torch.relu(z) + torch.tanh(z), lambda z: torch.tanh(z.relu_())):
        net = around(function)
        arrays, functions = read(net, X4)
        assert functions == {"fc": "relu", "out": None}
        assert_allclose(arrays["fc"], rows(F.relu(net.fc(torch.tensor(X4)))), **TIGHT)


def test_a_last_convolution_is_read_with_its_own_positions(recwarn):
    net = double(nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.ReLU()))
    arrays, functions = read(net, IMAGES)
    assert functions == {"0": None}
    assert_allclose(arrays["0"], channels(net[0](torch.tensor(IMAGES))), **TIGHT)
    assert [str(w.message) for w in recwarn] == []


def test_units_that_could_be_on_two_axes_are_told():
    net = double(Net(lambda s, x: s.out(F.relu(s.fc(x).transpose(1, 3)).flatten(1)),
                     fc=nn.Linear(4, 6), out=nn.Linear(72, 3)))  # fmt: skip
    X = noise(N, 2, 6, 4)
    with pytest.warns(UserWarning, match=r"of shape \(6, 6, 2\), holds its 6 units"):
        arrays, _ = read(net, X)
    expected = F.relu(net.fc(torch.tensor(X)).transpose(1, 3)).flatten(1)
    assert_allclose(arrays["fc"], rows(expected), **TIGHT)


SEQUENCE_NETS = {
    "batch first": lambda s, x: s.out(F.relu(s.fc(x)).mean(1)),
    "batch second": lambda s, x: s.out(F.relu(s.fc(x.transpose(0, 1))).mean(0)),
    "merged": lambda s, x: s.out(F.relu(s.fc(x.reshape(-1, 4))).reshape(len(x), 5, 6).mean(1)),
    "merged, batch second": lambda s, x: s.out(
        F.relu(s.fc(x.transpose(0, 1).reshape(-1, 4))).reshape(5, len(x), 6).mean(0)
    ),
    "turned": lambda s, x: s.out(F.relu(s.fc(x).transpose(1, 2)).mean(2)),
    "as many units as positions": None,
}


@pytest.mark.parametrize("case", SEQUENCE_NETS)
def test_positions_of_a_sequence(case, recwarn):
    function, n_units = SEQUENCE_NETS[case], 6
    if function is None:
        function, n_units = SEQUENCE_NETS["batch first"], 5
    net = double(Net(function, fc=nn.Linear(4, n_units), out=nn.Linear(n_units, 3)))
    expected = F.relu(net.fc(torch.tensor(SEQUENCES)))  # (n, t, d)
    arrays, _ = read(net, SEQUENCES)
    assert_allclose(arrays["fc"], rows(expected), **TIGHT)
    assert arrays["out"].shape == (N, 1, 3)
    assert [str(w.message) for w in recwarn] == []
    for spatial in ("channels", "flatten"):
        small, _ = read(net, SEQUENCES, spatial=spatial, batch_size=1)
        large, _ = read(net, SEQUENCES, spatial=spatial, batch_size=50)
        assert_allclose(small["fc"], large["fc"], **TIGHT)


def attention(s, x):
    q, k, v = s.qkv(x).chunk(3, dim=-1)
    x = x + s.proj(F.scaled_dot_product_attention(q, k, v))
    x = x + s.down(F.gelu(s.up(s.norm(x))))
    return s.head(x.mean(1))


def test_a_transformer_written_out(recwarn):
    parts = {"qkv": nn.Linear(4, 12), "proj": nn.Linear(4, 4), "norm": nn.LayerNorm(4),
             "up": nn.Linear(4, 7), "down": nn.Linear(7, 4), "head": nn.Linear(4, 3)}  # fmt: skip
    net = double(Net(attention, **parts))
    arrays, functions = read(net, SEQUENCES)
    assert list(arrays) == ["qkv", "proj", "up", "down", "head"]
    assert functions["up"] == "gelu"
    x = torch.tensor(SEQUENCES)
    assert_allclose(arrays["qkv"], rows(net.qkv(x)), **TIGHT)
    assert_allclose(arrays["head"], rows(net(x)), **TIGHT)
    # no linear layer is inside the attention: nothing is hidden
    assert [str(w.message) for w in recwarn] == []


def last(output):
    return output[0][:, -1]


HIDES = {
    "MultiheadAttention": (lambda s, x: s.out(s.m(x, x, x)[0][:, 0]),
                           lambda: nn.MultiheadAttention(4, 2, batch_first=True)),
    "TransformerEncoderLayer": (lambda s, x: s.out(s.m(x)[:, 0]),
                                lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
    "LSTM": (lambda s, x: s.out(last(s.m(x))), lambda: nn.LSTM(4, 4, batch_first=True)),
    "GRU": (lambda s, x: s.out(last(s.m(x))), lambda: nn.GRU(4, 4, batch_first=True)),
    "RNN tanh": (lambda s, x: s.out(last(s.m(x))), lambda: nn.RNN(4, 4, batch_first=True)),
    "RNN relu": (lambda s, x: s.out(last(s.m(x))),
                 lambda: nn.RNN(4, 4, nonlinearity="relu", batch_first=True)),
    "LSTMCell": (lambda s, x: s.out(s.m(x[:, 0])[0]), lambda: nn.LSTMCell(4, 4)),
    "GRUCell": (lambda s, x: s.out(s.m(x[:, 0])), lambda: nn.GRUCell(4, 4)),
    "RNNCell": (lambda s, x: s.out(s.m(x[:, 0])), lambda: nn.RNNCell(4, 4)),
    "RNNCell relu": (lambda s, x: s.out(s.m(x[:, 0])),
                     lambda: nn.RNNCell(4, 4, nonlinearity="relu")),
}  # fmt: skip


@pytest.mark.parametrize("case", HIDES)
def test_linear_layers_that_cannot_be_seen_are_told(case):
    function, make = HIDES[case]
    net = double(Net(function, m=make(), out=nn.Linear(4, 3)))
    with pytest.warns(UserWarning, match=r"cannot be seen and are not measured:\n  m") as caught:
        arrays, _ = read(net, SEQUENCES)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert_allclose(arrays["out"], rows(net(torch.tensor(SEQUENCES))), **TIGHT)


def test_a_network_without_linear_layers_says_so():
    net = Net(lambda s, x: F.relu(x))
    for measure in MEASURES:
        with pytest.raises(ValueError, match="Net has no linear or convolutional layer"):
            measure(net).fit(X4, Y)


# Kinds of modules --------------------------------------------------------------------------------


@pytest.fixture
def net():
    return double(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(),
                                nn.Linear(6, 3)))  # fmt: skip


@pytest.fixture
def by_hand(net):
    x = torch.tensor(X4)
    parts = {"0": net[:2](x), "2": net[:4](x), "4": net(x)}
    return {name: part.detach().numpy() for name, part in parts.items()}


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_of_a_model_are_those_of_its_activations(net, by_hand, measure):
    fitted, direct = measure(net, batch_size=4).fit(X4, Y), measure().fit(by_hand, Y)
    assert fitted.layer_names_ == direct.layer_names_ == ["0", "2", "4"]
    assert fitted.n_units_ == [8, 6, 3]
    assert fitted.activation_functions_ == ["relu", "tanh", None]
    assert not hasattr(direct, "activation_functions_")
    assert fitted.n_features_in_ == 4
    assert_allclose(fitted.layer_mi_x_, direct.layer_mi_x_, **TIGHT)
    assert_allclose(fitted.layer_mi_y_, direct.layer_mi_y_, **TIGHT)
    assert_allclose(fitted.transform(X4), direct.transform(by_hand), **TIGHT)
    assert_allclose(fitted.score(X4, Y), direct.score(by_hand, Y), **TIGHT)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_second_fit_without_a_model_forgets_the_first(net, by_hand, measure):
    fitted = measure(net).fit(X4, Y).set_params(model=None).fit(by_hand, Y)
    assert not hasattr(fitted, "activation_functions_")
    assert_allclose(fitted.transform(by_hand), measure().fit(by_hand, Y).transform(by_hand))
    fitted.set_params(model=net).fit(X4, Y)
    assert fitted.activation_functions_ == ["relu", "tanh", None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_modules_of_less_precision(net, dtype):
    small = copy.deepcopy(net).to(dtype)
    arrays, _ = read(small, X4)
    with torch.no_grad():
        x = torch.tensor(X4).to(dtype)
        parts = [small[:2](x), small[:4](x), small(x)]
    for array, part in zip(arrays.values(), parts, strict=True):
        assert_allclose(array, rows(part), rtol=0.05, atol=0.05)
    for measure in MEASURES:
        with warnings.catch_warnings(action="ignore"):
            fitted = measure(small).fit(X4, Y)
        assert np.isfinite(fitted.layer_mi_y_).all()
        assert np.isfinite(fitted.score(X4, Y))


def test_compiled_modules_are_read_inside(net, by_hand):
    arrays, functions = read(torch.compile(net), X4)
    assert functions == {"0": "relu", "2": "tanh", "4": None}
    assert_allclose(arrays["4"][:, 0], by_hand["4"], **TIGHT)


def test_lazy_modules_stay_lazy():
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    fitted = GibbsLayerMI(net).fit(X4, Y)
    assert fitted.n_units_ == [8, 3]
    assert all(nn.parameter.is_lazy(p) for p in net.parameters())
    assert_array_equal(fitted.transform(X4), fitted.transform(X4))


def test_skorch_nets(net):
    skorch = pytest.importorskip("skorch")
    classifier = skorch.NeuralNetClassifier(
        copy.deepcopy(net).float(), criterion=nn.CrossEntropyLoss, max_epochs=1,
        train_split=None, verbose=0,
    ).fit(X4.astype(np.float32), Y)  # fmt: skip
    for measure in MEASURES:
        expected = measure(classifier.module_).fit(X4, Y)
        for model in (classifier, FrozenEstimator(classifier)):
            assert_allclose(measure(model).fit(X4, Y).layer_mi_y_, expected.layer_mi_y_, **TIGHT)
    unfitted = skorch.NeuralNetClassifier(net)
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        GibbsLayerMI(unfitted).fit(X4, Y)


# Selections --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, "024"),
        ("2", "2"),
        ("[02]", "02"),
        (re.compile("[24]"), "24"),
        (nn.Linear, "024"),
        (0, "0"),
        (-1, "4"),
        (slice(1, None), "24"),
        (slice(None, None, 2), "04"),
        (["0", -1], "04"),
        (("4", "0"), "04"),
    ],
)
def test_layers_are_selected_as_of_the_extractor(net, by_hand, layers, expected):
    arrays, _ = read(net, X4, layers=layers)
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert_allclose(array[:, 0], by_hand[name], **TIGHT)


def test_selections_of_nothing_list_what_there_is(net):
    for layers in ("7", nn.Conv2d, 9, ["0", "seven"], slice(9, None)):
        with pytest.raises(ValueError, match=r"\['0', '2', '4'\]|nearest"):
            read(net, X4, layers=layers)


@pytest.mark.parametrize("layers", [["0", "2"], ["2", "4"], "2"])
def test_layers_without_an_end_give_no_network_value_that_hangs_on_it(net, by_hand, layers):
    has_last = "4" in layers
    fitted = GibbsLayerMI(net, layers=layers).fit(X4, Y)
    for _ in range(2):
        assert np.isnan(fitted.mi_x_)
        assert np.isnan(fitted.mi_y_) == (not has_last)
        fitted.partial_fit(X4, Y)
    assert np.isfinite(fitted.score(X4, Y))
    expected = gibbs_layer_mi(by_hand, Y)
    for both in (["0", "4"], None):
        fitted.set_params(layers=both).fit(X4, Y)
        assert_allclose(fitted.mi_x_, expected.mi_x, **TIGHT)
        assert_allclose(fitted.mi_y_, expected.mi_y, **TIGHT)


# Data --------------------------------------------------------------------------------------------


class Rows(Dataset):
    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, i):
        row = tuple(part[i] for part in self.parts)
        return row if len(row) > 1 else row[0]


class Stream(IterableDataset):
    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return iter(zip(*self.parts, strict=True))


MAPPINGS = [{"input": x, "labels": int(label)} for x, label in zip(X4, Y, strict=True)]

SOURCES = {
    "tensor": lambda: (torch.tensor(X4), torch.tensor(Y)),
    "gradient": lambda: (torch.tensor(X4, requires_grad=True), Y),
    "lists": lambda: (X4.tolist(), Y.tolist()),
    "Dataset": lambda: (Rows(X4, Y),),
    "Dataset beside y": lambda: (Rows(X4), Y),
    "TensorDataset": lambda: (TensorDataset(torch.tensor(X4), torch.tensor(Y)),),
    "IterableDataset": lambda: (Stream(X4, Y),),
    "DataLoader": lambda: (DataLoader(Rows(X4, Y), batch_size=3),),
    "shuffling DataLoader": lambda: (DataLoader(Rows(X4, Y), batch_size=3, shuffle=True),),
    "labels of one column": lambda: (DataLoader(Rows(X4, Y[:, None]), batch_size=5),),
    "names as labels": lambda: (DataLoader(Rows(X4, list("abc" * 4)[:N]), batch_size=4),),
    "mapping": lambda: (DataLoader(MAPPINGS, batch_size=4),),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("case", SOURCES)
@pytest.mark.parametrize("measure", MEASURES)
def test_data_in_any_container_give_the_values_of_arrays(net, case, measure):
    expected = measure(net).fit(X4, Y)
    fitted = measure(net, batch_size=4).fit(*SOURCES[case]())
    assert_allclose(fitted.layer_mi_x_, expected.layer_mi_x_, **TIGHT)
    assert_allclose(fitted.layer_mi_y_, expected.layer_mi_y_, **TIGHT)
    assert_allclose(fitted.score(*SOURCES[case]()), expected.score(X4, Y), **TIGHT)
    if "shuffling" not in case:
        assert_allclose(fitted.transform(SOURCES[case]()[0]), expected.transform(X4), **TIGHT)


@pytest.mark.parametrize("measure", MEASURES)
def test_streams_that_cannot_be_measured_say_why(net, measure):
    fitted = measure(net).fit(X4, Y)
    with pytest.raises(ValueError, match="shuffling DataLoader"):
        fitted.transform(DataLoader(Rows(X4, Y), shuffle=True))
    for given in (DataLoader(Rows(X4)), Rows(X4), TensorDataset(torch.tensor(X4))):
        with pytest.raises(ValueError, match="requires y"):
            measure(net).fit(given)
        with pytest.raises(ValueError, match="requires y"):
            fitted.score(given)
    with pytest.raises(ValueError, match="together with a DataLoader"):
        measure(net).fit(DataLoader(Rows(X4, Y)), Y)
    with pytest.raises(ValueError, match="continuous"):
        measure(net).fit(DataLoader(Rows(X4, X4[:, 0])))


def test_loaders_that_drop_the_last_batch(net):
    loader = DataLoader(Rows(X4, Y), batch_size=4, drop_last=True)
    fitted = GibbsLayerMI(net).fit(loader)
    assert_allclose(fitted.layer_mi_y_, GibbsLayerMI(net).fit(X4[:8], Y[:8]).layer_mi_y_, **TIGHT)
    assert fitted.transform(loader).shape == (8, 17)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_several_inputs(kind):
    net = double(Net(lambda s, a, b: s.out(F.relu(s.fa(a) + s.fb(b))), fa=nn.Linear(4, 6),
                     fb=nn.Linear(2, 6), out=nn.Linear(6, 3)))  # fmt: skip
    net.forward = lambda a, b: net.function(net, a, b)
    X = {"a": X4, "b": noise(N, 2, seed=1)}
    X = X if kind is dict else tuple(X.values())
    a, b = (torch.tensor(part) for part in (X.values() if kind is dict else X))
    hidden = F.relu(net.fa(a) + net.fb(b))
    arrays, functions = read(net, X)
    assert functions == {"fa": "relu", "fb": "relu", "out": None}
    assert_allclose(arrays["fa"], rows(hidden), **TIGHT)
    assert_allclose(arrays["out"], rows(net.out(hidden)), **TIGHT)
    assert_allclose(
        GibbsLayerMI(net).fit(X, Y).layer_mi_y_[0], gibbs_layer_mi(hidden, Y).layer_mi_y[0], **TIGHT
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool, np.int64, np.float16])
def test_inputs_of_any_number_type(net, dtype):
    X = (2 * X4).astype(dtype)
    arrays, _ = read(net, X)
    assert_allclose(arrays["4"], rows(net(torch.tensor(X).double())), **TIGHT)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_of_any_size_give_the_same_values(net, measure, batch_size):
    expected = measure(net, batch_size=N).fit(X4, Y)
    fitted = measure(net, batch_size=batch_size).fit(X4, Y)
    assert_allclose(fitted.layer_mi_x_, expected.layer_mi_x_, **TIGHT)
    assert_allclose(fitted.layer_mi_y_, expected.layer_mi_y_, **TIGHT)
    assert_allclose(fitted.transform(X4), expected.transform(X4), **TIGHT)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("X", [X4[:1], X4[:2], X4[[5] * 7]], ids=["one", "two", "equal"])
def test_few_samples_and_equal_ones(net, measure, X):
    y = np.arange(len(X)) % 2
    fitted, direct = measure(net).fit(X, y), measure().fit(net(torch.tensor(X)), y)
    assert_allclose(fitted.layer_mi_x_[-1], direct.layer_mi_x_[0], **TIGHT)
    assert_allclose(fitted.layer_mi_y_[-1], direct.layer_mi_y_[0], **TIGHT)


def test_networks_with_two_heads_and_skips():
    def forward(s, x):
        a = F.relu(s.a(x))
        b = F.relu(s.b(a))
        both = torch.cat([a, b], 1)
        return s.first(both).softmax(-1), s.second(both)

    net = double(Net(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 6), first=nn.Linear(11, 3),
                     second=nn.Linear(11, 2)))  # fmt: skip
    arrays, functions = read(net, X4)
    a = F.relu(net.a(torch.tensor(X4)))
    both = torch.cat([a, F.relu(net.b(a))], 1)
    assert functions == {"a": "relu", "b": "relu", "first": None, "second": None}
    assert_allclose(arrays["first"], rows(net.first(both)), **TIGHT)
    assert_allclose(arrays["second"], rows(net.second(both)), **TIGHT)


def test_parts_of_a_model_add_up_to_the_whole(net):
    whole = GibbsLayerMI(net).fit(X4, Y)
    parts = GibbsLayerMI(net).partial_fit(X4[:3], Y[:3])
    parts.partial_fit(DataLoader(Rows(X4[3:6], Y[3:6]))).partial_fit(X4[6:], Y[6:])
    for attribute in ("layer_mi_x_", "layer_mi_y_", "layer_mi_xbar_", "mi_x_"):
        assert_allclose(getattr(parts, attribute), getattr(whole, attribute), **TIGHT)


def test_a_part_that_fails_in_its_second_batch_leaves_no_trace(net):
    fitted = GibbsLayerMI(net, batch_size=4).fit(X4, Y)
    before = copy.deepcopy({k: v for k, v in vars(fitted).items() if k.endswith("_")})
    bad = X4.copy()
    bad[9] = 1e306  # whose activations overflow
    with pytest.raises(ValueError, match="NaN or infinity"):
        fitted.partial_fit(bad * 100, Y)
    with pytest.raises(ValueError, match="continuous"):
        fitted.partial_fit(DataLoader(Rows(X4, np.append(np.zeros(9), [0.5, 0.2])), batch_size=4))
    for name, value in before.items():
        assert_array_equal(getattr(fitted, name), value)
    expected = GibbsLayerMI(net).fit(np.vstack([X4, X4]), np.append(Y, Y))
    assert_allclose(fitted.partial_fit(X4, Y).layer_mi_x_, expected.layer_mi_x_, **TIGHT)


@pytest.mark.parametrize("kind", ["array", "dataset", "loader", "stream", "lists", "tuple"])
def test_max_samples_of_a_model_draws_rows_with_their_labels(kind):
    y = np.random.default_rng(0).integers(0, 2, 90)
    X = 20 * np.eye(2)[y] + 0.001 * noise(90, 2)
    net = nn.Sequential(nn.Linear(2, 2))
    nn.init.eye_(net[0].weight)
    given = {
        "array": (X, y),
        "dataset": (Rows(X, y),),
        "loader": (DataLoader(Rows(X, y), batch_size=7),),
        "stream": (Stream(X, y),),
        "lists": (X.tolist(), y.tolist()),
        "tuple": ((X,), y),
    }[kind]
    fitted = KDELayerMI(net, max_samples=40, random_state=1).fit(*given)
    assert_allclose(fitted.layer_ceiling_, np.log2(40))
    assert_allclose(fitted.layer_mi_y_, fitted.layer_mi_x_, rtol=1e-4)
    again = KDELayerMI(net, max_samples=40, random_state=1).fit(X, y)
    assert_allclose(fitted.layer_mi_x_, again.layer_mi_x_, rtol=1e-12)


def test_a_model_runs_on_the_drawn_samples_alone(net):
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    with warnings.catch_warnings(action="ignore"):
        fitted = KDELayerMI(net, max_samples=6, batch_size=4, random_state=0).fit(X4, Y)
    assert seen == [2, 3, 4, 2]  # two looks, and six samples
    seen.clear()
    fitted.transform(X4)
    assert seen == [4, 4, 3]


@pytest.mark.parametrize("batch_size", [16, 32])
def test_many_classes_in_small_batches_do_not_warn(net, batch_size, recwarn):
    X, y = noise(300, 4), np.arange(300) % 100
    GibbsLayerMI(net, batch_size=batch_size).fit(X, y).score(X, y)
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("measure", MEASURES)
def test_activations_that_are_not_finite_name_their_layer(net, measure):
    net[2].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"layer '2' contain NaN"):
        measure(net).fit(X4, Y)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())


def test_inputs_that_are_not_finite_raise_before_any_work(net):
    ran = []
    net.register_forward_hook(lambda *_: ran.append(1))
    bad = X4.copy()
    bad[7, 2] = np.nan
    for X in (bad, torch.tensor(bad)):
        with pytest.raises(ValueError, match="NaN"):
            GibbsLayerMI(net).fit(X, Y)
    assert not ran
    with pytest.raises(ValueError, match="NaN"):
        GibbsLayerMI(net).fit(DataLoader(Rows(bad, Y), batch_size=3))


def test_data_dependent_control_flow_is_told():
    net = Net(lambda s, x: s.b(s.a(x)) if len(x) != 3 else s.a(x), a=nn.Linear(4, 4),
              b=nn.Linear(4, 2))  # fmt: skip
    with pytest.raises(ValueError, match="control flow"):
        GibbsLayerMI(net.double()).fit(X4, Y)
    net = Net(lambda s, x: s.b(s.a(x)) if x[0, 0] < 50 else s.a(x), a=nn.Linear(4, 4),
              b=nn.Linear(4, 2))  # fmt: skip
    X = X4.copy()
    X[8:, 0] = 100
    with pytest.raises(ValueError, match=r"\['b'\] ran on the first samples but not on others"):
        GibbsLayerMI(net.double(), batch_size=4).fit(X, Y)


def test_layer_that_some_batches_skip_is_left_out_by_name():
    def forward(self, x):
        if len(x) == 3:
            self.c(x)
        return self.b(self.a(x))

    net = Net(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 2), c=nn.Linear(4, 4)).double()
    with pytest.warns(UserWarning, match="c: it does not run in every batch"):
        assert list(layer_activations(net, X4)) == ["a", "b"]


def test_random_numbers_are_replaced_by_their_means():
    net = double(Net(lambda s, x: s.out(F.relu(s.fc(x) + torch.randn(6, dtype=torch.float64))),
                     fc=nn.Linear(4, 6), out=nn.Linear(6, 3)))  # fmt: skip
    arrays, _ = read(net, X4)
    assert_allclose(arrays["fc"], rows(F.relu(net.fc(torch.tensor(X4)))), **TIGHT)


# What is put back --------------------------------------------------------------------------------

RESTORED = ["mixed", "functional norm", "own buffers", "spectral_norm"]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("case", RESTORED)
def test_module_is_as_it_was_after_a_measurement(case, measure):
    net, _, X = build(case)
    y = np.arange(len(X)) % 2
    before = snapshot(net)
    fitted = measure(net, batch_size=8, random_state=0).fit(X, y)
    assert_unchanged(net, before)
    fitted.transform(X)
    fitted.score(X, y)
    fitted.fit(DataLoader(Rows(X, y), batch_size=8, shuffle=True))
    assert_unchanged(net, before)


@pytest.mark.parametrize("error", [RuntimeError("blown"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("at", [1, 2, 4], ids=["first look", "second look", "second batch"])
@pytest.mark.parametrize("case", RESTORED)
def test_module_is_as_it_was_after_an_error(case, at, error):
    net, fuse, X = build(case)
    before = snapshot(net)
    measure = GibbsLayerMI(net, batch_size=8, random_state=0)
    fuse.n_calls, fuse.at, fuse.error = 0, at, error
    with pytest.raises(type(error)):
        measure.fit(X, np.arange(len(X)) % 2)
    assert fuse.n_calls == at
    assert_unchanged(net, before)
    with pytest.raises(NotFittedError):
        measure.transform(X)
    measure.fit(X, np.arange(len(X)) % 2)
    assert_unchanged(net, before)


@pytest.mark.parametrize("measure", MEASURES)
def test_data_are_left_alone_by_modules_that_write_into_them(measure):
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double()
    X = X4.copy()
    tensor = torch.tensor(X4)
    measure(net).fit(X, Y)
    measure(net).fit(tensor, Y).transform(tensor)
    assert_array_equal(X, X4)
    assert_array_equal(tensor.numpy(), X4)


@pytest.mark.parametrize("measure", MEASURES)
def test_fitted_measures_of_a_model_pickle(measure):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    fitted = measure(net).fit(X4, Y)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(loaded.transform(X4), fitted.transform(X4))
    assert loaded.score(X4, Y) == fitted.score(X4, Y)


def test_measures_whose_fit_failed_pickle():
    for measure in MEASURES:
        broken = measure(nn.Sequential(nn.Linear(5, 3)))
        with pytest.raises(RuntimeError):
            broken.fit(X4, Y)
        assert repr(pickle.loads(pickle.dumps(broken))) == repr(broken)


def test_activations_are_handed_out_as_the_measures_read_them():
    net = double(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)))
    activations = layer_activations(net, IMAGES, batch_size=4)
    x = torch.tensor(IMAGES)
    assert_allclose(activations["0"], net[:2](x).flatten(1).detach(), **TIGHT)
    assert_allclose(activations["3"], net(x).detach(), **TIGHT)
    assert list(layer_activations(net, IMAGES, layers="3")) == ["3"]
    whole = GibbsLayerMI(net, spatial="flatten").fit(IMAGES, Y)
    assert_allclose(gibbs_layer_mi(activations, Y).layer_mi_x, whole.layer_mi_x_, **TIGHT)


def test_activations_of_a_shuffling_loader_are_refused():
    loader = DataLoader(TensorDataset(torch.tensor(X4)), shuffle=True)
    with pytest.raises(ValueError, match="order is lost"):
        layer_activations(double(nn.Linear(4, 2)), loader)


def test_a_network_whose_first_layer_cannot_be_seen_has_no_value_of_the_input():
    net = double(
        Net(lambda self, x: self.out(self.rnn(x)[0][:, -1]), rnn=nn.LSTM(4, 3), out=nn.Linear(3, 2))
    )
    with pytest.warns(UserWarning, match="lstm"):
        fitted = GibbsLayerMI(net).fit(SEQUENCES, Y)
    assert np.isnan(fitted.mi_x_)
    assert_allclose(fitted.mi_y_, fitted.layer_mi_y_[-1], **TIGHT)
