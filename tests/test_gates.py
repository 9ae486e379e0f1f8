"""Gates of top-k, of comparisons that select data, and of a user's function, against the output."""

import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from torch import nn

from skgate import ComplexityLoss, GateCaptureWarning, GateExtractor

X = np.random.default_rng(0).normal(size=(40, 6))


class Net(nn.Module):
    """Latents z, and a function of the network and z."""

    def __init__(self, function=None):
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.other, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.threshold = nn.Parameter(torch.linspace(0.05, 0.4, 8))
        self.register_buffer("mask", torch.arange(8) > 5)
        self.plain = torch.full((8,), 0.3).double()
        self.function = function
        self.double()

    def forward(self, x):
        self.latent = self.function(self, self.encode(x))
        return self.out(self.latent)


def seen(net, X=X):
    """Return z and the latents of a plain pass."""
    with torch.no_grad():
        net(torch.from_numpy(X))
        return net.encode(torch.from_numpy(X)), net.latent


def fit(net, X=X, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("error", GateCaptureWarning)
        return GateExtractor(net, **params).fit(X)


def gates(extractor, name, X=X):
    return np.asarray(extractor.transform(X).select(name))


def written_to_a_view(z):
    mask = torch.zeros_like(z)
    mask[:, :4].copy_(z[:, :4] > 0.3)
    mask[:, 4:].copy_(z[:, 4:] > 0.3)
    return mask


def assign(z):
    z = z.clone()
    z[z <= 0.3] = 0
    return z


class JumpReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_threshold = nn.Parameter(torch.full((8,), 0.3).log())

    def forward(self, z):
        return torch.where(z > self.log_threshold.exp(), z, 0)


class Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, threshold):
        return z * (z > threshold)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


JUMP = Jump.apply

#: Functions of z whose latents are not 0 where z exceeds a threshold -> layer, function.
COMPARED = {
    "product": ("gt", lambda net, z: z * (z > 0.3)),
    "a parameter": ("gt", lambda net, z: z * (z > net.threshold)),
    "a parameter first": ("gt", lambda net, z: (net.threshold < z).double() * z),
    "a function of it": ("gt", lambda net, z: z * (z > net.threshold.square().clamp(0.1))),
    "such a function first": ("lt", lambda net, z: z * torch.lt(net.threshold * 2, z)),
    "an attribute first": ("lt", lambda net, z: z * torch.lt(net.plain, z)),
    "greater": ("gt", lambda net, z: torch.greater(z, net.threshold) * z),
    "at least": ("ge", lambda net, z: (z >= 0.3).to(z.dtype) * z),
    "type_as": ("gt", lambda net, z: (z > 0.3).type_as(z) * z),
    "where": ("gt", lambda net, z: torch.where(z > net.threshold, z, torch.zeros_like(z))),
    "where not": ("lt", lambda net, z: torch.where(z < 0.3, 0.0, z)),
    "masked_fill": ("le", lambda net, z: z.masked_fill(z <= 0.3, 0)),
    "negation": ("le", lambda net, z: z * ~(z <= 0.3)),
    "assignment": ("le", lambda net, z: assign(z)),
    "scaled": ("gt", lambda net, z: z * (2.0 * (z > 0.3).double().unsqueeze(0)).squeeze(0)),
    "written to a buffer": ("gt", lambda net, z: torch.zeros_like(z).copy_(z > 0.3) * z),
    "step": ("gt", lambda net, z: torch.where(z > 0.3, 1.0, 0.0).double()),
    "two masks": ("gt", lambda net, z: z * ((z > 0.3) & ~net.mask | (z > 0.3))),
    "autograd function": ("gt", lambda net, z: Jump.apply(z, net.threshold)),
    "its alias": ("gt", lambda net, z: JUMP(z, 0.3)),
    "straight through": (
        "gt",
        lambda net, z: z * ((z > 0.3).double() - 0.01 * z.square().detach() + 0.01 * z.square()),
    ),
}


@pytest.mark.parametrize("case", COMPARED)
def test_comparison_that_selects_data_has_the_gates_of_its_output(case):
    name, function = COMPARED[case]
    net = Net(function)
    extractor = fit(net)
    _, latent = seen(net)
    expected = latent.abs().numpy() > 1e-9
    assert 0.1 < expected.mean() < 0.6  # or every gate would pass
    assert extractor.layer_names_[0] == name
    np.testing.assert_array_equal(gates(extractor, name), expected)
    (record,) = [r for r in extractor.coverage_ if r.layer == name]
    assert (record.kind, record.n_gates, record.captured) == ("comparison", 8, True)
    np.testing.assert_array_equal(  # of other rows, in other batches, without the first run
        gates(extractor.set_params(batch_size=7), name, X[::-1]), expected[::-1]
    )


def test_module_of_torch_functions_lends_its_name():
    net = nn.Sequential(nn.Linear(6, 8), JumpReLU(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        expected = net[1](net[0](torch.from_numpy(X))).numpy() > 0
    extractor = fit(net)
    assert extractor.layer_names_ == ["1.gt"]
    np.testing.assert_array_equal(gates(extractor, "1.gt"), expected)


def test_gated_autoencoder_has_the_gates_of_its_gate():
    net = Net(lambda net, z: (z > 0) * F.relu(net.other(net.x)))
    net.register_forward_pre_hook(lambda net, args: setattr(net, "x", args[0]))
    extractor = fit(net)
    z, latent = seen(net)
    magnitude = net.other(torch.from_numpy(X)) > 0
    assert extractor.layer_names_ == ["gt", "relu"]
    np.testing.assert_array_equal(gates(extractor, "gt"), z.numpy() > 0)
    both = gates(extractor, "gt") & gates(extractor, "relu")
    np.testing.assert_array_equal(both, latent.numpy() > 0)
    np.testing.assert_array_equal(gates(extractor, "relu"), magnitude.numpy())


def test_masks_written_to_views_of_a_tensor():
    net = Net(lambda net, z: z * written_to_a_view(z))
    extractor = fit(net)
    both = np.hstack([gates(extractor, "gt"), gates(extractor, "gt:1")])
    np.testing.assert_array_equal(both, seen(net)[1].numpy() != 0)


def test_step_that_a_fixed_matrix_reads():
    net = Net(lambda net, z: (z > 0.3).double())
    net.out = nn.Identity()
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), net).double()
    assert fit(net).layer_names_ == ["1"]  # returned, it selects nothing
    net[2].function = lambda net, z: (z > 0.3).double() @ torch.eye(8).double()
    assert fit(net).layer_names_ == ["1", "2.gt"]


def test_both_sides_of_a_window_are_layers_open_above_their_threshold():
    net = Net(lambda net, z: z * ((z > 0.3) | (z < -0.2)))
    z, _ = seen(net)
    extractor = fit(net)
    assert extractor.layer_names_ == ["gt", "lt"]
    np.testing.assert_array_equal(gates(extractor, "gt"), z.numpy() > 0.3)
    np.testing.assert_array_equal(gates(extractor, "lt"), z.numpy() >= -0.2)


def test_comparison_of_two_numbers_of_a_row_that_selects_one():
    net = Net(lambda net, z: torch.where(z > z.flip(-1), z, 0))
    _, latent = seen(net)
    np.testing.assert_array_equal(gates(fit(net), "gt"), latent.numpy() != 0)


#: Functions of z in which a comparison, or an order, selects no data.
IDLE = {
    "if": lambda net, z: z if (z > 0).any() else -z,
    "a mean": lambda net, z: z + (z > 0).double().mean(),
    "a cast mean": lambda net, z: z + (z > 0).type_as(z).mean(),
    "printed": lambda net, z: (z, str(z > 0))[0],
    "of parameters": lambda net, z: z * (net.threshold > 0.2),
    "of a buffer": lambda net, z: z.masked_fill(net.mask, 0),
    "overflow": lambda net, z: z.masked_fill(torch.isnan(z), 0),
    "prediction": lambda net, z: (z, z.argmax(-1))[0],
    "softmax": lambda net, z: (z - z.max(-1, keepdim=True).values).exp(),
    "softmax by amax": lambda net, z: (z - z.amax(-1)[:, None]).exp(),
}


@pytest.mark.parametrize("case", IDLE)
def test_what_selects_no_data_is_no_layer_and_no_warning(case):
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Net(IDLE[case])).double()
    assert fit(net).layer_names_ == ["1"]


class Masked(nn.Module):
    """Ids, some of them padding, with a mask made as transformers make theirs."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, ids, attention_mask):
        h = self.embed(ids)
        inverted = 1.0 - attention_mask[:, None, :].float()  # (n, 1, t)
        inverted = inverted.masked_fill(inverted.bool(), -1e9)
        causal = torch.ones(ids.shape[1], ids.shape[1]).tril() > 0
        scores = torch.where(causal, h @ h.mT, -1e9) + inverted
        h = scores.softmax(-1) @ h
        return F.relu(self.out(h.masked_fill((ids == 0)[..., None], 0)))


@pytest.mark.parametrize("dtype", [int, bool, np.float32])
def test_masks_made_of_masks_and_constants_are_no_gates(dtype):
    ids = np.random.default_rng(0).integers(0, 9, (20, 5))
    inputs = {"ids": ids, "attention_mask": (ids > 0).astype(dtype)}
    extractor = fit(Masked(), inputs, mask=None)
    assert [r.layer for r in extractor.coverage_] == ["softmax", "relu"]


#: Functions of z with gates that are not read -> a part of the reason.
HIDDEN = {
    "mask of bits": (lambda net, z: z.masked_fill(z.round().bool(), 0), "no comparison of numbers"),
    "count": (lambda net, z: z * ((z > 0).sum(-1, keepdim=True) > 3), "no comparison of numbers"),
    "whole batch": (lambda net, z: z * (z.mean() > -9), "one bit for the whole batch"),
    "sorted": (lambda net, z: z.gather(-1, z.argsort(-1)), "torch.topk"),
    "largest": (lambda net, z: z * z.max(-1, keepdim=True).values, "selects along an axis"),
    "largest of all": (lambda net, z: z[:, z.argmax() % 8, None] * z, "torch.topk"),
    "batch": (lambda net, z: z * (z > z.mean(0)), "third is in the batch|other rows"),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_gates_that_cannot_be_read_are_named(case):
    function, reason = HIDDEN[case]
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Net(function)).double()
    with pytest.warns(GateCaptureWarning, match=reason):
        assert GateExtractor(net).fit(X).layer_names_ == ["1"]


# Top-k ------------------------------------------------------------------------------------------


def sparse(z, k=3, **options):
    values, indices = z.topk(k, **options)
    return torch.zeros_like(z).scatter_(-1, indices, values)


#: Functions of z whose latents are not 0 where z is among the first three -> layer, function.
TOP = {
    "scatter": ("topk", lambda net, z: sparse(z)),
    "function": ("topk", lambda net, z: torch.zeros_like(z).scatter(1, torch.topk(z, 3)[1], z)),
    "smallest": ("topk", lambda net, z: sparse(z, largest=False, sorted=False)),
    "mask": (
        "topk",
        lambda net, z: z * torch.zeros_like(z).scatter_(-1, z.topk(3).indices, 1).bool(),
    ),
    "other axis": ("topk", lambda net, z: sparse(z[..., None].mT).mT[..., 0]),
    "threshold": ("ge", lambda net, z: z * (z >= z.topk(3).values[..., -1:])),
    "least of the top": (
        "lt",
        lambda net, z: torch.where(z < z.topk(3).values.amin(-1, keepdim=True), 0, z),
    ),
    "threshold first": ("le", lambda net, z: z * (z.kthvalue(6, -1, True).values <= z)),
}


@pytest.mark.parametrize("case", TOP)
def test_top_k_has_one_gate_an_entry(case):
    name, function = TOP[case]
    net = Net(function)
    z, latent = seen(net)
    if case == "function":  # scatters the first three numbers, not the largest
        latent = sparse(z)
    extractor = fit(net)
    assert extractor.layer_names_ == [name]  # and no second one with the same gates
    states = extractor.transform(X)
    np.testing.assert_array_equal(np.asarray(states), latent.numpy() != 0)
    assert np.asarray(states).sum(1).tolist() == [3] * 40
    (layer,) = states.layers
    assert (layer.unit_size, layer.one_hot, layer.spatial) == (1, False, False)


def test_ties_are_as_torch_has_them():
    net = Net(lambda net, z: sparse(z.round()) + 0 * z)
    indices = seen(net)[0].round().topk(3).indices
    expected = np.zeros((40, 8), bool)
    np.put_along_axis(expected, indices.numpy(), True, axis=1)
    np.testing.assert_array_equal(gates(fit(net), "topk"), expected)


#: Functions that route by the largest number, or the smallest.
ROUTED = {
    "argmax": ("argmax", lambda net, z: F.one_hot(z.argmax(-1), 8) * z),
    "argmin": ("argmin", lambda net, z: z.gather(1, z.argmin(1, keepdim=True)) * z),
    "max": ("max", lambda net, z: F.one_hot(z.max(-1).indices, 8) * z),
    "topk": ("topk", lambda net, z: sparse(z, k=1)),
    "weights": ("argmax", lambda net, z: z + net.encode.weight.T[0, z.argmax(1)][:, None]),
    "switch": ("argmax", lambda net, z: F.one_hot(z.argmax(-1), 8) * z.max(-1).values[:, None]),
}


@pytest.mark.parametrize("case", ROUTED)
def test_top_1_is_one_unit(case):
    name, function = ROUTED[case]
    net = Net(function)
    z, _ = seen(net)
    chosen = z.argmin(1) if name == "argmin" else z.argmax(1)
    extractor = fit(net)
    assert extractor.layer_names_ == [name]
    np.testing.assert_array_equal(gates(extractor, name), np.eye(8, dtype=bool)[chosen])
    (layer,) = extractor.transform(X).layers
    assert (layer.n_gates, layer.unit_size, layer.one_hot, layer.spatial) == (8, 8, True, False)


def test_router_of_tokens_has_a_unit_a_token():
    tokens = np.random.default_rng(1).normal(size=(20, 8, 6))
    net = Net(lambda net, z: F.one_hot(z.flatten(0, 1).argmax(-1), 8).view_as(z) * z)
    chosen = seen(net, tokens)[0].argmax(-1)  # (n, tokens)
    extractor = fit(net, tokens)
    expected = np.eye(8, dtype=bool)[chosen].reshape(20, 64)
    np.testing.assert_array_equal(gates(extractor, "argmax", tokens), expected)
    (layer,) = extractor.transform(tokens).layers
    assert (layer.unit_size, layer.shape, layer.spatial) == (8, (8, 1), False)
    by_token = gates(fit(net, tokens, samples="position"), "argmax", tokens)
    np.testing.assert_array_equal(by_token, expected.reshape(160, 8))
    top = fit(Net(lambda net, z: sparse(z)), tokens).transform(tokens).layers[0]
    assert (top.unit_size, top.shape, top.spatial) == (1, (8, 8), False)


def test_top_k_over_the_batch_is_refused_by_name():
    def batch_top_k(net, z):
        values, indices = z.flatten().topk(3 * len(z))
        return torch.zeros_like(z).flatten().scatter_(0, indices, values).view_as(z)

    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Net(batch_top_k)).double()
    with pytest.warns(GateCaptureWarning, match=r"2\.topk: topk \(top-k\).*other rows"):
        assert GateExtractor(net).fit(X).layer_names_ == ["1"]


def test_quantiser_has_the_gates_of_its_codes():
    net = Net(lambda net, z: net.other.weight.repeat(1, 2)[:, :8][
        torch.cdist(z, net.other.weight.repeat(1, 2)[:, :8]).argmin(-1)
    ])  # fmt: skip
    code = net.other.weight.repeat(1, 2)[:, :8]
    nearest = (seen(net)[0][:, None] - code).square().sum(-1).argmin(1)
    np.testing.assert_array_equal(gates(fit(net), "argmin"), np.eye(8, dtype=bool)[nearest])


# Kernels and functions of the user --------------------------------------------------------------


class Kernel(torch.autograd.Function):
    """A ReLU that torch does not see."""

    @staticmethod
    def forward(ctx, z):
        return torch.from_numpy(np.maximum(z.numpy(), 0))


KERNEL = Kernel.apply


class Hiding(nn.Module):
    def forward(self, z):
        return KERNEL(F.relu(z + 1) - 1)


def hiding(n=1):
    torch.manual_seed(0)
    act = Hiding()
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *[nn.Linear(8, 8), act] * n).double()


def test_custom_autograd_function_is_reported():
    with pytest.warns(GateCaptureWarning, match="custom autograd function Kernel may hide gates"):
        extractor = GateExtractor(hiding()).fit(X)
    assert extractor.layer_names_ == ["1", "3.relu"]
    assert [r.layer for r in extractor.coverage_] == ["1", "3.relu", "3.Kernel"]
    assert "apply" not in vars(torch.autograd.Function.__mro__[1])


def test_custom_operator_is_reported():
    @torch.library.custom_op("skgate_tests::jump", mutates_args=())
    def jump(z: torch.Tensor) -> torch.Tensor:
        return z.clamp(min=0)

    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Net(lambda net, z: jump(z))).double()
    with pytest.warns(GateCaptureWarning, match="operator skgate_tests.jump.*may hide gates"):
        assert GateExtractor(net).fit(X).layer_names_ == ["1"]


class Positive(torch.autograd.Function):
    """A function of weights, which gates no data."""

    @staticmethod
    def forward(ctx, w):
        return w.abs()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_functions_of_torch_and_of_weights_are_not_reported():
    checkpoint = torch.utils.checkpoint.checkpoint

    def function(net, z):
        return F.relu(checkpoint(torch.neg, z, use_reentrant=True) * Positive.apply(net.threshold))

    assert fit(Net(function)).layer_names_ == ["relu"]


def test_functions_in_other_threads_are_left_alone():
    def function(net, z):
        thread = threading.Thread(target=Kernel.apply, args=(z,))
        thread.start()
        thread.join()
        return F.relu(z)

    assert fit(Net(function)).layer_names_ == ["relu"]


def test_functions_are_restored_after_an_error():
    def broken(net, z):
        assert "apply" in vars(torch.autograd.Function.__mro__[1])
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        GateExtractor(Net(broken)).fit(X)
    assert "apply" not in vars(torch.autograd.Function.__mro__[1])


def test_gates_of_a_module_come_from_the_users_function():
    net, calls = hiding(2), []

    def positive(module, inputs, output):
        calls.append((type(module), len(inputs)))
        return output != 0

    extractor = fit(net, gates={"3": positive})
    assert extractor.layer_names_ == ["1", "3", "3:1"]  # and nothing of what runs inside
    assert set(calls) == {(Hiding, 1)}
    with torch.no_grad():
        z = net[0](torch.from_numpy(X)).relu()
        first = net[2](z).relu()
        second = net[4](first).relu()
    np.testing.assert_array_equal(gates(extractor, "3"), first.numpy() > 0)
    np.testing.assert_array_equal(gates(extractor, "3:1"), second.numpy() > 0)
    inside = [r for r in extractor.coverage_ if r.layer == "3.relu"]
    assert {r.reason for r in inside} == {"its gates are read by gates="}
    assert [r.kind for r in extractor.coverage_ if r.layer == "3:1"] == ["custom"]


def test_outermost_of_the_modules_that_match_counts():
    net = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU()).double()
    extractor = fit(net, gates={"1*": lambda module, inputs, output: output > 0})
    assert extractor.layer_names_ == ["1", "2"]


def test_gates_of_another_shape_than_the_output():
    def signs(module, inputs, output):
        return torch.stack([inputs[0] > 1, inputs[0] < -1], 1)  # (n, 2, 8)

    extractor = fit(hiding(), gates={"3": signs})
    assert dict(zip(extractor.layer_names_, extractor.transform(X).n_gates, strict=True)) == {
        "1": 8,
        "3": 16,
    }


def test_users_function_that_looks_at_other_rows_is_refused():
    net = hiding()
    with pytest.warns(GateCaptureWarning, match=r"3: custom \(custom\).*other rows"):
        extractor = GateExtractor(net, gates={"3": lambda m, i, o: o > o.mean(0)}).fit(X)
    assert extractor.layer_names_ == ["1"]


@pytest.mark.parametrize(
    ("gates", "error", "match"),
    [
        ({"4": lambda m, i, o: o > 0}, ValueError, r"no module matches '4'.*nearest are"),
        (
            {"3": lambda m, i, o: o},
            TypeError,
            r"module '3' returned a tensor of type torch.float64",
        ),
        ({"3": lambda m, i, o: o.numpy() > 0}, TypeError, r"returned ndarray.*output != 0"),
        ({"3": "output != 0"}, TypeError, "a function of"),
        ({3: lambda m, i, o: o > 0}, TypeError, "name of a module"),
    ],
)
def test_wrong_gates_raise(gates, error, match):
    with pytest.raises(error, match=match):
        GateExtractor(hiding(), gates=gates).fit(X)


def test_gates_are_a_parameter_like_others():
    functions = {"3": lambda m, i, o: o > 0}
    extractor = clone(GateExtractor(hiding(), gates=functions))
    assert extractor.get_params()["gates"].keys() == {"3"}
    assert fit(extractor.module, gates=extractor.gates).layer_names_ == ["1", "3"]


# Elsewhere --------------------------------------------------------------------------------------


def test_exported_program_has_the_same_gates():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Hardtanh()).double()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (torch.from_numpy(X),), dynamic_shapes=({0: batch},))
    states = [np.asarray(GateExtractor(m).fit_transform(X)) for m in (net, program.module())]
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("function", [COMPARED["product"][1], TOP["scatter"][1]])
def test_comparisons_and_top_k_cannot_be_penalised(function):
    with pytest.raises(ValueError, match=r"could be penalised.*comparisons.*top-k"):
        ComplexityLoss(Net(function)).find_layers(torch.from_numpy(X))


def test_a_function_without_rows_warns():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh())
    gates = {"3": lambda module, inputs, output: (output > 0).any(0)}
    with pytest.warns(GateCaptureWarning, match=r"3: custom .* does not depend on the batch"):
        fitted = GateExtractor(net, gates=gates).fit(torch.randn(20, 4))
    assert fitted.layer_names_ == ["1"]


def test_a_diverged_network_is_refused():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    net[0].bias.data[2] = np.nan
    with pytest.raises(ValueError, match=r"Layers \['1'\] receive NaN.*diverged"):
        GateExtractor(net).fit(torch.randn(20, 4))
