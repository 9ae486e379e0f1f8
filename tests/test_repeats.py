"""Inputs of a model that equal an earlier one: counted as they stream by, and warned of once."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from skgate import ComplexityMonitor, GateExtractor, GatingEntropy, GatingMI
from skgate.densities import Kernel

KERNEL = Kernel(alpha=1.0)


class Sum(nn.Module):
    """Gates of a linear layer on the sum of two inputs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5)

    def forward(self, x, other=0, labels=None):
        return torch.relu(self.linear(x + other))


class Tokens(nn.Module):
    """Gates of tokens, none of which depends on padding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(50, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask=None):
        return torch.relu(self.linear(self.embedding(input_ids)))


class Samples(Dataset):
    def __init__(self, *arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, row):
        parts = tuple(a[row] for a in self.arrays)
        return parts if len(parts) > 1 else parts[0]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Sum()


def copies(n, repeated):
    """Return n inputs, of which the last ``repeated`` equal one of the first."""
    X = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    X[n - repeated :] = X[np.arange(repeated) % (n - repeated)]
    return X


def found(net, X, y=None, measure=GatingEntropy, **options):
    """Return what is said about repeated inputs: the numbers of these and of all."""
    params = {k: options.pop(k) for k in ("max_samples", "random_state") if k in options}
    model = GateExtractor(net, batch_size=options.pop("batch_size", 7), **options.pop("how", {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure(model, density=KERNEL, **params).fit(X, y, **options)
    texts = [str(w.message).split() for w in caught if "inputs equal an" in str(w.message)]
    return [(int(words[0]), int(words[2])) for words in texts]


@pytest.mark.parametrize(
    ("n", "repeated", "warns"),
    [(20, 4, 0), (20, 5, 1), (500, 5, 0), (499, 5, 1), (500, 6, 1), (40, 36, 1), (40, 0, 0)],
)
def test_more_than_a_few_repeated_inputs_warn(net, n, repeated, warns):
    assert found(net, copies(n, repeated)) == [(repeated, n)] * warns


def test_the_warning_names_what_to_do(net):
    with pytest.warns(UserWarning, match=r"independent.*groups=.*leave the copies out") as caught:
        GatingEntropy(net, density=KERNEL).fit(copies(40, 20))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, "bfloat16", "tensor", "bool"])
def test_numbers_of_any_type(dtype):
    X = torch.from_numpy(copies(60, 20) * 10)
    if dtype == "bfloat16":
        X = X.bfloat16()
    elif dtype == "bool":
        X = torch.cat([X[:40] > 0] * 2)[:60]
        X[:, 0] = False  # rows that differ in few bits
    elif dtype != "tensor":
        X = X.numpy().astype(dtype)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU()).to(torch.float32)
    n = len(np.asarray(X.float() if hasattr(X, "detach") else X))
    rows = {tuple(row.tolist()) for row in X}
    assert found(net, X) == [(n - len(rows), n)]


@pytest.mark.parametrize("form", ["tuple", "dict", "list of dicts", "dataset", "loader", "mixed"])
def test_inputs_in_any_container(net, form):
    one, two = copies(50, 20), copies(50, 10)  # 20 and 10 repeat in one of them, 10 in both
    one[40:], two[40:] = one[:10], two[:10]
    y = np.arange(50) % 2
    rows = zip(one, two, y, strict=True)
    X = {
        "tuple": (one, two),
        "dict": {"x": one, "other": two, "labels": y[::-1].copy()},
        "list of dicts": [{"x": a, "other": b, "label": int(c)} for a, b, c in rows],
        "dataset": Samples(one + two, y),
        "loader": DataLoader(Samples(one + two, y[::-1].copy()), batch_size=9),
        "mixed": (torch.tensor(one), two.astype(np.float64)),
    }[form]
    assert found(net, X) == [(10, 50)]


def test_one_part_of_several_that_repeats_is_no_copy(net):
    rng = np.random.default_rng(1)
    same = np.ones((50, 6), np.float32)
    other = rng.normal(size=(50, 6)).astype(np.float32)
    assert found(net, (same, other)) == []
    assert found(net, {"x": other, "other": same}) == []


def test_labels_are_no_input(net):
    """Copies with other labels are copies; so they are if a module may take the labels."""
    X, y = copies(60, 30), np.arange(60)
    named = {"x": X, "labels": y}
    assert found(net, named) == [(30, 60)]
    assert found(net, X, y % 2, measure=GatingMI) == [(30, 60)]
    assert found(net, Samples(X, y % 2), measure=GatingMI) == [(30, 60)]


@pytest.mark.parametrize("token", [0, 1])
@pytest.mark.parametrize("by_position", [False, True])
def test_padding_makes_no_difference(token, by_position):
    """The same texts, padded by a loader to the longest of each batch."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, 50, length) for length in rng.integers(3, 9, 30)] * 2
    texts[59] = np.append(texts[59], 7)  # longer by a token: no copy

    def collate(batch):
        longest = max(map(len, batch))
        ids = [np.pad(t, (0, longest - len(t)), constant_values=token) for t in batch]
        masks = [np.arange(longest) < len(t) for t in batch]
        return {
            "input_ids": torch.tensor(np.array(ids)),
            "attention_mask": torch.tensor(np.array(masks)).long(),
        }

    torch.manual_seed(0)
    loader = DataLoader(texts, batch_size=4, collate_fn=collate)
    whole = collate(texts)
    how = {"samples": "position"} if by_position else {}
    if by_position:  # batches of other lengths have no gates in common otherwise
        assert found(Tokens(), loader, how=how) == [(29, 60)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found(Tokens(), whole, how=how) == [(29, 60)]


def test_copies_inside_a_group_do_not_warn(net):
    X = np.tile(copies(30, 0), (4, 1))
    groups = np.tile(np.arange(30), 4)
    assert found(net, X) == [(90, 120)]
    assert found(net, X, groups=groups) == []
    assert found(net, X, groups=groups % 3) == []
    apart = groups.copy()
    apart[30:40] = 100 + np.arange(10)  # ten copies have a group of their own
    assert found(net, X, groups=apart) == [(10, 120)]
    with pytest.warns(UserWarning, match="10 of 120 inputs equal an earlier one of another group"):
        GatingEntropy(net, density=KERNEL).fit(X, groups=apart)


def test_samples_that_are_not_drawn_do_not_count():
    """Gates hold the bits of the input, so that they show which samples were drawn."""
    numbers = np.tile(np.arange(300), 2)
    X = 2.0 * (numbers[:, None] >> np.arange(9) & 1).astype(np.float32) - 1
    net = nn.Sequential(nn.Linear(9, 9, bias=False), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(9))
    for data in (X, Samples(X), DataLoader(Samples(X), batch_size=50)):
        measure = GatingEntropy(net, density=KERNEL, max_samples=100, random_state=0)
        with pytest.warns(UserWarning, match="of 100 inputs equal an earlier one") as caught:
            measure.fit(data)
        n_different = len(np.unique(np.asarray(measure.states_), axis=0))
        (text,) = [str(w.message) for w in caught if "inputs equal" in str(w.message)]
        assert int(text.split()[0]) == 100 - n_different > 4


def test_fully_masked_samples_count_for_no_group():
    """Rows that are positions: a sample without any is none, and its group is not another's."""
    ids = torch.tensor(np.random.default_rng(0).integers(2, 50, (20, 4))).repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[3] = mask[23] = 0
    X, how = {"input_ids": ids, "attention_mask": mask}, {"samples": "position"}
    groups = np.tile(np.arange(20), 2)
    assert found(Tokens(), X, how=how) == [(19, 38)]
    assert found(Tokens(), X, how=how, groups=groups) == []
    groups[20:30] += 50
    assert found(Tokens(), X, how=how, groups=groups) == [(9, 38)]


def test_only_a_fit_warns(net):
    X, y = copies(60, 30), np.arange(60) % 2
    with pytest.warns(UserWarning, match="30 of 60 inputs"):
        measure = GatingMI(net, density=KERNEL, random_state=0).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure.score(X, y)
        measure.transform(X)
        measure.score_samples(X)
        GateExtractor(net).fit_transform(X)


def test_a_monitor_warns_once(net):
    monitor = ComplexityMonitor(GatingEntropy(density=KERNEL), copies(60, 30))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            monitor.record(net, step)
    assert sum("30 of 60 inputs" in str(w.message) for w in caught) == 1
