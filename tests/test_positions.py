"""Rows that are positions of samples, and masks of the positions that are data."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from skgate import (
    ComplexityLoss,
    GateCaptureWarning,
    GateExtractor,
    GatingEntropy,
    GibbsLayerMI,
)

N, T = 20, 7
LENGTHS = np.random.default_rng(0).integers(2, T + 1, N)
LENGTHS[3] = T
MASK = np.arange(T) < LENGTHS[:, None]  # (N, T)
IDS = np.random.default_rng(1).integers(0, 9, (N, T))
TOKENS = np.random.default_rng(2).normal(size=(N, T, 5))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Reader(nn.Module):
    """Tokens through a ReLU each, and one at the end of their mean over the data."""

    def __init__(self, respects_mask=True):
        super().__init__()
        self.table, self.up, self.down = nn.Embedding(9, 5), nn.Linear(5, 6), nn.Linear(6, 4)
        self.respects_mask = respects_mask

    def forward(self, input_ids, attention_mask=None):
        hidden = F.relu(self.up(self.table(input_ids)))
        weights = torch.ones(hidden.shape[:2])
        if attention_mask is not None and self.respects_mask:
            weights = attention_mask.to(hidden.dtype)
        mean = (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        return F.relu(self.down(mean))


def by_hand(net, inputs):
    """Return the gates of each linear layer of a module, from its outputs."""
    outputs = []
    hooks = [
        m.register_forward_hook(lambda *args: outputs.append(args[-1] > 0))
        for m in net.modules()
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)
    ]
    with torch.no_grad():
        net(**inputs) if isinstance(inputs, dict) else net(inputs)
    for hook in hooks:
        hook.remove()
    return [gates.numpy() for gates in outputs]


def positions(net, X, **options):
    """Return states by position, without a warning that names layers without positions."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not among the gating states", GateCaptureWarning)
        return GateExtractor(net, samples="position", **options).fit_transform(X)


def batches(*parts):
    """Return a loader of these batches."""

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(parts)

    return DataLoader(Stream(), batch_size=None)


# Rows that are positions --------------------------------------------------------------------


def test_positions_of_a_convolution_are_the_reshape_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    images = torch.randn(N, 3, 6, 8)
    states = positions(net, images, batch_size=6)
    (gates,) = by_hand(net, images)  # (N, 4, 4, 6)
    np.testing.assert_array_equal(np.asarray(states), gates.transpose(0, 2, 3, 1).reshape(-1, 4))
    np.testing.assert_array_equal(states.groups, np.repeat(np.arange(N), 24))
    assert states.n_samples == N
    assert (states.layers[0].shape, states.layers[0].spatial) == ((4,), False)


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(5, 6)

    def forward(self, x):
        return F.relu(self.up(x.transpose(0, 1)))


class Merged(SequenceFirst):
    def forward(self, x):
        return F.relu(self.up(x.flatten(0, 1)))


class PositionMajor(SequenceFirst):
    def forward(self, x):
        return F.relu(self.up(x.transpose(0, 1).flatten(0, 1)))


@pytest.mark.parametrize("kind", [SequenceFirst, Merged, PositionMajor])
def test_tokens_are_found_wherever_the_module_puts_them(kind):
    net = kind().double()
    states = positions(net, TOKENS, batch_size=6)
    gates = (net.up(torch.from_numpy(TOKENS)) > 0).numpy()  # (N, T, 6)
    np.testing.assert_array_equal(np.asarray(states), gates.reshape(-1, 6))
    np.testing.assert_array_equal(states.groups, np.repeat(np.arange(N), T))


def test_tokens_that_come_from_a_convolution():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.Flatten(2))
    net.append(type("Swap", (nn.Module,), {"forward": lambda _, x: F.relu(x.transpose(1, 2))})())
    images = torch.randn(N, 3, 4, 8)
    states = positions(net, images)
    gates = by_hand(net, images)[0].reshape(N, 4, 8).transpose(0, 2, 1)
    np.testing.assert_array_equal(np.asarray(states), gates.reshape(-1, 4))


def test_a_window_of_pooling_is_a_position():
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool1d(2))
    X = torch.randn(N, 3, 10)
    states = positions(net, X)
    windows = net[0](X).detach().reshape(N, 4, 4, 2)
    winners = (windows == windows.amax(-1, keepdim=True)).numpy()  # (N, channels, windows, 2)
    np.testing.assert_array_equal(np.asarray(states), winners.transpose(0, 2, 1, 3).reshape(-1, 8))
    assert states.layers[0].unit_size == 2


def test_layers_without_positions_are_left_out_by_name():
    with pytest.warns(GateCaptureWarning, match="relu:1: relu .*it has one row a sample") as caught:
        states = GateExtractor(Reader(), samples="position").fit_transform({"input_ids": IDS})
    assert len(caught) == 1
    assert states.layer_names == ("relu",)


def test_layers_with_other_positions_raise():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1), nn.ReLU()
    )
    images = torch.randn(N, 3, 6, 6)
    with pytest.raises(ValueError, match=r"(?s)same positions.*4x4 .*\['1'\].*2x2 .*\['2', '4'\]"):
        positions(net, images)
    assert positions(net, images, layers=["2", "4"]).layer_names == ("2", "4")


def test_batch_size_does_not_matter():
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    whole = positions(Reader(), inputs)
    torch.manual_seed(0)
    assert positions(Reader(), inputs, batch_size=3) == whole
    assert len(whole) == MASK.sum()


def test_a_measure_takes_positions():
    net = Reader()
    extractor = GateExtractor(net, samples="position", layers="relu")
    measure = GatingEntropy(extractor, density="product", random_state=0)
    measure.fit({"input_ids": IDS, "attention_mask": MASK})
    assert measure.states_.groups.shape == (MASK.sum(),)
    assert measure.transform({"input_ids": IDS, "attention_mask": MASK}).shape == (MASK.sum(), 1)


def test_transform_to_refuses_positions(tmp_path):
    extractor = GateExtractor(Reader(), samples="position", layers="relu").fit({"input_ids": IDS})
    with pytest.raises(ValueError, match="number of rows beforehand"):
        extractor.transform_to({"input_ids": IDS}, tmp_path / "states")
    assert not (tmp_path / "states").exists()


# Labels and drawn samples -------------------------------------------------------------------


def test_labels_of_samples_are_given_to_their_positions():
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    extractor = GateExtractor(Reader(), samples="position", layers="relu", batch_size=6)
    y = np.arange(N)[::-1].copy()
    states, labels = extractor.extract(inputs, y)
    np.testing.assert_array_equal(labels, y[states.groups])
    of_tokens = np.arange(N * T).reshape(N, T)
    states, labels = extractor.extract(inputs, of_tokens)
    np.testing.assert_array_equal(labels, of_tokens[MASK])
    with pytest.raises(ValueError, match=r"Labels of shape \(6, 3\).* positions \(7,\)"):
        extractor.extract(inputs, np.zeros((N, 3), int))


@pytest.mark.parametrize("stream", [False, True])
def test_samples_are_drawn_whole(stream):
    X = {"input_ids": IDS}
    y = np.arange(N)
    extractor = GateExtractor(Reader(), samples="position", layers="relu")
    data = batches(({"input_ids": torch.tensor(IDS)}, torch.arange(N))) if stream else X
    labels = None if stream else y
    states, labels = extractor.extract(data, labels, max_samples=5, random_state=0)
    assert states.n_samples == 5
    assert len(states) == 5 * T
    drawn = labels[::T]
    whole = GateExtractor(extractor.module, samples="position", layers="relu").fit_transform(X)
    for sample, start in zip(drawn, range(0, 5 * T, T), strict=True):
        np.testing.assert_array_equal(
            np.asarray(states)[start : start + T], np.asarray(whole)[whole.groups == sample]
        )


# Masks --------------------------------------------------------------------------------------


def gates_of_reader(net, mask):
    return by_hand(net, {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(mask)})


@pytest.mark.parametrize("mask", [MASK, MASK[:, ::-1].copy()], ids=["right", "left"])
def test_masked_positions_are_no_rows(mask):
    net = Reader()
    states = positions(net, {"input_ids": IDS, "attention_mask": mask.astype(int)}, batch_size=6)
    np.testing.assert_array_equal(np.asarray(states), gates_of_reader(net, mask)[0][mask])
    np.testing.assert_array_equal(states.groups, np.nonzero(mask)[0])


def test_gates_under_a_mask_are_closed_with_a_warning():
    net = Reader()
    share = f"{1 - MASK.mean():.0%}"
    with pytest.warns(GateCaptureWarning, match=f"{share} of the positions .* length") as caught:
        states = GateExtractor(net).fit_transform({"input_ids": IDS, "attention_mask": MASK})
    assert len(caught) == 1
    tokens, mean = gates_of_reader(net, MASK)
    assert tokens[~MASK].any()
    np.testing.assert_array_equal(
        np.asarray(states.select(0)), (tokens & MASK[..., None]).reshape(N, -1)
    )
    np.testing.assert_array_equal(np.asarray(states.select(1)), mean)


def test_a_full_mask_gives_no_warning():
    full = {"input_ids": IDS, "attention_mask": np.ones_like(MASK)}
    net = Reader()
    assert GateExtractor(net).fit_transform(full) == GateExtractor(net).fit_transform(IDS)


@pytest.mark.parametrize("samples", ["sample", "position"])
def test_ids_under_the_mask_do_not_matter(samples):
    other = np.where(MASK, IDS, 8 - IDS)
    net, states = Reader(), []
    for ids in (IDS, other):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GateCaptureWarning)
            extractor = GateExtractor(net, samples=samples)
            states.append(extractor.fit_transform({"input_ids": ids, "attention_mask": MASK}))
    assert states[0] == states[1]


class Renamed(Reader):
    def forward(self, input_ids, src_key_padding_mask):
        return super().forward(input_ids, ~src_key_padding_mask.bool())


@pytest.mark.parametrize(
    "padding",
    [~MASK, (~MASK).astype(int), np.where(MASK, 0.0, -np.inf)],
    ids=["bool", "int", "inf"],
)
def test_a_padding_mask_is_true_where_positions_are_not_data(padding):
    net = Renamed()
    states = positions(net, {"input_ids": IDS, "src_key_padding_mask": padding})
    np.testing.assert_array_equal(states.groups, np.nonzero(MASK)[0])
    by_place = positions(net, (IDS, padding))
    assert by_place == states


def test_a_mask_by_name_or_as_an_array():
    net = Reader()
    expected = positions(net, {"input_ids": IDS, "attention_mask": MASK}, layers="relu")
    options = {"layers": "relu", "batch_size": 6}
    assert positions(net, {"input_ids": IDS}, mask=MASK, **options) == expected
    assert positions(net, {"input_ids": IDS}, mask=MASK.tolist(), **options) == expected
    named = {"input_ids": IDS, "attention_mask": MASK}
    assert positions(net, named, mask="attention_mask", **options) == expected
    assert len(positions(net, named, mask=None, **options)) == N * T


def test_an_array_follows_the_samples_that_are_drawn():
    extractor = GateExtractor(Reader(), samples="position", mask=MASK, layers="relu", batch_size=2)
    states, y = extractor.extract({"input_ids": IDS}, np.arange(N), max_samples=6, random_state=0)
    assert states.n_samples == 6
    sample, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(counts, LENGTHS[sample])


def test_a_sample_without_data_has_no_rows():
    mask = MASK.copy()
    mask[5] = False
    states = positions(Reader(), {"input_ids": IDS}, mask=mask, layers="relu")
    assert 5 not in states.groups
    assert states.n_samples == N - 1


@pytest.mark.parametrize(
    ("mask", "inputs", "message"),
    [
        ("length", {"input_ids": IDS}, r"mask='length' is no input.*\['input_ids'\]"),
        (
            "auto",
            {"input_ids": IDS, "attention_mask": np.ones((N, 1, T, T))},
            r"shape .*n_positions",
        ),
        ("auto", {"input_ids": IDS, "attention_mask": 2 * MASK}, "other values than 0 and 1"),
        (MASK[:5], {"input_ids": IDS}, "mask has 5 rows and X 20 samples"),
        (MASK[:, 0], {"input_ids": IDS}, r"mask has shape \(20,\)"),
        (MASK, batches({"input_ids": torch.tensor(IDS)}), "cannot be matched with those of a"),
        ("auto", {"a_padding_mask": MASK, "b_padding_mask": MASK}, "several masks"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(mask, inputs, message):
    class Any(nn.Module):
        def __init__(self):
            super().__init__()
            self.reader = Reader(respects_mask=False)

        def forward(self, input_ids=None, **masks):
            return self.reader(torch.tensor(IDS) if input_ids is None else input_ids)

    with pytest.raises(ValueError, match=message):
        GateExtractor(Any(), mask=mask).fit_transform(inputs)


def test_layers_that_depend_on_padding_are_refused():
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    with pytest.warns(GateCaptureWarning) as caught:
        extractor = GateExtractor(Reader(respects_mask=False)).fit(inputs)
    assert extractor.layer_names_ == ["relu"]
    assert "relu:1: relu (threshold), not captured: its gates depend on padding" in str(
        caught[0].message
    )


class CountsPadding(Reader):
    """Positions are counted from the first token that is not padding, as in RoBERTa."""

    def forward(self, input_ids, attention_mask):
        data = (input_ids != 0).long()
        place = data.cumsum(1) * data
        return F.relu(self.up(self.table(input_ids) + torch.sin(place)[..., None]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padding_token_may_tell_where_padding_is(side):
    mask = MASK if side == "right" else MASK[:, ::-1].copy()
    ids = np.where(mask, IDS % 8 + 1, 0)
    net = CountsPadding()
    states = positions(net, {"input_ids": ids, "attention_mask": mask})
    (gates,) = by_hand(net, {"input_ids": torch.tensor(ids), "attention_mask": None})
    np.testing.assert_array_equal(np.asarray(states), gates[mask])
    if side == "left":
        several = np.where(mask, ids, IDS % 3)  # some of them counted, some not
        with pytest.raises(ValueError, match="its gates depend on padding"):
            positions(net, {"input_ids": several, "attention_mask": mask})


class Averages(CountsPadding):
    """Padding is one of the tokens of the mean, whatever the mask says."""

    def forward(self, input_ids, attention_mask):
        return F.relu(self.up(self.table(input_ids).mean(1)) - self.up.bias)


def test_a_padding_token_that_counts_as_data_is_refused():
    ids = np.where(MASK, IDS % 8 + 1, 0)
    with pytest.raises(ValueError, match="its gates depend on padding"):
        GateExtractor(Averages()).fit({"input_ids": ids, "attention_mask": MASK})


class Halved(nn.Module):
    """A layer with half as many positions as its input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(5, 4, 2, stride=2)

    def forward(self, x, attention_mask):
        return F.relu(self.conv(x.transpose(1, 2)))


def test_layers_with_other_positions_than_the_mask_are_refused():
    full, padded = np.ones_like(MASK), MASK
    with pytest.raises(ValueError, match="padding cannot be told from data: its positions are 3"):
        GateExtractor(Halved()).fit({"x": TOKENS, "attention_mask": padded})
    extractor = GateExtractor(Halved()).fit({"x": TOKENS, "attention_mask": full})
    with pytest.raises(ValueError, match="has 3 positions in this batch, and the mask has 7"):
        extractor.transform({"x": TOKENS, "attention_mask": padded})
    unmasked = GateExtractor(Halved(), mask=None).fit_transform(
        {"x": TOKENS, "attention_mask": MASK}
    )
    assert unmasked.n_gates == (12,)


class Translator(nn.Module):
    """An encoder and a decoder, whose inputs have masks of their own."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(5, 6), nn.ReLU())

    def forward(self, x, decoder_x, attention_mask, decoder_attention_mask=None):
        return self.encoder(x), self.decoder(decoder_x)


def test_encoder_and_decoder_have_masks_of_their_own():
    net, other = Translator(), MASK[::-1].copy()
    inputs = {"x": TOKENS, "decoder_x": TOKENS, "attention_mask": MASK}
    for decoder_mask in (other, None):
        if decoder_mask is not None:
            inputs["decoder_attention_mask"] = decoder_mask
        else:
            del inputs["decoder_attention_mask"]
        encoded = positions(net, inputs, layers="encoder*")
        np.testing.assert_array_equal(encoded.groups, np.nonzero(MASK)[0])
        decoded = positions(net, inputs, layers="decoder*")
        kept = np.ones_like(MASK) if decoder_mask is None else decoder_mask
        np.testing.assert_array_equal(decoded.groups, np.nonzero(kept)[0])
    with pytest.raises(ValueError, match=r"(?s)7 \(encoder\).*7 \(decoder\)"):
        positions(net, inputs)


# Batches of other lengths -------------------------------------------------------------------


def of_length(t, n=8, seed=0):
    rng = np.random.default_rng(seed + t)
    return {"input_ids": torch.tensor(rng.integers(0, 9, (n, t)))}


@pytest.mark.parametrize("net", [Reader(), None], ids=["tokens", "merged"])
def test_batches_of_other_lengths(net):
    key = "x" if net is None else "input_ids"
    parts = [of_length(t)["input_ids"] for t in (16, 8, 24)]
    if net is None:
        net = Merged()
        parts = [F.one_hot(part % 5, 5).float() for part in parts]
    states = positions(net, batches(*({key: part} for part in parts)), layers="relu")
    by_batch = [by_hand(net, {key: part})[0].reshape(-1, 6) for part in parts]
    np.testing.assert_array_equal(np.asarray(states), np.concatenate(by_batch))
    np.testing.assert_array_equal(
        states.groups, np.repeat(np.arange(24), np.repeat([16, 8, 24], 8))
    )
    with pytest.raises(ValueError, match="8 positions in this batch and had 16 in the first"):
        GateExtractor(net, layers="relu").fit_transform(batches(*({key: p} for p in parts)))


class Unpadded(nn.Module):
    """Lays the tokens that are not 0 end to end, by NumPy, which nothing follows."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 6)

    def forward(self, input_ids):
        ids = input_ids.numpy()
        return F.relu(self.table(torch.from_numpy(ids[ids > 0])))


def test_rows_that_are_as_many_by_chance_are_refused():
    whole = torch.ones((8, 6), dtype=torch.long)
    halved = whole.clone()
    halved[::2, 3:] = 0
    halved[1::2, 5:] = 0  # 32 tokens, four a sample on average
    with pytest.raises(ValueError, match="32 rows, 6 a sample"):
        positions(Unpadded(), batches({"input_ids": whole}, {"input_ids": halved}))


# The penalty --------------------------------------------------------------------------------


def penalty_of(ids, *, call=False, **options):
    torch.manual_seed(0)
    net = Reader()
    loss = ComplexityLoss(net, "relu", gate_sharpness=100, random_state=0, **options)
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(MASK)}
    if call:
        loss.find_layers(inputs)
        with loss.relaxed() as found:
            net(inputs["input_ids"], attention_mask=inputs["attention_mask"])
        (gates,) = found
    else:
        _, gates = loss.run(inputs)
    loss.energy_step(gates)
    penalty = loss(gates)
    penalty.backward()
    return penalty.item(), net.up.weight.grad, gates[0][0]


@pytest.mark.filterwarnings("ignore:.* of the positions are under a mask")
@pytest.mark.parametrize("call", [False, True])
def test_the_penalty_closes_gates_under_the_mask(call):
    other = np.where(MASK, IDS, 8 - IDS)
    penalty, gradient, gates = penalty_of(IDS, call=call)
    assert (gates.reshape(N, T, 6).detach().numpy().any(-1) <= MASK).all()
    again, same_gradient, _ = penalty_of(other, call=call, mask="attention_mask")
    assert penalty == again
    torch.testing.assert_close(gradient, same_gradient)
    unmasked, other_gradient, _ = penalty_of(IDS, call=call, mask=None)
    assert unmasked != penalty
    assert not torch.allclose(gradient, other_gradient)


def test_the_penalty_warns_once_that_lengths_count():
    loss = ComplexityLoss(Reader(), "relu", random_state=0)
    inputs = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
    with pytest.warns(GateCaptureWarning, match="of the positions are under a mask"):
        loss.run(inputs)
    loss.run(inputs)


@pytest.mark.parametrize("call", [False, True])
def test_the_penalty_of_positions_leaves_padding_out(call):
    penalty, gradient, gates = penalty_of(IDS, call=call, samples="position", penalty="product")
    assert gates.shape == (MASK.sum(), 6)
    rates = gates.detach().mean(0).clamp(1e-6, 1 - 1e-6)
    by_hand = -(gates * rates.log() + (1 - gates) * (1 - rates).log()).sum(1).mean()
    assert abs(penalty - by_hand.item()) < 0.05 * penalty
    other = np.where(MASK, IDS, 8 - IDS)
    again, same_gradient, _ = penalty_of(other, call=call, samples="position", penalty="product")
    assert penalty == again
    torch.testing.assert_close(gradient, same_gradient)


@pytest.mark.parametrize("penalty", ["ebm", "product"])
@pytest.mark.parametrize("net", [Reader(), Merged()], ids=["tokens", "merged"])
def test_the_penalty_of_positions_takes_batches_of_other_lengths(net, penalty):
    loss = ComplexityLoss(net, "relu", samples="position", penalty=penalty, random_state=0)
    for t in (16, 8, 24):
        batch = of_length(t)["input_ids"]
        batch = F.one_hot(batch % 5, 5).float() if isinstance(net, Merged) else batch
        _, gates = loss.run(batch)
        assert gates[0].shape == (1, 8 * t, 6)
        loss.energy_step(gates)
        assert np.isfinite(loss(gates).item())
    bits, _ = loss.complexity(batch)
    assert -1 < bits[0] < 7


def test_the_penalty_of_positions_needs_positions():
    loss = ComplexityLoss(Reader(), ["relu", "relu:1"], samples="position")
    with pytest.raises(ValueError, match=r"relu:1.*one row a sample"):
        loss.find_layers(torch.tensor(IDS))


def test_measures_of_layers_warn_of_padding():
    net, y = Reader(), np.arange(N) % 2
    share = f"{(1 - MASK[:10].mean()):.0%}"
    inputs = {"input_ids": IDS[:10], "attention_mask": MASK[:10]}
    with pytest.warns(UserWarning, match=f"Up to {share} of the positions .* count them as data"):
        GibbsLayerMI(net).fit(inputs, y[:10])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GibbsLayerMI(net).fit({"input_ids": IDS, "attention_mask": np.ones_like(MASK)}, y)
