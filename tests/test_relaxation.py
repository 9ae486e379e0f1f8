"""Relaxed gates: every operation against a formula, gradients, names of layers, what stays."""

import math

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import nn

from skgate import GateCaptureWarning, GateExtractor
from skgate.capture import GateRelaxation
from skgate.capture import _operations as ops

SHARPNESS = 3.0
#: Away from every threshold, and near it.
Z = torch.tensor([-7.3, -3.1, -2.9, -1.2, -0.6, -0.4, -0.1, 0.05, 0.3, 0.7, 1.4, 2.8, 3.3, 6.2])
Z = Z.double().reshape(7, 2)
ONE, SLOPES = torch.tensor(1.0).double(), torch.tensor([0.3, -0.2]).double()


class Everything:
    def __contains__(self, name):
        return True


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def relax(module, *inputs, sharpness=SHARPNESS, layers=None, constant_is_first=()):
    with GateRelaxation(module, layers or Everything(), sharpness, constant_is_first) as relaxation:
        output = module(*inputs)
    return output, relaxation.gates


# Operations ----------------------------------------------------------------------------------

#: Piecewise linear functions: the line on the left of all kinks, (threshold, change of slope).
RELU = (0, 0), [(0, 1)]
LEAKY = (0, 0.2), [(0, 0.8)]
SIX = (0, 0), [(0, 1), (6, -1)]
TANH = (-1, 0), [(-1, 1), (1, -1)]
LOW, HIGH = ((1, 0), [(1, 1)]), ((0, 1), [(1, -1)])
BETWEEN = (-2, 0), [(-2, 1), (3, -1)]
HARD = (0, 0), [(-3, 1 / 6), (3, -1 / 6)]
SOFT = (0.5, 1), [(-0.5, -1), (0.5, 1)]

LINEAR = {
    "relu": {
        "nn": (nn.ReLU(), RELU),
        "nn inplace": (nn.ReLU(inplace=True), RELU),
        "F": (F.relu, RELU),
        "F inplace": (lambda z: F.relu(z, inplace=True), RELU),
        "F inplace by position": (lambda z: F.relu(z, True), RELU),
        "F keywords": (lambda z: F.relu(inplace=True, input=z), RELU),
        "F.relu_": (F.relu_, RELU),
        "torch": (torch.relu, RELU),
        "torch keyword": (lambda z: torch.relu(input=z), RELU),
        "method": (lambda z: z.relu(), RELU),
        "method_": (lambda z: z.relu_(), RELU),
    },
    "leaky_relu": {
        "nn": (nn.LeakyReLU(0.2), LEAKY),
        "nn inplace": (nn.LeakyReLU(0.2, inplace=True), LEAKY),
        "F": (lambda z: F.leaky_relu(z, 0.2), LEAKY),
        "F default": (F.leaky_relu, ((0, 0.01), [(0, 0.99)])),
        "F keywords": (lambda z: F.leaky_relu(input=z, negative_slope=0.2, inplace=True), LEAKY),
        "F_": (lambda z: F.leaky_relu_(z, 0.2), LEAKY),
    },
    "prelu": {
        "nn": (nn.PReLU(init=0.2).double().requires_grad_(False), LEAKY),
        "F": (lambda z: F.prelu(z, ONE * 0.2), LEAKY),
        "F keywords": (lambda z: F.prelu(weight=ONE.reshape(1) * 0.2, input=z), LEAKY),
        "method": (lambda z: z.prelu(ONE * 0.2), LEAKY),
    },
    "relu6": {
        "F": (F.relu6, SIX),
        "F inplace": (lambda z: F.relu6(z, inplace=True), SIX),
        "F keywords": (lambda z: F.relu6(input=z), SIX),
    },
    "hardtanh": {
        "nn": (nn.Hardtanh(), TANH),
        "nn 6": (nn.ReLU6(), SIX),
        "nn 6 inplace": (nn.ReLU6(inplace=True), SIX),
        "nn range inplace": (nn.Hardtanh(-2, 3, inplace=True), BETWEEN),
        "F": (F.hardtanh, TANH),
        "F keywords": (lambda z: F.hardtanh(input=z, max_val=3, min_val=-2), BETWEEN),
        "F_": (F.hardtanh_, TANH),
        "without end": (lambda z: F.hardtanh(z, 0, math.inf), RELU),
    },
    "hardsigmoid": {
        "nn": (nn.Hardsigmoid(), HARD),
        "nn inplace": (nn.Hardsigmoid(inplace=True), HARD),
        "F": (F.hardsigmoid, HARD),
        "F keywords": (lambda z: F.hardsigmoid(input=z, inplace=True), HARD),
    },
    "softshrink": {
        "nn": (nn.Softshrink(), SOFT),
        "nn 2": (nn.Softshrink(2), ((2, 1), [(-2, -1), (2, 1)])),
        "F": (F.softshrink, SOFT),
        "F keywords": (lambda z: F.softshrink(input=z, lambd=0.5), SOFT),
    },
    "clamp": {
        "torch min": (lambda z: torch.clamp(z, min=1), LOW),
        "torch max": (lambda z: torch.clamp(z, max=1), HIGH),
        "torch": (lambda z: torch.clamp(z, -2, 3), BETWEEN),
        "torch keywords": (lambda z: torch.clamp(max=3, min=-2, input=z), BETWEEN),
        "torch tensors": (lambda z: torch.clamp(z, ONE * -2, ONE * 3), BETWEEN),
        "torch_": (lambda z: torch.clamp_(z, min=1), LOW),
        "method": (lambda z: z.clamp(-2, 3), BETWEEN),
        "method_": (lambda z: z.clamp_(max=1), HIGH),
        "without end": (lambda z: z.clamp(0, math.inf), RELU),
    },
    "clip": {
        "torch": (lambda z: torch.clip(z, -2, 3), BETWEEN),
        "torch keywords": (lambda z: torch.clip(input=z, min=1), LOW),
        "torch_": (lambda z: torch.clip_(z, -2, 3), BETWEEN),
        "method": (lambda z: z.clip(max=1), HIGH),
        "method_": (lambda z: z.clip_(-2, 3), BETWEEN),
    },
    "clamp_min": {
        "torch": (lambda z: torch.clamp_min(z, 1), LOW),
        "torch keywords": (lambda z: torch.clamp_min(input=z, min=1), LOW),
        "torch_": (lambda z: torch.clamp_min_(z, 1), LOW),
        "method": (lambda z: z.clamp_min(1), LOW),
        "method_": (lambda z: z.clamp_min_(1), LOW),
    },
    "clamp_max": {
        "torch": (lambda z: torch.clamp_max(z, 1), HIGH),
        "torch keywords": (lambda z: torch.clamp_max(max=1, input=z), HIGH),
        "torch_": (lambda z: torch.clamp_max_(z, 1), HIGH),
        "method": (lambda z: z.clamp_max(1), HIGH),
        "method_": (lambda z: z.clamp_max_(1), HIGH),
    },
    "maximum": {
        "torch": (lambda z: torch.maximum(z, ONE), LOW),
        "torch constant first": (lambda z: torch.maximum(torch.ones_like(z), z), LOW),
        "torch keywords": (lambda z: torch.maximum(other=ONE, input=z), LOW),
        "method": (lambda z: z.maximum(ONE), LOW),
        "method of the constant": (lambda z: ONE.maximum(z), LOW),
        "max": (lambda z: torch.max(z, ONE), LOW),
        "max keyword": (lambda z: torch.max(z, other=ONE), LOW),
        "max keywords": (lambda z: torch.max(input=ONE, other=z), LOW),
        "method max": (lambda z: z.max(ONE), LOW),
    },
    "minimum": {
        "torch": (lambda z: torch.minimum(z, ONE), HIGH),
        "torch constant first": (lambda z: torch.minimum(torch.ones_like(z), z), HIGH),
        "method": (lambda z: z.minimum(ONE), HIGH),
        "min": (lambda z: torch.min(z, ONE), HIGH),
        "method min": (lambda z: z.min(other=ONE), HIGH),
    },
    "fmax": {
        "torch": (lambda z: torch.fmax(z, ONE), LOW),
        "torch constant first": (lambda z: torch.fmax(input=ONE, other=z), LOW),
        "method": (lambda z: z.fmax(ONE), LOW),
    },
    "fmin": {
        "torch": (lambda z: torch.fmin(z, ONE), HIGH),
        "torch constant first": (lambda z: torch.fmin(torch.ones_like(z), z), HIGH),
        "method": (lambda z: z.fmin(ONE), HIGH),
    },
}

CONSTANT_FIRST = ("torch constant first", "method of the constant", "max keywords")

#: Operations that jump, or draw their slope; only their gates are relaxed.
JUMPING = {
    "rrelu": {
        "nn": (nn.RReLU(), [0]),
        "nn inplace": (nn.RReLU(inplace=True), [0]),
        "F": (lambda z: F.rrelu(z, training=True), [0]),
        "F_": (lambda z: F.rrelu_(z, training=True), [0]),
        "torch": (lambda z: torch.rrelu(z, 0.1, 0.3, True), [0]),
    },
    "threshold": {
        "nn": (nn.Threshold(2, -9), [2]),
        "nn inplace": (nn.Threshold(2, -9, inplace=True), [2]),
        "F": (lambda z: F.threshold(z, 1, 20), [1]),
        "F keywords": (lambda z: F.threshold(value=20, threshold=1, input=z), [1]),
        "F_": (lambda z: F.threshold_(z, 1, 20), [1]),
    },
    "hardshrink": {
        "nn": (nn.Hardshrink(2), [-2, 2]),
        "F": (F.hardshrink, [-0.5, 0.5]),
        "F keywords": (lambda z: F.hardshrink(input=z, lambd=1), [-1, 1]),
        "method": (lambda z: z.hardshrink(2), [-2, 2]),
    },
    "heaviside": {
        "torch": (lambda z: torch.heaviside(z, ONE), [0]),
        "method": (lambda z: z.heaviside(ONE), [0]),
        "method_": (lambda z: z.heaviside_(ONE), [0]),
    },
}


def flat(table):
    return {f"{op}: {form}": case for op, forms in table.items() for form, case in forms.items()}


LINEAR_FORMS, JUMPING_FORMS = flat(LINEAR), flat(JUMPING)


def test_every_operation_is_among_the_cases():
    assert {*LINEAR, *JUMPING} == set(ops.THRESHOLD)


@pytest.mark.parametrize("form", [*LINEAR_FORMS, *JUMPING_FORMS])
def test_forms_are_of_the_operations_that_they_are_listed_under(form):
    seen = []

    class Spy(GateRelaxation):
        def _locate(self, operation):
            seen.append(operation)
            return super()._locate(operation)

    function, _ = {**LINEAR_FORMS, **JUMPING_FORMS}[form]
    with Spy(net := Apply(function), (), 1.0):
        net(Z.clone())
    assert seen == [form.partition(":")[0]]


@pytest.mark.parametrize("form", LINEAR_FORMS)
def test_kinks_become_sigmoids(form):
    function, (line, kinks) = LINEAR_FORMS[form]
    z = Z.clone()
    operation, _, about = form.partition(": ")
    constant_is_first = {operation} if about in CONSTANT_FIRST else ()
    output, gates = relax(Apply(function), z, constant_is_first=constant_is_first)
    expected = [[reference.relaxed(float(v), line, kinks, SHARPNESS) for v in row] for row in Z]
    np.testing.assert_allclose(output, expected, atol=1e-14)
    (gates,) = gates.values()
    thresholds = [t for t, _ in kinks]
    if "without end" in form:
        thresholds.append(math.inf)
    expected = [
        [[reference.sigmoid(SHARPNESS * (float(v) - t)) for t in thresholds] for v in row]
        for row in Z
    ]
    np.testing.assert_allclose(gates, expected, atol=1e-15)


@pytest.mark.parametrize("form", LINEAR_FORMS)
def test_sharp_gates_leave_the_original(form):
    function, _ = LINEAR_FORMS[form]
    original, z = function(Z.clone()), Z.clone()
    output, _ = relax(Apply(function), z, sharpness=1e6)
    np.testing.assert_allclose(output, original, atol=1e-15)
    in_place = bool(function(twin := Z.clone()).data_ptr() == twin.data_ptr())
    assert in_place == (output.data_ptr() == z.data_ptr())
    assert torch.equal(z, output if in_place else Z)


@pytest.mark.parametrize("form", LINEAR_FORMS)
def test_gradients_of_outputs_and_gates_are_those_of_differences(form):
    function, _ = LINEAR_FORMS[form]

    def both(z):
        output, gates = relax(Apply(function), z * 1.0)
        return output, next(iter(gates.values()))

    assert torch.autograd.gradcheck(both, Z.clone().requires_grad_(), atol=1e-7)


@pytest.mark.parametrize("form", [f for f in LINEAR_FORMS if "without end" not in f])
def test_gradients_at_a_threshold_are_those_of_differences(form):
    function, (_, kinks) = LINEAR_FORMS[form]
    operation, _, about = form.partition(": ")
    constant_is_first = {operation} if about in CONSTANT_FIRST else ()
    z = torch.tensor([[t] for t, _ in kinks]).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: relax(Apply(function), z * 1.0, constant_is_first=constant_is_first)[0],
        z,
        atol=1e-5,
    )


@pytest.mark.parametrize("form", JUMPING_FORMS)
def test_functions_that_jump_keep_their_output(form):
    function, thresholds = JUMPING_FORMS[form]
    torch.manual_seed(0)
    original = function(Z.clone())
    torch.manual_seed(0)
    output, gates = relax(Apply(function), Z.clone())
    assert torch.equal(output, original)
    expected = torch.stack([torch.sigmoid(SHARPNESS * (Z - t)) for t in thresholds], -1)
    np.testing.assert_allclose(next(iter(gates.values())), expected)
    z = Z.clone().requires_grad_()
    if "_" not in form:
        next(iter(relax(Apply(function), z * 1.0)[1].values())).sum().backward()
        expected = (SHARPNESS * expected * (1 - expected)).sum(-1)
        np.testing.assert_allclose(z.grad, expected)


def test_relu_becomes_swish_within_its_bound():
    z = torch.linspace(-4, 4, 8001, dtype=torch.double)
    for sharpness in (0.5, 10.0, 100.0):
        output, _ = relax(Apply(F.relu), z, sharpness=sharpness)
        np.testing.assert_allclose(output, z * torch.sigmoid(sharpness * z), atol=1e-15)
        gap = (output - F.relu(z)).abs().max()
        assert 0.99 * 0.27846 < gap * sharpness < 0.2785


def test_slopes_of_channels():
    slopes = nn.Parameter(SLOPES.clone())
    z = torch.randn(3, 2, 4, 5, dtype=torch.double)
    output, _ = relax(Apply(lambda z: F.prelu(z, slopes)), z)
    for c in range(2):
        gate = torch.sigmoid(SHARPNESS * z[:, c])
        expected = SLOPES[c] * z[:, c] + (1 - SLOPES[c]) * z[:, c] * gate
        np.testing.assert_allclose(output[:, c].detach(), expected)
    inputs = z.requires_grad_(), slopes
    assert torch.autograd.gradcheck(
        lambda z, s: relax(Apply(F.prelu), z, s)[0], inputs, nondet_tol=0, fast_mode=True
    )


def test_both_operands_of_a_maximum_get_gradients():
    a, b = (torch.randn(5, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    for function in (torch.maximum, torch.minimum):
        assert torch.autograd.gradcheck(lambda a, b, f=function: relax(Apply(f), a, b)[0], (a, b))


def test_views_changed_in_place():
    def half(z):
        z = z * 1.0
        z[:, :1].relu_()
        return z

    output, _ = relax(Apply(half), Z)
    np.testing.assert_allclose(output[:, 0], Z[:, 0] * torch.sigmoid(SHARPNESS * Z[:, 0]))
    assert torch.equal(output[:, 1], Z[:, 1])
    assert torch.autograd.gradcheck(
        lambda z: relax(Apply(half), z)[0], Z.clone().requires_grad_(), atol=1e-7
    )


def test_arithmetic_on_integers_is_left_alone():
    def function(z):
        return F.relu(z) * torch.arange(2).clamp(min=1)

    output, gates = relax(Apply(function), Z)
    assert list(gates) == ["relu"]
    np.testing.assert_allclose(output, Z * torch.sigmoid(SHARPNESS * Z))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype):
    z = torch.tensor([[-6e4, -700.0, -1.0, 0.0, 1.0, 700.0, 6e4]], dtype=dtype, requires_grad=True)
    for function in (F.relu, F.relu6, F.hardsigmoid, F.softshrink):
        output, gates = relax(Apply(function), z, sharpness=100.0)
        assert output.dtype is dtype
        original = function(z).detach().float()
        np.testing.assert_allclose(output.detach().float(), original, atol=1e-20)
        (gradient,) = torch.autograd.grad(output.sum() + next(iter(gates.values())).sum(), z)
        assert torch.isfinite(gradient).all()


def test_constants_are_told_by_the_layer_not_by_the_batch():
    def function(z):
        return torch.maximum(torch.zeros_like(z), z)

    z = torch.full((3, 2), 2.0)
    _, gates = relax(Apply(function), z, constant_is_first={"maximum"})
    assert (gates["maximum"] > 0.5).all()
    _, gates = relax(Apply(torch.maximum), z, torch.randn(3, 2), constant_is_first=())
    assert torch.equal(gates["maximum"][..., 0] > 0.5, z > 0)


# Layers --------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.fc, self.act = nn.Linear(6, 6), act

    def forward(self, x):
        return F.relu(self.act(self.fc(x)) - 0.1)


class Maze(nn.Module):
    """Shared modules, nested ones, repeated calls, functions, and operations without gates."""

    def __init__(self):
        super().__init__()
        self.shared = nn.ReLU()
        self.blocks = nn.ModuleList(Block(self.shared) for _ in range(2))
        self.deep = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU6()), nn.Dropout(0.2))
        self.same = self.deep[0]

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        x = self.shared(x)
        x = self.deep(torch.tanh(x))
        x = self.same(F.dropout(x, 0.1, self.training))
        x = F.max_pool1d(x.unsqueeze(1), 2).squeeze(1)
        x = torch.clamp(x - 0.1, min=0) + x.max(1, keepdim=True)[0]
        return torch.max(x - 0.2, torch.zeros(1)).clamp_(max=0.5)


def test_layers_have_the_names_and_gates_that_the_extractor_gives_them():
    torch.manual_seed(0)
    net, x = Maze().eval(), torch.randn(9, 6)
    names = [
        "shared", "blocks.0.relu", "shared:1", "blocks.1.relu", "shared:2",
        "deep.0.1", "deep.0.1:1", "clamp", "maximum", "clamp:1",
    ]  # fmt: skip
    extractor = GateExtractor(net, layers=names)
    with pytest.warns(GateCaptureWarning):
        states = extractor.fit_transform(x)
    output, gates = relax(net, x, sharpness=1e6)
    assert list(gates) == extractor.layer_names_ == names
    found = torch.cat([gates[name].flatten(1) for name in names], 1) > 0.5
    assert np.array_equal(np.asarray(states), found)
    assert torch.allclose(output, net(x), atol=1e-5)


def test_layers_that_were_not_chosen_run_as_they_are():
    torch.manual_seed(0)
    net, x = Maze().eval(), torch.randn(9, 6)
    with torch.no_grad():
        untouched, gates = relax(net, x, layers={"nothing"})
    assert not gates
    assert torch.equal(untouched, net(x))
    output, gates = relax(net, x, layers={"clamp"}, sharpness=1.0)
    assert list(gates) == ["clamp"]
    assert not torch.equal(output, net(x))
    inner = []
    handle = net.deep.register_forward_hook(lambda m, i, o: inner.append(o))
    relax(net, x, layers={"clamp"}, sharpness=1.0)
    net(x)
    handle.remove()
    assert torch.equal(*inner)


def test_hooks_are_gone_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(RuntimeError), GateRelaxation(net, {"1"}, 1.0):
        net(torch.ones(2, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(F.relu(Z), Z.clamp(min=0))
