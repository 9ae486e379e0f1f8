"""The gates of a row depend on that row alone: networks that break this are refused by name."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skgate import GateCaptureWarning, GateExtractor, layer_activations

DEPENDENT = "depend on the other rows of the batch"


def tokens(n=40, t=4, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, t, d))


class Then(nn.Module):
    """An honest ReLU, and something after it."""

    def __init__(self, after, n_in=6, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.after = nn.Linear(n_in, width), after
        self.double()

    def forward(self, x):
        return self.after(F.relu(self.first(x)))


class SortedExperts(nn.Module):
    """Top-1 experts, each of which runs on its tokens together."""

    def __init__(self, width=8, n_experts=3):
        super().__init__()
        self.router = nn.Linear(width, n_experts)
        self.up = nn.Parameter(torch.randn(n_experts, width, 10))

    def forward(self, x):
        flat = x.flatten(0, -2)
        expert = self.router(flat).argmax(-1)
        order = expert.argsort(stable=True)
        hidden = F.relu(torch.einsum("td,tdh->th", flat[order], self.up[expert[order]]))
        return hidden[order.argsort()].unflatten(0, x.shape[:-1])


class BatchTopK(nn.Module):
    """The largest k latents a sample, chosen over the whole batch."""

    def __init__(self, k=2):
        super().__init__()
        self.k = k

    def forward(self, x):
        kth = x.flatten().topk(self.k * len(x)).values[-1]
        return F.threshold(x, float(kth), 0.0)


class Statistics(nn.Module):
    def forward(self, x):
        x = x.flatten(1)
        return F.relu(F.batch_norm(x, None, None, training=True))


class CustomStatistics(nn.Module):
    def forward(self, x):
        return F.relu(x - x.mean(0) - 0.3)


class Attention(nn.Module):
    """Samples that see each other."""

    def forward(self, x):
        x = x.flatten(1)
        return F.relu((x @ x.T).softmax(-1) @ x - 0.5)


class Capacity(nn.Module):
    """Only the first half of the rows is processed."""

    def forward(self, x):
        seat = torch.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        return F.relu(x * (seat < 20) - 0.1)


DISHONEST = {
    "experts": (SortedExperts, tokens()),
    "top-k": (BatchTopK, tokens(t=1)[:, 0]),
    "statistics": (Statistics, tokens()),
    "custom statistics": (CustomStatistics, tokens()),
    "attention": (Attention, tokens()),
    "capacity": (Capacity, tokens()),
}


def honest(case):
    return ["relu", "after.argmax"] if case == "experts" else ["relu"]  # each token has a router


@pytest.mark.parametrize("case", DISHONEST)
def test_layer_that_depends_on_other_rows_is_refused_by_name(case):
    make, X = DISHONEST[case]
    torch.manual_seed(1)
    net = Then(make())
    with pytest.warns(GateCaptureWarning, match=r"after\..*, not captured") as caught:
        extractor = GateExtractor(net).fit(X)
    assert len([w for w in caught if w.category is GateCaptureWarning]) == 1
    assert extractor.layer_names_ == honest(case)
    (why,) = [r.reason for r in extractor.coverage_ if r.kind == "threshold" and not r.captured]
    assert DEPENDENT in why or "change when a third is in the batch" in why
    with pytest.warns(GateCaptureWarning):
        states, _ = GateExtractor(net).extract(X)  # which fits too
    assert list(states.layer_names) == honest(case)


@pytest.mark.parametrize("case", DISHONEST)
def test_refused_layers_are_refused_in_low_precision_too(case):
    make, X = DISHONEST[case]
    torch.manual_seed(1)
    net = Then(make()).bfloat16()
    with pytest.warns(GateCaptureWarning):
        assert GateExtractor(net).fit(X).layer_names_ == honest(case)


class SortedByNumPy(SortedExperts):
    """Experts whose order torch does not see."""

    def forward(self, x):
        flat = x.flatten(0, -2)
        expert = self.router(flat).argmax(-1).numpy()
        order = expert.argsort(kind="stable")
        hidden = F.relu(torch.einsum("td,tdh->th", flat[order], self.up[expert[order]]))
        return hidden[order.argsort()].unflatten(0, x.shape[:-1])


def test_first_samples_that_look_honest_hide_nothing():
    net, X = Then(SortedByNumPy()), tokens(n=64)
    with torch.no_grad():
        z = F.relu(net.first(torch.from_numpy(X)))
        expert = net.after.router(z).argmax(-1).numpy()
    alike = X[expert == np.bincount(expert.ravel()).argmax()]  # tokens of one expert
    X[:3] = alike[:12].reshape(3, 4, 6)
    with pytest.warns(GateCaptureWarning, match=DEPENDENT):
        extractor = GateExtractor(net).fit(X)
    (record,) = [r for r in extractor.coverage_ if r.layer == "after.relu"]
    assert (record.captured, record.n_gates) == (False, 0)
    assert 0.2 < float(record.reason.split(": ")[1].split()[0]) < 0.6


class RoutedByPosition(nn.Module):
    """Experts that are given as input, and run as a loop, or sorted, or token by token."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.act = how, nn.ReLU()
        self.up = nn.Parameter(torch.randn(3, 6, 10).double())

    def forward(self, x, expert):
        return F.relu(getattr(self, self.how)(x.flatten(0, 1), expert.flatten()) - 0.1)

    def loop(self, x, expert):
        output = x.new_zeros(len(x), 10)
        for i in expert.unique():
            (token,) = torch.where(expert == i)
            output.index_add_(0, token, self.act(x[token] @ self.up[i]))
        return output

    def sort(self, x, expert):
        order = expert.argsort(stable=True)
        hidden = self.act(torch.einsum("td,tdh->th", x[order], self.up[expert[order]]))
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return hidden[back]

    def chosen(self, x, expert):
        return self.sort(x[expert >= 0], expert[expert >= 0])

    def single(self, x, expert):
        return self.act(torch.einsum("td,tdh->th", x, self.up[expert]))


@pytest.mark.parametrize("how", ["loop", "sort"])
@pytest.mark.parametrize("n_tokens", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_rows_in_order_by_chance_do_not_make_experts_a_layer(how, n_tokens, batch_size):
    X = tokens(t=n_tokens)
    expert = np.random.default_rng(0).integers(0, 3, X.shape[:2])
    expert[:8] = 0  # all tokens of the first batch have one expert, which leaves them in order
    with pytest.warns(GateCaptureWarning, match="the data choose or sort the rows"):
        extractor = GateExtractor(RoutedByPosition(how), batch_size=batch_size).fit((X, expert))
    # the ReLU on what they return, which is in the order of the tokens again, is one
    assert extractor.layer_names_ == ["relu"]
    expected = RoutedByPosition("single")(torch.tensor(X), torch.tensor(expert)) > 0
    states = extractor.transform((X, expert))
    np.testing.assert_array_equal(np.asarray(states), expected.reshape(len(X), -1))


def test_refused_layer_that_is_asked_for_is_named_with_the_reason():
    expert = np.random.default_rng(0).integers(0, 3, (40, 4))
    with pytest.raises(ValueError, match=r"layers='act\*' cannot be captured:\n  act: .*choose"):
        GateExtractor(RoutedByPosition("sort"), layers="act*").fit((tokens(), expert))


def test_layers_of_many_blocks_that_are_alike_share_a_line():
    net = nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(12)])
    with pytest.raises(ValueError, match=r"ran:\n  \*\.1 \(12 of these\): tanh .*smooth=True") as e:
        GateExtractor(net.double()).fit(tokens())
    assert str(e.value).count("tanh") == 1
    with pytest.raises(ValueError, match=r"(?s)\n  0\.1: tanh.*\n  1\.1: tanh.*\n  2\.1: tanh"):
        GateExtractor(net[:3]).fit(tokens())


class Branch(nn.Module):
    """A ReLU of the whole batch that only some batches need."""

    def __init__(self):
        super().__init__()
        self.first, self.extra = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        y = self.first(x)
        return self.extra(-x) + y if (x > 2).any() else y


def test_layer_that_some_batches_skip_is_refused_by_name():
    X = tokens().clip(-1.9, 1.9)
    X[2, 0, 0] = 3
    with pytest.warns(GateCaptureWarning, match=r"extra: relu.*it does not run in every batch"):
        assert GateExtractor(Branch()).fit(X).layer_names_ == ["first"]


def test_rows_that_are_sorted_back_but_were_chosen_before_are_refused():
    expert = np.random.default_rng(0).integers(0, 3, (40, 4))
    with pytest.raises(ValueError, match=r"(?s)act: .*choose or sort.*relu: .*choose or sort"):
        GateExtractor(RoutedByPosition("chosen")).fit((tokens(), expert))


def test_experts_that_some_batches_skip_are_refused_by_name():
    X, expert = tokens(), np.zeros((40, 4), int)
    expert[2], expert[3:] = 1, 2  # the third sample brings the second expert in
    with pytest.warns(GateCaptureWarning, match=r"act: relu.*\n.*act:1: relu.*not captured"):
        extractor = GateExtractor(RoutedByPosition("loop")).fit((X, expert))
    assert extractor.layer_names_ == ["relu"]


class Ragged(nn.Module):
    """Rows of ids, padded with 0, whose tokens are laid end to end."""

    def __init__(self, seen=False):
        super().__init__()
        self.seen, self.table = seen, nn.Embedding(9, 5)

    def forward(self, ids):
        # torch does not see which ids NumPy chooses
        return F.relu(self.table(ids[ids > 0] if self.seen else ids[ids.numpy().nonzero()]))


def ids(lengths):
    rng = np.random.default_rng(0)
    return np.array([np.r_[rng.integers(1, 9, k), np.zeros(24 - k, int)] for k in lengths])


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ([16, 8, 24] * 6, "do not grow in proportion"),
        ([16] * 3 + [8, 24, 12] * 5, "rows, 16 a sample, in a batch of 18 samples"),
    ],
    ids=["from the start", "later"],
)
def test_ragged_batches_that_flatten_are_refused(lengths, why):
    with pytest.raises(ValueError, match=f"(?s)no gating layer.*{why}"):
        GateExtractor(Ragged()).fit(ids(lengths))


@pytest.mark.parametrize("lengths", [[16] * 18, [16] * 3 + [8, 24, 16] * 5])
def test_ragged_batches_with_as_many_rows_as_others_are_refused(lengths):
    X = ids(lengths)  # of 16 a sample in all, so that no number of rows shows it
    with pytest.raises(ValueError, match=r"(?s)no gating layer.*the data choose or sort the rows"):
        GateExtractor(Ragged(seen=True)).fit(X)


def test_rows_of_a_later_batch_are_counted():
    X = ids([16] * 12 + [16, 8, 24, 8])
    extractor = GateExtractor(Ragged(), batch_size=4).fit(X)
    with pytest.raises(ValueError, match=r"Layer 'relu'.* 56 rows, 16 a sample.* of 4 samples"):
        extractor.transform(X)
    assert extractor.transform(X[:12]).shape == (12, 80)


def test_rows_of_activations_are_counted():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(x if len(x) < 5 else torch.cat([x, x]))

    with pytest.raises(ValueError, match=r"Layer 'fc'.* 20 rows, in a batch of 10 samples"):
        layer_activations(Doubling(), tokens(n=10, t=1)[:, 0])


class NearestOnly(nn.Module):
    """Samples and positions are shuffled together: no order of them is right."""

    def forward(self, x):
        flat = x.flatten(0, 1)
        return F.relu(flat[flat[:, 0].numpy().argsort()])


def test_an_axis_that_is_merely_the_nearest_is_none():
    X = tokens()
    why = "its values for two samples change when a third is in the batch"
    with pytest.raises(ValueError, match=why):
        GateExtractor(NearestOnly()).fit(X)
    with pytest.warns(GateCaptureWarning, match=why):
        assert GateExtractor(Then(NearestOnly())).fit(X).layer_names_ == ["relu"]


def test_error_says_that_the_only_layers_depend_on_other_rows():
    X = DISHONEST["top-k"][1]
    with pytest.raises(ValueError, match=f"(?s)no gating layer.*threshold.*{DEPENDENT}"):
        GateExtractor(BatchTopK()).fit(X)
    with pytest.raises(ValueError, match=f"(?s)no gating layer.*after.threshold.*{DEPENDENT}"):
        GateExtractor(Then(BatchTopK()), layers="after*").fit(X)


# Honest networks -----------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return F.relu(x + self.norm(self.b(F.relu(self.a(x)))))


def mlp():
    return nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU6())


def conv():
    features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(27, 12), nn.ReLU())


def encoder():
    return nn.TransformerEncoderLayer(6, 2, 10, batch_first=True)


images = np.random.default_rng(0).normal(size=(90, 1, 8, 8))
HONEST = {
    "MLP": (mlp, tokens(90, 1)[:, 0], 2),
    "convolutions": (conv, images, 3),
    "residual": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), Block(), Block()), images, 4),
    "transformer": (encoder, tokens(90), 1),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", HONEST)
def test_permuting_samples_permutes_the_states_of_honest_networks(case, dtype):
    make, X, n_layers = HONEST[case]
    torch.manual_seed(3)
    net, order = make().to(dtype), np.random.default_rng(1).permutation(len(X))
    extractor = GateExtractor(net).fit(X)
    captured = [r for r in extractor.coverage_ if r.captured and r.kind != "dropout"]
    assert len(captured) == n_layers
    assert not any(r.reason for r in captured)
    states = extractor.transform(X)
    if dtype == torch.float32:  # in which another size of batch may round to another bit
        return
    assert extractor.transform(X[order]) == states[order]
    for batch_size in (1, 7, 64):
        assert extractor.set_params(batch_size=batch_size).transform(X) == states


def test_honest_network_in_bfloat16():
    torch.manual_seed(0)
    net, X = mlp().bfloat16(), tokens(90, 1)[:, 0]
    extractor = GateExtractor(net).fit(X)
    assert extractor.layer_names_ == ["1", "3"]
    order = np.random.default_rng(1).permutation(len(X))
    states, permuted = extractor.transform(X), extractor.transform(X[order])
    assert (np.asarray(states[order]) != np.asarray(permuted)).mean() < 0.02


class Rounding(nn.Module):
    """A share of the gates is within rounding of its threshold, which depends on the batch."""

    def __init__(self, share, n_units=4000):
        super().__init__()
        self.share, self.fc = share, nn.Linear(6, n_units)

    def forward(self, x):
        z = self.fc(x)
        near = torch.arange(z.shape[1]) < self.share * z.shape[1]
        tiny = 1e-6 * (-1) ** torch.arange(len(x))[:, None]  # of the place in the batch
        return F.relu(torch.where(near, tiny.to(z), z))


@pytest.mark.parametrize(
    ("dtype", "share", "passes"),
    [
        (torch.float32, 0.0005, True),
        (torch.float32, 0.01, False),
        (torch.bfloat16, 0.005, True),
        (torch.bfloat16, 0.06, False),
    ],
    ids=str,
)
def test_rounding_is_tolerated_as_far_as_the_precision_asks_for(dtype, share, passes):
    torch.manual_seed(0)
    net, X = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Rounding(share)).to(dtype), tokens(64, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GateCaptureWarning)
        names = GateExtractor(net).fit(X[:, 0]).layer_names_
    assert names == (["1", "2.relu"] if passes else ["1"])


def test_one_bit_of_a_narrow_layer_may_flip():
    class Narrow(nn.Module):
        def forward(self, x):
            z = x.clone()
            z[x[:, 0] == 7, 0] = 1e-6 * (len(x) - 30)
            return F.relu(z)

    X = tokens(40, 1)[:, 0]
    X[5, 0] = 7
    assert GateExtractor(Narrow()).fit(X).layer_names_ == ["eq", "relu"]


# Without anything to compare -----------------------------------------------------------------


@pytest.mark.parametrize("X", [tokens(1, 1)[:, 0], np.ones((9, 6))], ids=["one", "equal"])
def test_rows_that_show_nothing_are_recorded_and_do_not_warn(X):
    extractor = GateExtractor(mlp().double()).fit(X)
    assert extractor.layer_names_ == ["1", "3"]
    reasons = [r.reason for r in extractor.coverage_ if r.captured]
    assert all("rows not compared between batches" in reason for reason in reasons)


@pytest.mark.parametrize("sampling", ["off", "on"])
def test_drawn_gates_are_exempt(sampling):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 8), nn.ReLU())
    X = tokens(40, 1)[:, 0]
    extractor = GateExtractor(net, sampling=sampling, random_state=0).fit(X)
    assert {"1", "4"} <= set(extractor.layer_names_)
    assert ("2" in extractor.layer_names_) == (sampling == "on")


def test_random_integers_are_no_dependence():
    class Jitter(nn.Module):
        def forward(self, x):
            return F.relu(x.T + torch.randint(-1, 2, x.T.shape)).T

    with pytest.warns(GateCaptureWarning, match="random integers"):
        assert GateExtractor(Jitter()).fit(tokens(40, 1)[:, 0]).layer_names_ == ["relu"]


def test_random_mixing_of_samples_is_refused():
    class Mixed(nn.Module):
        def forward(self, x):
            return F.relu(x + x[torch.randperm(len(x))])

    with pytest.raises(ValueError, match=DEPENDENT):
        GateExtractor(Mixed()).fit(tokens(40, 1)[:, 0])


def test_the_check_takes_few_rows():
    sizes = []

    class Counted(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return F.relu(x)

    GateExtractor(Counted()).fit(tokens(200, 1)[:, 0])
    assert sizes == [2, 3, 64, 32, 16, 8, 4, 2, 2]
