"""Batches of bounded memory, and layers in turn where all states do not fit in memory."""

import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from skgate import GateExtractor, GatingStates
from skgate.capture import _batch_size, _passes
from skgate.states import LayersInTurn

N = 23
X = torch.randn(N, 2, 6, 6, generator=torch.Generator().manual_seed(0))
Y = np.arange(N) % 3
IDS = torch.randint(1, 9, (N, 5), generator=torch.Generator().manual_seed(1))
#: One to five tokens.
MASK = (torch.arange(5) <= torch.arange(N)[:, None] % 5).long()


class Counted(nn.Module):
    """Counts its runs and their samples; fails in one of them."""

    def __init__(self, *layers):
        super().__init__()
        self.net, self.sizes, self.fails_at = nn.Sequential(*layers), [], None

    def forward(self, x):
        self.sizes.append(len(x))
        if len(self.sizes) == self.fails_at:
            raise KeyboardInterrupt
        return self.net(x)


def image_network():
    torch.manual_seed(0)
    return Counted(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout()),
        *(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU6(), nn.Flatten()),
        *(nn.Linear(36, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 7), nn.ReLU()),
    )


class TokenNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.first = nn.Embedding(9, 6), nn.Linear(6, 10)
        self.second, self.third = nn.Linear(10, 5), nn.Linear(5, 8)

    def forward(self, input_ids, attention_mask):
        x = self.embedding(input_ids)
        for layer in (self.first, self.second, self.third):
            x = layer(x).relu()
        return x


@pytest.fixture
def few_bytes(monkeypatch):
    """No two layers fit together beside those that are asked for."""
    monkeypatch.setattr(_passes, "LIMIT", 4)


def in_turn(extractor, *args, **params):
    with pytest.warns(UserWarning, match="layers are read in turn"):
        states, labels = extractor.extract(*args, **params)
    assert isinstance(states, LayersInTurn)
    return states, labels


def assert_same_layers(found, whole):
    """Assert that layers in turn are those of whole states, alone and with the layer before."""
    for name in ("layers", "layer_names", "n_gates", "kinds", "n_samples", "shape", "ndim"):
        assert getattr(found, name) == getattr(whole, name)
    assert len(found) == len(whole)
    n_layers = len(whole.layers)
    for layers in [[0], *pairwise(range(n_layers)), [n_layers - 1], [1], [2, 1], [0]]:
        part = found.select(list(layers))
        assert isinstance(part, GatingStates)
        assert part == whole.select(list(layers))


INPUTS = {
    "tensor": lambda: (X, Y),
    "set": lambda: (TensorDataset(X, torch.tensor(Y)), None),
    "loader": lambda: (DataLoader(TensorDataset(X, torch.tensor(Y)), batch_size=5), None),
    "mapping": lambda: ({"x": X}, Y),
}


@pytest.mark.parametrize("sampling", ["off", "on"])
@pytest.mark.parametrize("max_samples", [None, 9])
@pytest.mark.parametrize("case", INPUTS)
def test_layers_in_turn_are_those_of_one_extraction(case, max_samples, sampling, few_bytes):
    data, y = INPUTS[case]()
    sample = {"max_samples": max_samples, "random_state": 3}
    options = {"batch_size": 4, "sampling": sampling, "random_state": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_passes, "LIMIT", 1e9)
        whole, labels = GateExtractor(image_network(), **options).extract(data, y, **sample)
    assert isinstance(whole, GatingStates)
    assert len(whole.layers) == (7 if sampling == "on" else 5)
    found, its_labels = in_turn(GateExtractor(image_network(), **options), data, y, **sample)
    np.testing.assert_array_equal(its_labels, labels)
    assert_same_layers(found, whole)


@pytest.mark.parametrize("as_mask", ["input", "array"])
@pytest.mark.parametrize("samples", ["sample", "position"])
@pytest.mark.filterwarnings("ignore:.*under a mask:skgate.GateCaptureWarning")
def test_layers_in_turn_with_positions(samples, as_mask, monkeypatch):
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    mask = {"input": "auto", "array": MASK.bool().numpy()}[as_mask]
    options = {"samples": samples, "mask": mask, "batch_size": 4}
    whole, labels = GateExtractor(TokenNetwork(), **options).extract(inputs, Y)
    monkeypatch.setattr(_passes, "LIMIT", 4)
    found, its_labels = in_turn(GateExtractor(TokenNetwork(), **options), inputs, Y)
    assert_same_layers(found, whole)
    np.testing.assert_array_equal(its_labels, labels)
    np.testing.assert_array_equal(found.groups, whole.groups)
    assert (found.groups is None) == (samples == "sample")


def test_estimate_is_that_of_the_packed_bits(few_bytes):
    with pytest.warns(UserWarning, match="in turn") as warned:
        found, _ = GateExtractor(image_network()).extract(X)
    n_bytes = sum(-(-n // 8) * N for n in found.n_gates)
    assert f"{N} samples take about {n_bytes / 1e9:.3g} GB" in str(warned[0].message)
    assert warned[0].filename == __file__


@pytest.mark.parametrize("samples", ["sample", "position"])
def test_states_that_fit_are_read_once(samples, monkeypatch):
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(MASK)}
    extractor = GateExtractor(TokenNetwork(), samples=samples)
    n_bytes = N * (7 + 4 + 5) if samples == "sample" else N * 5 * (2 + 1 + 1)
    monkeypatch.setattr(_passes, "LIMIT", n_bytes)
    assert isinstance(extractor.extract(inputs)[0], GatingStates)
    monkeypatch.setattr(_passes, "LIMIT", n_bytes - 1)
    in_turn(extractor, inputs)


#: Limit in bytes a sample, of layers that take 36, 36, 9, 2 and 1.
@pytest.mark.parametrize(("limit", "n_passes"), [(0, 4), (12, 3), (47, 3), (48, 2), (83, 2)])
def test_a_pass_reads_as_many_layers_as_fit(limit, n_passes, monkeypatch):
    net = image_network()
    extractor = GateExtractor(net, batch_size=N).fit(X)
    assert [-(-n // 8) for n in extractor.transform(X).n_gates] == [36, 36, 9, 2, 1]
    monkeypatch.setattr(_passes, "LIMIT", limit * N)
    net.sizes.clear()
    with pytest.warns(UserWarning, match=f"runs {n_passes} times"):
        found, _ = extractor.extract(X)
    for layers in [[0], *pairwise(range(5))]:
        found.select(list(layers))
    assert net.sizes == [N] * n_passes


def test_rows_of_layers_in_turn(few_bytes):
    extractor = GateExtractor(image_network())
    whole, (found, _) = extractor.fit(X).transform(X), in_turn(extractor, X)
    some = np.array([5, 2, 2, 19])
    assert found[some].shape == (4, whole.shape[1])
    assert found[some].select([1, 2]) == whole.select([1, 2])[some]
    assert found[3:][some].select(["net.1", "net.2"]) == whole[3:][some].select([0, 1])
    again = pickle.loads(pickle.dumps(found))
    assert again.select([3, 4]) == whole.select([3, 4])


def test_transform_returns_all_states(few_bytes):
    assert isinstance(GateExtractor(image_network()).fit(X).transform(X), GatingStates)


def test_two_layers_are_read_at_once(few_bytes):
    net = nn.Sequential(nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 50), nn.ReLU())
    assert isinstance(GateExtractor(net).extract(torch.randn(9, 3))[0], GatingStates)


@pytest.mark.parametrize("sampling", ["off", "on"])
def test_an_interrupted_pass_leaves_the_network_as_it_was(sampling, few_bytes):
    net = image_network().train()
    extractor = GateExtractor(net, batch_size=4, sampling=sampling, random_state=0)
    whole, (found, _) = extractor.fit(X).transform(X), in_turn(extractor, X)
    state = torch.get_rng_state()
    net.fails_at = len(net.sizes) + 3
    with pytest.raises(KeyboardInterrupt):
        found.select([2, 3])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert found.select([2, 3]) == whole.select([2, 3])


class Augmented(Dataset):
    """Yields samples with noise of a generator that nobody seeds."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return N

    def __getitem__(self, row):
        return X[row] + torch.tensor(self.rng.normal(size=X[row].shape), dtype=torch.float32)


def test_data_that_change_are_refused(few_bytes):
    data, net = X.clone(), image_network()
    found, _ = in_turn(GateExtractor(net), data)
    data[-1] *= -1
    with pytest.raises(ValueError, match=r"\['net.5', 'net.8'\] are not those of the first pass"):
        found.select([2, 3])
    data[-1] = X[-1]
    found.select([2, 3])
    with torch.no_grad():
        net.net[7].bias += 10
    with pytest.raises(ValueError, match=r"\['net.8', 'net.11'\] are not those of the first pass"):
        found.select([3, 4])
    found, _ = in_turn(GateExtractor(net), Augmented())
    with pytest.raises(ValueError, match="draws at random what it yields"):
        found.select([1, 2])


class Stream(IterableDataset):
    def __iter__(self):
        yield from X


def test_data_that_cannot_be_read_in_turn_are_refused(few_bytes):
    for loader in (
        DataLoader(TensorDataset(X), batch_size=4, shuffle=True),
        DataLoader(TensorDataset(X), batch_size=4, sampler=[*range(N)][::-1]),
    ):
        net = image_network()
        with pytest.raises(ValueError, match=r"23 samples take about \S+ GB.* shuffle=False"):
            GateExtractor(net, batch_size=4).extract(loader)
    for stream in (Stream(), DataLoader(TensorDataset(X), batch_size=4, drop_last=True)):
        message = r"of the first 4 samples take \S+ GB.*is not known.*transform_to"
        with pytest.raises(ValueError, match=message):
            GateExtractor(image_network(), batch_size=4).extract(stream)


def test_more_layers_than_fit_are_refused(few_bytes, monkeypatch):
    found, _ = in_turn(GateExtractor(image_network()), X)
    with pytest.raises(ValueError, match=r"3 layers were asked for at once.*density='auto'"):
        found.select(slice(1, 4))
    with pytest.raises(KeyError, match="no layer 'none'"):
        found.select("none")
    monkeypatch.setattr(_passes, "MEMORY", (36 + 36) * N - 1)
    net = image_network()
    with pytest.raises(ValueError, match=re.escape("those of layers ['net.1', 'net.2'] alone")):
        GateExtractor(net).extract(X)
    assert sum(net.sizes) < 4 * N  # the first batch alone, to find the layers


# Batches ------------------------------------------------------------------------------------


def test_wide_layers_take_small_batches():
    sizes = []
    conv = nn.Conv2d(1, 32, 3, padding=1)  # 4 MB a sample
    conv.register_forward_hook(lambda module, args, output: sizes.append(output.nbytes))
    net = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(64), nn.Flatten(), nn.Linear(288, 4))
    images = torch.randn(20, 1, 192, 192, generator=torch.Generator().manual_seed(0))
    states = GateExtractor(net).fit_transform(images)
    assert max(sizes) == 14 * 32 * 192 * 192 * 4 <= 1 << 26 < 15 * 32 * 192 * 192 * 4
    by_hand = (conv(images) > 0).flatten(1).numpy()
    np.testing.assert_array_equal(states.packed[0], np.packbits(by_hand, axis=1))


@pytest.fixture
def small_batches(monkeypatch):
    """Five samples at once: the first layer has 8 x 6 x 6 numbers of 4 bytes."""
    monkeypatch.setattr(_batch_size, "MAX_BYTES", 5 * 8 * 36 * 4)


@pytest.mark.parametrize("sampling", ["off", "on"])
@pytest.mark.parametrize("case", INPUTS)
def test_large_batches_run_in_parts(case, sampling, small_batches, tmp_path):
    data, y = INPUTS[case]()
    if case == "loader":
        data = DataLoader(data.dataset, batch_size=12)
    options = {"sampling": sampling, "random_state": 0}
    net = image_network()
    extractor = GateExtractor(net, **options).fit(data)
    net.sizes.clear()
    states, labels = extractor.extract(data, y)
    assert net.sizes == ([5, 5, 2, 5, 5, 1] if case == "loader" else [5, 5, 5, 5, 3])
    np.testing.assert_array_equal(labels, Y)
    assert extractor.transform(data) == states
    assert extractor.transform_to(data, tmp_path) == states
    refitted, _ = GateExtractor(image_network(), **options).extract(data, y)
    assert refitted == states
    if case != "loader":
        of_five = GateExtractor(image_network(), batch_size=5, **options)
        assert of_five.fit(data).transform(data) == states


def test_only_auto_splits_batches(small_batches):
    for batch_size, sizes in ((8, [8, 8, 7]), (N, [N])):
        net = image_network()
        extractor = GateExtractor(net, batch_size=batch_size).fit(X)
        net.sizes.clear()
        extractor.transform(X)
        assert net.sizes == sizes


def test_labels_of_positions_are_split_with_their_samples(monkeypatch):
    monkeypatch.setattr(_batch_size, "MAX_BYTES", 3 * 5 * 10 * 4)
    inputs, of_tokens = {"input_ids": IDS, "attention_mask": MASK}, IDS.numpy() % 4
    rows = [(inputs | {"labels": of_tokens}), (inputs, of_tokens)]
    extractor = GateExtractor(TokenNetwork(), samples="position")
    for data, y in ((rows[0], None), rows[1]):
        states, labels = extractor.extract(data, y)
        np.testing.assert_array_equal(labels, of_tokens[MASK.bool().numpy()])
        np.testing.assert_array_equal(states.groups, np.nonzero(MASK.numpy())[0])


@pytest.mark.parametrize("targets", [torch.ones(10, 3), {"boxes": torch.ones(10, 4)}])
def test_targets_that_are_no_labels_are_left_out_of_parts(targets, small_batches):
    loader = DataLoader(X[:20], batch_size=10, collate_fn=lambda x: (torch.stack(x), targets))
    assert GateExtractor(image_network()).extract(loader)[1] is None


def test_the_comparison_of_rows_takes_small_batches_too(small_batches):
    net = image_network()
    GateExtractor(net).fit(X)
    # to find layers; five rows at once, and again in parts
    assert net.sizes == [2, 3, 5, 2, 3]
