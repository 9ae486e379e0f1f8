"""The module comes back as it was, and every way to hand in the data gives the same states."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset

from skgate import GateExtractor
from skgate.capture import TORCH_LOCK, ActivationReader
from skgate.capture._inputs import Batches
from skgate.capture._runner import each_batch


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# What is put back ----------------------------------------------------------------------------


class Fuse(nn.Module):
    """Passes its input on; raises an error at one of its calls."""

    def __init__(self):
        super().__init__()
        self.n_calls, self.at, self.error = 0, None, None

    def forward(self, x):
        self.n_calls += 1
        if self.n_calls == self.at:
            raise self.error
        return x


class Mixed(nn.Module):
    """Batch normalisation, dropout and parametrisations around a fuse."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.drop = nn.Dropout2d(0.3)
        self.fuse = Fuse()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(inplace=True))
        self.frozen = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.frozen(self.head(self.fuse(self.drop(F.relu(self.bn(self.conv(x)))))))


class FunctionalNorm(nn.Module):
    """Changes its running statistics by function calls, whatever its training flag says."""

    def __init__(self):
        super().__init__()
        self.conv, self.fuse = nn.Conv2d(1, 1, 1), Fuse()
        for name in "abc":
            self.register_buffer(f"mean_{name}", torch.zeros(1))
            self.register_buffer(f"var_{name}", torch.ones(1))

    def forward(self, x):
        x = F.batch_norm(self.conv(x), self.mean_a, self.var_a, training=True, momentum=0.5)
        x = F.instance_norm(x, self.mean_b, self.var_b, use_input_stats=True, momentum=0.5)
        x = torch.batch_norm(x, None, None, self.mean_c, self.var_c, True, 0.5, 1e-5, False)
        return F.relu(self.fuse(x))


class Counter(nn.Module):
    """Changes its buffers itself: one in place, one by a new tensor under its name."""

    def __init__(self):
        super().__init__()
        self.fc, self.fuse = nn.Linear(6, 4), Fuse()
        self.register_buffer("in_place", torch.zeros(1))
        self.register_buffer("rebound", torch.zeros(1))
        self.register_buffer("empty", None)
        self.register_buffer("nan", torch.full((1,), torch.nan))

    def forward(self, x):
        self.in_place += x.mean()
        self.rebound = self.rebound + 1
        return F.relu(self.fuse(self.fc(x)))


def spectral(norm):
    return nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU(), Fuse())


class MaxNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.fuse, self.table = Fuse(), nn.Embedding(10, 4, max_norm=0.1)

    def forward(self, x):
        return F.relu(self.fuse(self.table(x.long().clamp(0, 9))))


IMAGES = noise(20, 1, 6, 6)
ROWS = noise(20, 6)

NETWORKS = {
    "mixed": (Mixed, IMAGES),
    "functional norm": (FunctionalNorm, IMAGES),
    "own buffers": (Counter, ROWS),
    "spectral_norm": (lambda: spectral(nn.utils.spectral_norm), ROWS),
    "parametrised spectral_norm": (lambda: spectral(nn.utils.parametrizations.spectral_norm), ROWS),
    "max_norm": (MaxNorm, abs(ROWS * 4)),
}


def build(case):
    """Return a network in the middle of its training, with hooks and gradients, and data."""
    make, X = NETWORKS[case]
    torch.manual_seed(0)
    net = make().train()
    net(torch.from_numpy(X)).sum().backward()
    for i, module in enumerate(net.modules()):
        module.training = i % 3 != 0
    for i, parameter in enumerate(net.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    net.calls = []
    net.register_forward_pre_hook(lambda m, args: net.calls.append("pre"))
    net.register_forward_hook(lambda m, args, out: net.calls.append("post"))
    fuse = next(m for m in net.modules() if isinstance(m, Fuse))
    fuse.register_forward_hook(lambda m, a, k, out: net.calls.append("fuse"), with_kwargs=True)
    return net, fuse, X


def numpy_state():
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (the one to leave alone)
    return state["key"].tobytes(), state["pos"]


def snapshot(net):
    """Return all that extraction might change, as values that compare."""
    hooks, flags = {}, {}
    for name, module in net.named_modules():
        flags[name] = module.training
        kept = {k: dict(v) for k, v in vars(module).items() if "hooks" in k and v is not None}
        hooks[name] = {k: list(v.items()) for k, v in kept.items()}
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return {
        "training flags": flags,
        "hooks": hooks,
        "identities": {name: id(t) for name, t in tensors},
        "values": {name: t.detach().numpy().tobytes() for name, t in tensors},
        "requires_grad": {name: t.requires_grad for name, t in tensors},
        "gradients": {
            name: None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
            for name, p in net.named_parameters()
        },
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": numpy_state(),
        "gradient mode": torch.is_grad_enabled(),
    }


PARTS = ["training flags", "hooks", "identities", "values", "requires_grad", "gradients"]
PARTS += ["torch generator", "numpy generator", "gradient mode"]


def assert_unchanged(net, before):
    after = snapshot(net)
    assert list(after) == PARTS
    assert [part for part in PARTS if after[part] != before[part]] == []


@pytest.mark.parametrize("sampling", ["off", "on"])
@pytest.mark.parametrize("case", NETWORKS)
def test_module_is_as_it_was_after_a_run(case, sampling):
    net, _, X = build(case)
    before = snapshot(net)
    extractor = GateExtractor(net, sampling=sampling, random_state=0, batch_size=8)
    extractor.extract(X)
    assert_unchanged(net, before)
    extractor.fit(X)
    assert_unchanged(net, before)
    extractor.transform(X)
    assert_unchanged(net, before)
    assert extractor.module_ is net


@pytest.mark.parametrize("error", [RuntimeError("blown"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("at", [1, 2, 4], ids=["first look", "second look", "second batch"])
@pytest.mark.parametrize("sampling", ["off", "on"])
@pytest.mark.parametrize("case", NETWORKS)
def test_module_is_as_it_was_after_an_error(case, sampling, at, error):
    net, fuse, X = build(case)
    before = snapshot(net)
    fuse.n_calls, fuse.at, fuse.error = 0, at, error
    with pytest.raises(type(error)):
        GateExtractor(net, sampling=sampling, random_state=0, batch_size=8).extract(X)
    assert fuse.n_calls == at
    assert_unchanged(net, before)


@pytest.mark.parametrize("case", ["mixed", "own buffers"])
def test_run_after_an_error_gives_the_states_of_a_first_run(case):
    net, fuse, X = build(case)
    wanted = GateExtractor(net, batch_size=8).fit_transform(X)
    fuse.n_calls, fuse.at, fuse.error = 0, 4, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        GateExtractor(net, batch_size=8).extract(X)
    assert GateExtractor(net, batch_size=8).fit_transform(X) == wanted


def test_hooks_of_the_user_run_on_each_batch():
    net, _, X = build("mixed")
    extractor = GateExtractor(net, batch_size=8).fit(X)
    net.calls.clear()
    extractor.transform(X)
    assert net.calls == ["pre", "fuse", "post"] * 3
    net.calls.clear()
    net(torch.from_numpy(X))
    assert net.calls == ["pre", "fuse", "post"]


def test_output_changed_by_a_hook_of_the_user_is_what_is_gated():
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    net[0].register_forward_hook(lambda m, args, out: -out)
    states = GateExtractor(net).fit_transform(ROWS)
    np.testing.assert_array_equal(np.asarray(states), -ROWS > 0)


def test_numpy_generator_is_left_alone_where_nothing_is_drawn():
    before = numpy_state()
    GateExtractor(nn.Sequential(nn.Linear(6, 4), nn.ReLU())).fit_transform(ROWS)
    assert numpy_state() == before


def test_batch_norm_uses_running_statistics_under_sampling():
    net, _, X = build("mixed")
    assert net.bn.num_batches_tracked == 1  # running statistics far from those of a batch
    off, on = (
        GateExtractor(net, sampling=sampling, random_state=0, layers="relu").fit_transform(X)
        for sampling in ("off", "on")
    )
    assert off == on
    with torch.no_grad():
        z = net.bn.eval()(net.conv(torch.from_numpy(X)))
    np.testing.assert_array_equal(np.asarray(off), (z > 0).flatten(1).numpy())


def test_instance_norm_uses_running_statistics_under_sampling():
    norm = nn.InstanceNorm2d(1, track_running_stats=True)
    norm.running_mean.fill_(0.7)
    states = GateExtractor(nn.Sequential(norm, nn.ReLU()), sampling="on").fit_transform(IMAGES)
    np.testing.assert_array_equal(np.asarray(states), (IMAGES > 0.7).reshape(20, -1))


def test_functional_batch_norm_uses_running_statistics():
    class Net(nn.Module):
        def forward(self, x):
            mean, var = torch.full((6,), 0.7), torch.ones(6)
            return F.relu(F.batch_norm(x, mean, var, None, None, True))

    states = GateExtractor(Net()).fit_transform(ROWS)
    np.testing.assert_array_equal(np.asarray(states), ROWS > 0.7)


LAZY = {
    "LazyLinear": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.ReLU()),
    "LazyConv2d": lambda: nn.Sequential(nn.LazyConv2d(3, 3), nn.ReLU(), nn.LazyConv2d(2, 2)),
    "LazyBatchNorm2d": lambda: nn.Sequential(nn.LazyBatchNorm2d(), nn.ReLU()),  # lazy buffers
}


@pytest.mark.parametrize("case", LAZY)
def test_lazy_module_stays_lazy(case):
    net = LAZY[case]()
    types = [type(module) for module in net]
    extractor = GateExtractor(net, random_state=0)
    states = extractor.fit_transform(IMAGES)
    assert [type(module) for module in net] == types
    assert all(nn.parameter.is_lazy(p) for p in net.parameters())
    assert all(m.training for m in net.modules())
    assert not any(nn.parameter.is_lazy(p) for p in extractor.module_.parameters())
    assert GateExtractor(net, random_state=0).fit_transform(IMAGES) == states


@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_data_are_left_alone_by_a_module_that_writes_into_its_input(as_tensor):
    class Overwrites(nn.Module):
        def forward(self, x):
            return F.relu(x.mul_(-1), inplace=True)

    X = torch.from_numpy(ROWS.copy()) if as_tensor else ROWS.copy()
    extractor = GateExtractor(Overwrites())
    first, second = extractor.fit_transform(X), extractor.transform(X)
    np.testing.assert_array_equal(np.asarray(X), ROWS)
    np.testing.assert_array_equal(np.asarray(first), -ROWS > 0)
    assert first == second


def test_read_only_data_do_not_warn(recwarn):
    X = ROWS.copy()
    X.flags.writeable = False
    states = GateExtractor(nn.Sequential(nn.ReLU())).fit_transform(X)
    np.testing.assert_array_equal(np.asarray(states), ROWS > 0)
    assert [str(w.message) for w in recwarn] == []


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
        return iter(zip(*self.parts, strict=True)) if len(self.parts) > 1 else iter(self.parts[0])


@pytest.mark.parametrize(
    "wrap",
    [Rows, Stream, lambda X: DataLoader(Rows(X)), lambda X: DataLoader(Stream(X))],
    ids=["Dataset", "IterableDataset", "DataLoader", "DataLoader of a stream"],
)
@pytest.mark.parametrize("method", ["fit", "extract"])
def test_generators_are_left_alone_by_loading(wrap, method):
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    before = torch.get_rng_state()
    getattr(GateExtractor(net, random_state=0), method)(wrap(ROWS))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("case", ["mixed", "own buffers"])
def test_everything_is_restored_between_batches_and_after_an_early_stop(case):
    net, _, X = build(case)
    before = snapshot(net)
    reader = ActivationReader(net, layers=None, spatial="flatten", batch_size=8)
    batches = reader.read(BaseEstimator(), Rows(X), None, reset=True)
    for _ in range(2):
        next(batches)
        assert_unchanged(net, before)
        with ThreadPoolExecutor(1) as another_thread:
            assert another_thread.submit(TORCH_LOCK.acquire, timeout=5).result()
            another_thread.submit(TORCH_LOCK.release).result()
    batches.close()
    assert_unchanged(net, before)


def test_random_numbers_of_the_caller_do_not_reach_the_loader():
    class Noisy(Rows):
        def __getitem__(self, i):
            return torch.from_numpy(ROWS[i]) + torch.randn(6)

    undisturbed = [inputs for inputs, _ in each_batch(Batches(Noisy(ROWS), 8), seed=0)]
    for (inputs, _), expected in zip(
        each_batch(Batches(Noisy(ROWS), 8), seed=0), undisturbed, strict=True
    ):
        assert torch.equal(inputs, expected)
        torch.rand(1)


# Ways to hand in the data --------------------------------------------------------------------

LABELS = np.arange(20) % 7


def network():
    torch.manual_seed(0)
    bn = nn.BatchNorm1d(8)
    bn.running_mean.fill_(0.2)
    return nn.Sequential(
        nn.Linear(6, 8), bn, nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 5), nn.ReLU()
    )


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def wanted(net):
    """Gates computed by hand, sample by sample."""
    with torch.no_grad():
        z = F.linear(torch.from_numpy(ROWS), net[0].weight, net[0].bias)
        first = (z - net[1].running_mean) / torch.sqrt(net[1].running_var + net[1].eps)
        second = F.linear(first.clamp(min=0), net[4].weight, net[4].bias)
    # dropout drops nothing with sampling off and is no layer
    return np.hstack([first > 0, second > 0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 19, 20, 21, 1000])
def test_states_do_not_depend_on_batch_size(net, wanted, batch_size):
    states = GateExtractor(net, batch_size=batch_size).fit_transform(ROWS)
    assert states.layer_names == ("2", "5")
    np.testing.assert_array_equal(np.asarray(states), wanted)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 4])
def test_few_samples_will_do(net, wanted, n_samples):
    states = GateExtractor(net).fit_transform(ROWS[:n_samples])
    np.testing.assert_array_equal(np.asarray(states), wanted[:n_samples])


INPUTS = {
    "array": lambda: ROWS,
    "float64 array": lambda: ROWS.astype(np.float64),
    "Fortran array": lambda: np.asfortranarray(ROWS),
    "strided array": lambda: np.repeat(ROWS, 2, axis=1)[:, ::2],
    "tensor": lambda: torch.from_numpy(ROWS),
    "tensor that requires grad": lambda: torch.from_numpy(ROWS).requires_grad_(),
    "list of rows": lambda: ROWS.tolist(),
    "tuple of one": lambda: (ROWS,),
    "dict": lambda: {"input": ROWS},
    "dict of tensors": lambda: {"input": torch.from_numpy(ROWS)},
    "Dataset": lambda: Rows(ROWS),
    "Dataset with labels": lambda: Rows(ROWS, LABELS),
    "TensorDataset": lambda: TensorDataset(torch.from_numpy(ROWS)),
    "TensorDataset with labels": lambda: TensorDataset(
        torch.from_numpy(ROWS), torch.from_numpy(LABELS)
    ),
    "IterableDataset": lambda: Stream(ROWS),
    "IterableDataset with labels": lambda: Stream(ROWS, LABELS),
    "DataLoader": lambda: DataLoader(Rows(ROWS), batch_size=3),
    "DataLoader with labels": lambda: DataLoader(Rows(ROWS, LABELS), batch_size=20),
    "DataLoader of one": lambda: DataLoader(Rows(ROWS), batch_size=1),
    "DataLoader of a stream": lambda: DataLoader(Stream(ROWS), batch_size=6),
    "DataLoader with a batch sampler": lambda: DataLoader(
        Rows(ROWS), batch_sampler=BatchSampler(torch.utils.data.SequentialSampler(ROWS), 6, False)
    ),
    "DataLoader of ready batches": lambda: DataLoader(
        [torch.from_numpy(ROWS[:9]), torch.from_numpy(ROWS[9:])], batch_size=None
    ),
}


@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("method", ["fit_transform", "extract"])
def test_every_input_gives_the_same_states(net, wanted, case, method):
    states = getattr(GateExtractor(net, batch_size=8), method)(INPUTS[case]())
    states = states[0] if method == "extract" else states
    np.testing.assert_array_equal(np.asarray(states), wanted)


@pytest.mark.parametrize("case", [case for case in INPUTS if "with labels" in case])
def test_extract_returns_the_labels_that_the_data_hold(net, case):
    _, y = GateExtractor(net, batch_size=8).extract(INPUTS[case]())
    np.testing.assert_array_equal(y, LABELS)


@pytest.mark.parametrize("case", [case for case in INPUTS if "with labels" not in case])
def test_extract_returns_no_labels_where_there_are_none(net, case):
    assert GateExtractor(net, batch_size=8).extract(INPUTS[case]())[1] is None


@pytest.mark.parametrize("max_samples", [5, 0.25])
@pytest.mark.parametrize("case", ["array", "dict", "Dataset with labels", "DataLoader with labels"])
def test_drawn_samples_keep_their_labels(net, wanted, case, max_samples):
    y = None if "with labels" in case else LABELS
    states, labels = GateExtractor(net).extract(
        INPUTS[case](), y, max_samples=max_samples, random_state=1
    )
    assert len(states) == len(labels) == 5
    rows = [np.flatnonzero((wanted == gates).all(1)) for gates in np.asarray(states)]
    assert all(label in LABELS[found] for found, label in zip(rows, labels, strict=True))
    again = GateExtractor(net).extract(ROWS, LABELS, max_samples=max_samples, random_state=1)
    assert states == again[0]


def test_drawn_samples_of_a_stream_with_labels_beside_it(net):
    states, labels = GateExtractor(net).extract(Stream(ROWS), LABELS, max_samples=5, random_state=1)
    assert len(states) == len(labels) == 5


@pytest.mark.parametrize("X", [ROWS, Rows(ROWS), Stream(ROWS)], ids=["array", "Dataset", "stream"])
def test_labels_of_another_length_raise(net, X):
    with pytest.raises(ValueError, match="inconsistent"):
        GateExtractor(net).extract(X, LABELS[:-1])


def test_shuffling_loader_raises_in_transform(net):
    loader = DataLoader(Rows(ROWS, LABELS), batch_size=6, shuffle=True)
    extractor = GateExtractor(net).fit(loader)
    with pytest.raises(ValueError, match="shuffling"):
        extractor.transform(loader)


def test_shuffling_loader_gives_labels_of_its_own_pass(net, wanted):
    loader = DataLoader(Rows(ROWS, np.arange(20)), batch_size=6, shuffle=True)
    states, y = GateExtractor(net).extract(loader)
    assert sorted(y) == list(range(20))
    assert list(y) != list(range(20))
    np.testing.assert_array_equal(np.asarray(states), wanted[y])


def test_batch_sampler_that_repeats_samples(net, wanted):
    rows = [[0, 1, 2], [3, 3, 3, 3], list(range(20))]
    loader = DataLoader(Rows(ROWS, np.arange(20)), batch_sampler=rows)
    with pytest.warns(UserWarning, match="7 of 27 inputs equal an earlier one"):
        states, y = GateExtractor(net).extract(loader)
    np.testing.assert_array_equal(y, np.concatenate(rows))
    np.testing.assert_array_equal(np.asarray(states), wanted[y])


def test_loader_that_drops_the_last_batch(net, wanted):
    loader = DataLoader(Rows(ROWS), batch_size=6, drop_last=True)
    np.testing.assert_array_equal(np.asarray(GateExtractor(net).fit_transform(loader)), wanted[:18])


def test_loader_with_labels_beside_it_raises(net):
    with pytest.raises(ValueError, match="DataLoader"):
        GateExtractor(net).extract(DataLoader(Rows(ROWS)), LABELS)


@pytest.mark.parametrize("X", [Rows(ROWS, LABELS, LABELS), Stream(ROWS, LABELS, LABELS)])
def test_batches_of_three_parts_raise(net, X):
    for data in (X, DataLoader(X, batch_size=4)):
        with pytest.raises(ValueError, match="3 parts"):
            GateExtractor(net).extract(data)


def test_list_of_tuples_raises(net):
    with pytest.raises(ValueError, match="list of tuples"):
        GateExtractor(net).fit(list(zip(ROWS, LABELS, strict=True)))


def test_inputs_of_different_lengths_raise(net):
    for X in ((ROWS, ROWS[:-1]), {"a": ROWS, "b": ROWS[:-1]}):
        with pytest.raises(ValueError, match="number of samples"):
            GateExtractor(net).fit(X)


def test_no_samples_raise(net):
    for X in (ROWS[:0], torch.from_numpy(ROWS[:0]), DataLoader(Stream(ROWS[:0]))):
        with pytest.raises(ValueError, match="0 sample"):
            GateExtractor(net).extract(X)


NAN = ROWS.copy()
NAN[15, 2] = np.nan

WITH_NAN = {
    "array": NAN,
    "infinity": np.where(np.isnan(NAN), np.inf, NAN),
    "tensor": torch.from_numpy(NAN),
    "bfloat16 tensor": torch.from_numpy(NAN).bfloat16(),
    "tuple": (NAN,),
    "dict": {"input": NAN},
    "tuple of tensors": (torch.from_numpy(NAN),),
    "dict of tensors": {"input": torch.from_numpy(NAN)},
}


@pytest.mark.parametrize("case", WITH_NAN)
@pytest.mark.parametrize("method", ["fit", "transform", "extract"])
def test_nan_raises(net, case, method):
    extractor = GateExtractor(net)
    if method == "transform":
        extractor.fit(ROWS)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        getattr(extractor, method)(WITH_NAN[case])


@pytest.mark.parametrize("wrap", [Rows, Stream, lambda X: DataLoader(Rows(X))])
def test_nan_in_a_stream_raises(net, wrap):
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        GateExtractor(net).extract(wrap(NAN))


def test_transform_before_fit_raises(net):
    with pytest.raises(NotFittedError):
        GateExtractor(net).transform(ROWS)


@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("case", ["array", "IterableDataset", "DataLoader"])
def test_progress_bar_shows_when_asked_for(net, capsys, case, verbose):
    GateExtractor(net, verbose=verbose).fit_transform(INPUTS[case]())
    shown = capsys.readouterr()
    assert ("gating states" in shown.err) == bool(verbose)
    assert shown.out == ""
