"""Inputs in any container and type: equal to what the plain array gives, or refused before work."""

import copy
import threading
import warnings
from collections import OrderedDict, UserDict
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_array_equal
from torch import nn
from torch.utils import checkpoint as torch_checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset

from skgate import (
    ComplexityLoss,
    ComplexityMonitor,
    ComplexityRegularizedClassifier,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    GibbsLayerMI,
    TotalCorrelation,
    layer_activations,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::skgate.SaturationWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True"),
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated"),
    pytest.mark.filterwarnings("ignore:The following device_map keys"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float16).astype(np.float64)  # exact in every type
WHOLE = np.round(3 * X)
Y = np.arange(24) % 3
IDS = RNG.integers(0, 20, (24, 4))


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU()).to(dtype)


def embedding():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 3), nn.Flatten(), nn.Linear(12, 8), nn.ReLU())


def by_hand(net, x):
    """Return the gates of a sequential network, from the outputs of its ReLUs."""
    gates = []
    with torch.no_grad():
        for layer in net:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                gates.append(x > 0)
    return torch.cat(gates, 1).numpy()


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class Fetched:
    """What Hugging Face's Dataset has of a dataset: no base of torch's."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def __getitems__(self, indices):
        return [self.rows[index] for index in indices]


class Whole(IterableDataset):
    """Batches as they are."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches


def batches(*given):
    return DataLoader(Whole(*given), batch_size=None)


# Arrays and tensors --------------------------------------------------------------------------


def negated():
    imaginary = torch.view_as_complex(torch.tensor(np.stack([X, -X], -1))).conj().imag
    assert imaginary.is_neg()
    return imaginary


def nested(layout):
    return torch.nested.nested_tensor([torch.ones(3, 4), torch.ones(2, 4)], layout=layout)


with torch.inference_mode():
    INFERENCE = torch.tensor(X)
with warnings.catch_warnings(action="ignore", category=UserWarning):  # all three are new or old
    QUANTIZED = torch.quantize_per_tensor(torch.tensor(WHOLE).float(), 1.0, 0, torch.qint8)
    SPARSE_ROWS = torch.tensor(X).to_sparse_csr()
    NESTED = nested(torch.strided)

SAME_AS_X = {
    "big-endian": X.astype(">f8"),
    "big-endian half": X.astype(">f2"),
    "longdouble": X.astype(np.longdouble),
    "half": X.astype(np.float16),
    "objects": X.astype(object),
    "Float64": pd.DataFrame(X).astype("Float64"),
    "polars": pl.DataFrame(X),
    "nothing masked": np.ma.masked_array(X),
    "list": X.tolist(),
    "list of tensors": list(torch.tensor(X)),
    "list of bfloat16": list(torch.tensor(X).half()),
    "flipped twice": X[::-1].copy()[::-1],
    "requires grad": torch.tensor(X, requires_grad=True),
    "parameter": nn.Parameter(torch.tensor(X)),
    "inference": INFERENCE,
    "negative bit": negated(),
    "not contiguous": torch.tensor(X.T.copy()).T,
    "half tensor": torch.tensor(X).half(),
}
SAME_AS_WHOLE = {
    "big-endian integers": WHOLE.astype(">i4"),
    "Int64": pd.DataFrame(WHOLE).astype("Int64"),
    "int8": WHOLE.astype(np.int8),
    "bfloat16": torch.tensor(WHOLE).bfloat16(),
    "float8": torch.tensor(WHOLE).to(torch.float8_e4m3fn),
    "quantized": QUANTIZED,
}
SAME = [
    *(pytest.param(x, X, id=name) for name, x in SAME_AS_X.items()),
    *(pytest.param(x, WHOLE, id=name) for name, x in SAME_AS_WHOLE.items()),
]


@pytest.mark.parametrize(("x", "plain"), SAME)
def test_any_container_gives_what_the_plain_array_gives(x, plain):
    net = network()
    expected = by_hand(net, torch.tensor(plain))
    assert_array_equal(GateExtractor(net).fit_transform(x), expected)
    assert_array_equal(GatingStates.from_arrays(x), plain > 0)
    assert_array_equal(GatingEntropy().fit(x).states_, plain > 0)
    found = GibbsLayerMI().fit(x, Y).layer_mi_y_
    np.testing.assert_allclose(found, GibbsLayerMI().fit(plain, Y).layer_mi_y_, rtol=1e-4)


@pytest.mark.parametrize("x", SAME_AS_X.values(), ids=SAME_AS_X)
def test_any_container_may_be_one_of_several_inputs(x):
    class Sum(nn.Module):
        def forward(self, a, b):
            return torch.relu(a.double() + b)

    expected = 2 * X > 0
    x = torch.tensor(x) if isinstance(x, list) and isinstance(x[0], float) else x
    if isinstance(x, list) and isinstance(x[0], torch.Tensor):
        x = torch.stack(x)  # a list of tensors is several inputs
    net = nn.Sequential(Sum())[0]
    net.register_parameter("p", nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    assert_array_equal(GateExtractor(net).fit_transform({"a": x, "b": X}), expected)
    if not isinstance(x, list):
        assert_array_equal(GateExtractor(net).fit_transform((x, X)), expected)


def fake():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.empty(24, 4)


MISSING = pd.DataFrame(WHOLE).astype("Int64").mask(WHOLE > 2)
STRUCTURED = np.zeros(24, [("a", float), ("b", float)])
REFUSED = {
    "NA": (MISSING, "NaN|misses values"),
    "boolean NA": (pd.DataFrame(X > 0).astype("boolean").mask(X > 1), "NaN|misses values"),
    "polars null": (pl.DataFrame({"a": [1.0, None] * 12, "b": [1.0] * 24}), "NaN"),
    "structured": (STRUCTURED, "real numbers or booleans; got dtype"),
    "masked": (np.ma.masked_array(X, mask=X > 1), r"\d+ masked entries.*filled"),
    "complex": (X + 1j, "Complex data not supported.*two features"),
    "complex tensor": (torch.tensor(X + 1j), "Complex data not supported.*two features"),
    "strings": (X.astype(str), "real numbers or booleans; got dtype"),
    "bytes": (X.astype("S"), "real numbers or booleans; got dtype"),
    "dates": (np.full((24, 4), np.datetime64("2020")), "real numbers or booleans; got dtype"),
    "times": (np.full((24, 4), np.timedelta64(3)), "real numbers or booleans; got dtype"),
    "columns of dates": (pd.DataFrame({"a": pd.to_datetime(["2020"] * 24)}), "got dtype datetime"),
    "ragged": ([[1.0, 2.0], [3.0]], r"different shapes: \(2,\), \(1,\)\. Pad"),
    "meta": (torch.empty(24, 4, device="meta"), "meta device, which holds no data"),
    "nested": (NESTED, r"shapes \(3, 4\), \(2, 4\); .*to_padded_tensor"),
    "jagged": (nested(torch.jagged), r"shapes \(3, 4\), \(2, 4\); .*to_padded_tensor"),
    "sparse": (torch.tensor(X).to_sparse(), r"layout sparse_coo; .*to_dense"),
    "sparse rows": (SPARSE_ROWS, r"layout sparse_csr; .*to_dense"),
    "fake": (fake(), "no data of its own.*plain tensor"),
}


@pytest.mark.parametrize(("x", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_before_any_work(x, message):
    ran, net = [], network()
    net.register_forward_hook(lambda *_: ran.append(1))
    uses = [
        GateExtractor(net).fit,
        GatingStates.from_arrays,
        GatingEntropy().fit,
        lambda x: GibbsLayerMI(net).fit(x, Y[: len(x.unbind() if _is_nested(x) else x)]),
        lambda x: GibbsLayerMI().fit(x, Y),
        lambda x: ComplexityRegularizedClassifier(net).fit(x, Y),
        lambda x: GateExtractor(net).fit({"input": x}),
        lambda x: GatingStates.from_arrays({"a": X, "b": x}),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            use(x)
    assert not ran


def _is_nested(x):
    return isinstance(x, torch.Tensor) and x.is_nested


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_tensors_inside_functional_transforms_are_refused(transform):
    extractor = GateExtractor(network())

    def inside(x):
        for use in (extractor.fit, GatingStates.from_arrays):
            with pytest.raises(ValueError, match="no data of its own"):
                use(x)
        return x.sum()

    transform(inside)(torch.ones(24, 24, 4) if transform is torch.func.vmap else torch.ones(24, 4))


def test_numbers_and_sparse_matrices_are_no_input_among_several():
    for number in (np.array(3.0), torch.tensor(3.0), np.float64(3)):
        with pytest.raises(ValueError, match=r"Got a number, 3\.0.*axis of samples"):
            GateExtractor(network()).fit({"input": X, "other": number})
    with pytest.raises(ValueError, match=r"Got a number.*Stack rows"):
        GateExtractor(network()).fit(tuple(map(tuple, X)))
    with pytest.raises(ValueError, match=r"sparse matrix.*toarray"):
        GateExtractor(network()).fit({"input": scipy.sparse.csr_array(X)})


@pytest.mark.parametrize(
    "ids",
    [
        IDS.astype(np.uint8),
        IDS.astype(np.int16),
        IDS.astype(np.uint16),
        IDS.astype(">i8"),
        IDS.astype(object),
        IDS.tolist(),
        pd.DataFrame(IDS).astype("Int64"),
        torch.tensor(IDS).to(torch.uint8),
    ],
)
def test_integers_that_are_looked_up_stay_integers(ids):
    expected = by_hand(embedding(), torch.tensor(IDS))
    assert_array_equal(GateExtractor(embedding()).fit_transform(ids), expected)


@pytest.mark.parametrize("dtype", ["Int64", object])
def test_a_classifier_looks_integers_up(dtype):
    net = nn.Sequential(*embedding(), nn.Linear(8, 3))
    fit = ComplexityRegularizedClassifier(net, max_epochs=1, random_state=0).fit
    frame = pd.DataFrame(IDS).astype(dtype)
    given = frame.to_numpy() if dtype is object else frame
    expected = copy.deepcopy(fit(IDS, Y)).predict_proba(IDS)
    assert_array_equal(fit(given, Y).predict_proba(given), expected)


# Low precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_models_in_low_precision(dtype):
    net = network(dtype)
    expected = by_hand(net, torch.tensor(X).to(dtype))
    given = [X, X.astype(np.float32), torch.tensor(X), torch.tensor(X).to(dtype)]
    for x in given:
        assert_array_equal(GateExtractor(net).fit_transform(x), expected)
    whole = by_hand(net, torch.tensor(WHOLE).to(dtype))
    assert_array_equal(GateExtractor(net).fit_transform(WHOLE.astype(int)), whole)
    with torch.no_grad():
        hidden = net[:2](torch.tensor(X).to(dtype))
    assert_array_equal(layer_activations(net, X)["0"], hidden.float().numpy())
    penalty = ComplexityLoss(net, random_state=0)
    penalty.energy_step(X)
    assert torch.isfinite(penalty(X))


def test_inputs_have_the_type_of_the_first_layer():
    class Mixed(nn.Module):
        def __init__(self, first):
            super().__init__()
            self.first = nn.LayerNorm(4).to(first)
            self.second = nn.Linear(4, 8).bfloat16()

        def forward(self, x):
            assert x.dtype == self.first.weight.dtype
            return torch.relu(self.second(self.first(x).bfloat16()))

    for first in (torch.float32, torch.bfloat16):
        net = Mixed(first)
        with torch.no_grad():
            expected = net(torch.tensor(X).to(first)) > 0
        assert_array_equal(GateExtractor(net).fit_transform(X), expected.numpy())


@pytest.mark.parametrize(
    ("x", "dtype"), [(1e6 * X, torch.half), (1e6 * WHOLE.astype(int), torch.half), (1e60 * X, None)]
)
def test_numbers_that_exceed_the_type_of_the_parameters(x, dtype):
    with pytest.raises(ValueError, match=r"which exceed the largest.*Scale X"):
        GateExtractor(network(dtype or torch.float32)).fit(x)


def test_a_mask_of_the_lowest_number_of_another_type_stays():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4).half()

        def forward(self, x, mask):
            return torch.relu(self.linear(x) + mask)

    mask = np.where(X > 0, 0, np.finfo(np.float32).min)
    net = Masked()
    with torch.no_grad():
        expected = (net.linear(torch.tensor(X).half()) > 0).numpy() & (X > 0)
    assert_array_equal(GateExtractor(net).fit_transform({"x": X, "mask": mask}), expected)
    with pytest.raises(ValueError, match="which exceed"):
        GateExtractor(net).fit({"x": X, "mask": -mask})


# Samples in mappings -------------------------------------------------------------------------


class Keyword(nn.Module):
    """Takes inputs by name, and keeps what it was given."""

    def __init__(self, config=None, required=False):
        super().__init__()
        self.net, self.config, self.required, self.seen = embedding(), config, required, []

    def forward(self, input_ids, attention_mask=None, labels=None):
        self.seen.append(labels)
        return self.net(input_ids)


class WithLoss(Keyword):
    def forward(self, input_ids, labels=None, **options):
        logits = super().forward(input_ids)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Config:
    def __init__(self, is_encoder_decoder):
        self.is_encoder_decoder = is_encoder_decoder


def rows_of(labels, *, kind=list, key="labels"):
    make = {list: lambda a: a.tolist(), torch.Tensor: torch.tensor, np.ndarray: np.asarray}[kind]
    return [
        {"input_ids": make(ids), "attention_mask": make(np.ones_like(ids)), key: label}
        for ids, label in zip(IDS, labels, strict=True)
    ]


ENCODED = {"input_ids": torch.tensor(IDS), "attention_mask": torch.ones(24, 4)}
NAMES = np.array(["a", "b", "c"])[Y]
WITH_LABELS = {
    "list": rows_of(Y.tolist()),
    "list of tensors": rows_of(torch.tensor(Y), kind=torch.Tensor),
    "list with names": rows_of(NAMES.tolist()),
    "label": rows_of(Y.tolist(), key="label"),
    "dict": {**ENCODED, "labels": Y},
    "dict with names": {**ENCODED, "labels": NAMES},
    "dict of lists": {"input_ids": IDS.tolist(), "labels": Y.tolist()},
    "UserDict": UserDict({**ENCODED, "labels": torch.tensor(Y)}),
    "dataset": Rows(rows_of(Y.tolist())),
    "dataset with names": Rows(rows_of(NAMES.tolist())),
    "Hugging Face's": Fetched(rows_of(Y.tolist())),
    "loader": DataLoader(Rows(rows_of(Y, kind=np.ndarray)), batch_size=7),
}


@pytest.mark.parametrize("given", WITH_LABELS.values(), ids=WITH_LABELS)
def test_labels_come_from_mappings(given):
    states = GatingStates.from_arrays(by_hand(embedding(), torch.tensor(IDS)))
    expected = GatingMI(random_state=0).fit(states, Y)
    for config in (None, Config(False)):
        net = Keyword(config)
        assert_array_equal(GateExtractor(net).fit_transform(given), states)
        fitted = GatingMI(net, random_state=0).fit(given)
        assert fitted.mi_xy_ == expected.mi_xy_
        if config:  # Hugging Face's take labels for a loss
            assert all(labels is None for labels in net.seen)
    found = GibbsLayerMI(Keyword()).fit(given).layer_mi_y_
    plain = GibbsLayerMI(embedding()).fit(IDS, Y).layer_mi_y_
    np.testing.assert_allclose(found, plain, rtol=1e-6)


@pytest.mark.parametrize("kind", [dict, UserDict, OrderedDict])
def test_labels_are_sampled_with_their_rows(kind):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    nn.init.eye_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    labels = (X[:, 0] > 0).astype(int)
    given = kind({"input": X, "labels": labels})
    options = {"density": "kde", "random_state": 1}
    fitted = GatingMI(net, max_samples=12, **options).fit(given)
    first = np.asarray(fitted.states_)[:, 0]
    assert len(first) == 12
    assert fitted.mi_xy_ == GatingMI(**options).fit(fitted.states_, first).mi_xy_ > 0.3


def test_labels_of_tokens_make_the_inputs_of_a_decoder():
    tokens = torch.tensor(IDS)
    for config, expected in ((None, True), (Config(False), False), (Config(True), True)):
        net = Keyword(config)
        GateExtractor(net).fit_transform({**ENCODED, "labels": tokens})
        assert all((labels is not None) == expected for labels in net.seen)
    net = Keyword(Config(True))
    GateExtractor(net).fit_transform({**ENCODED, "labels": Y})  # of sequences
    assert all(labels is None for labels in net.seen)


def test_a_training_loop_gets_the_loss_of_its_model():
    net = WithLoss(Config(False))
    inputs = {"input_ids": torch.tensor(IDS), "labels": torch.tensor(Y)}
    penalty = ComplexityLoss(net, gate_sharpness=1e6, random_state=0)
    output, _ = penalty.run(inputs)
    expected = nn.functional.cross_entropy(net.net(torch.tensor(IDS)), torch.tensor(Y))
    torch.testing.assert_close(output["loss"], expected)


def test_labels_of_tokens_reach_their_positions():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = nn.Embedding(20, 3), nn.Linear(3, 5)

        def forward(self, input_ids):
            return torch.relu(self.linear(self.table(input_ids)))

    tokens = RNG.integers(0, 3, (24, 4))
    extractor = GateExtractor(Tokens(), samples="position")
    rows = [
        {"input_ids": i.tolist(), "labels": t.tolist()} for i, t in zip(IDS, tokens, strict=True)
    ]
    for given in ({"input_ids": IDS, "labels": tokens}, rows, Rows(rows)):
        assert_array_equal(extractor.extract(given)[1], tokens.ravel())
        with pytest.raises(ValueError, match=r"shape \(24, 4\).*one class label per sample"):
            GatingMI(Tokens()).fit(given)


MIXED = [{"input_ids": [1] * n, "labels": 0} for n in (16, 8, 24)]
BAD_SAMPLES = {
    "lengths": (MIXED, r"'input_ids' has samples of different lengths.*16, 8, 24\. Pad"),
    "lengths in a dataset": (Rows(MIXED), "different lengths or shapes: 16, 8, 24.*collate_fn"),
    "lengths in a mapping": (
        UserDict({"input_ids": [[1] * n for n in (16, 8)]}),
        r"'input_ids' has rows of different shapes: \(16,\), \(8,\)",
    ),
    "keys": ([{"input_ids": [1]}, {"ids": [1]}], r"different keys: \['input_ids'\] and \['ids'\]"),
    "none": ([{"input_ids": None}] * 3, "'input_ids' of a sample is missing"),
    "types": ([{"input_ids": [1]}, {"input_ids": "a"}], "not always of one type"),
    "text": ([{"text": "a", "labels": 0}] * 3, r"without an array.*\['text'\].*tokenizer"),
    "text in a dataset": (Rows([{"text": "a"}] * 3), r"without an array.*\['text'\].*tokenizer"),
    "text in a loader": (batches(["a", "b"]), "without an array.*str"),
    "nothing": ({}, "without an array"),
    "positions": (DataLoader(Rows(rows_of(Y))), "list of 4 tensors of 1 numbers.*yield arrays"),
    "nested": (batches({"input_ids": nested(torch.jagged)}), "nested tensor.*to_padded_tensor"),
    "meta": (batches(torch.ones(3, 4, device="meta")), "meta device"),
    "sparse": (batches({"input_ids": torch.tensor(IDS).to_sparse()}), "to_dense"),
    "complex": (batches(torch.tensor(X + 1j)), "Complex data not supported"),
    "masked": (Rows(list(np.ma.masked_array(X, X > 1))), "masked entries"),
}


@pytest.mark.parametrize(("given", "message"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_samples_that_make_no_batch(given, message):
    net = Keyword()
    for use in (GateExtractor(net).fit, GatingMI(net).fit, GibbsLayerMI(net).fit):
        with pytest.raises(ValueError, match=f"(?s){message}|requires y"):
            use(given)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        GateExtractor(net).fit(given)
    assert not net.seen


def test_samples_of_a_dataset_may_be_lists_of_numbers():
    expected = by_hand(network(), torch.tensor(X))
    for rows in (
        [(x.tolist(), 0) for x in X],
        [[x, 0] for x in X],
        list(X.astype(">f8")),
        list(X.astype(np.longdouble)),
    ):
        assert_array_equal(GateExtractor(network()).fit_transform(Rows(rows)), expected)


def test_mappings_need_a_model():
    for given in (rows_of(Y), Fetched(rows_of(Y))):
        for measure in (GatingEntropy(), GibbsLayerMI()):
            with pytest.raises(ValueError, match=r"no model.*model=\.\.\."):
                measure.fit(given)
        with pytest.raises(ValueError, match="one array"):
            ComplexityRegularizedClassifier().fit(given, Y)
    with pytest.raises(ValueError, match=r"GatingStates\.from_arrays"):
        GatingEntropy().fit(UserDict({"a": X}))
    assert_array_equal(GatingStates.from_arrays(UserDict({"a": X})), X > 0)


@pytest.mark.filterwarnings("ignore:Not among the gating states")  # a pooler's tanh
def test_encodings_of_a_tokenizer():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=12, hidden_act="relu")
    net = transformers.BertForSequenceClassification(config).eval()
    gates = []
    hook = net.bert.encoder.layer[0].intermediate.register_forward_hook(
        lambda _module, _inputs, output: gates.append(output > 0)
    )
    with torch.no_grad():
        net(**ENCODED)
    hook.remove()
    expected = gates[0].flatten(1).numpy()
    labels = 5 + Y  # which its two logits have no place for
    options = {"density": "product", "random_state": 0}
    plain = GatingMI(**options).fit(expected, labels)
    for values in (ENCODED, {key: value.tolist() for key, value in ENCODED.items()}):
        encoding = transformers.BatchEncoding({**values, "labels": labels.tolist()})
        assert_array_equal(GateExtractor(net).fit_transform(encoding), expected)
        assert GatingMI(net, **options).fit(encoding).mi_xy_ == plain.mi_xy_
    assert net.config.problem_type is None


# Labels --------------------------------------------------------------------------------------

SAME_LABELS = {
    "Int64": pd.Series(Y).astype("Int64"),
    "category": pd.Series(Y).astype("category"),
    "objects": Y.astype(object),
    "names": pd.Series(NAMES),
    "big-endian": Y.astype(">i8"),
    "longdouble": Y.astype(np.longdouble),
    "bfloat16": torch.tensor(Y).bfloat16(),
    "polars": pl.Series(Y),
    "list of tensors": list(torch.tensor(Y)),
    "dates": np.array(["2020", "2021", "2022"], "M8[D]")[Y],
}


@pytest.mark.parametrize("y", SAME_LABELS.values(), ids=SAME_LABELS)
def test_labels_in_any_container(y):
    expected = GatingMI(random_state=0).fit(X, Y).mi_xy_
    assert GatingMI(random_state=0).fit(X, y).mi_xy_ == expected
    expected = GatingMI(network(), random_state=0).fit(X, Y).mi_xy_
    assert GatingMI(network(), random_state=0).fit(X, y).mi_xy_ == expected


GAP = np.arange(24) == 3
BAD_LABELS = {
    "NA": (pd.Series(Y).astype("Int64").mask(GAP), "NaN|misses labels"),
    "boolean NA": (pd.Series(Y > 0).astype("boolean").mask(GAP), "misses labels"),
    "None": ([None, 1] * 12, "misses labels"),
    "missing name": (["a", None] * 12, "misses labels"),
    "NaN object": (np.array([np.nan, 1.0] * 12, dtype=object), "NaN"),
    "NaT": (np.where(GAP, np.datetime64("NaT"), np.datetime64("2020")), "misses labels"),
    "masked": (np.ma.masked_array(Y, GAP), "masked entries"),
    "meta": (torch.empty(24, device="meta"), "meta device"),
    "regression": (Y + 0.5, "continuous.*qcut"),
    "regression in half": (torch.tensor(Y + 0.5).half(), "continuous.*qcut"),
    "regression in objects": ((Y + 0.5).astype(object), "continuous.*qcut"),
    "regression in Float64": (pd.Series(Y + 0.5).astype("Float64"), "continuous.*qcut"),
}


@pytest.mark.parametrize(("y", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_missing_or_continuous(y, message):
    ran, net = [], network()
    net.register_forward_hook(lambda *_: ran.append(1))
    for measure in (GatingMI(), GatingMI(net), TotalCorrelation(net), GibbsLayerMI(net)):
        with pytest.raises(ValueError, match=message):
            measure.fit(X, y)
    with pytest.raises(ValueError, match=r"(?i)nan|misses labels|masked|meta|label type"):
        ComplexityRegularizedClassifier(net).fit(X, y)
    assert not ran


CONTINUOUS = {
    "list": rows_of((Y + 0.5).tolist()),
    "dict": {**ENCODED, "labels": Y + 0.5},
    "dataset": Rows(rows_of((Y + 0.5).tolist())),
    "loader": DataLoader(Rows(rows_of(Y + 0.5, kind=np.ndarray)), batch_size=8),
    "pairs": DataLoader(Rows([(ids, y + 0.5) for ids, y in zip(IDS, Y, strict=True)])),
}


@pytest.mark.parametrize("given", CONTINUOUS.values(), ids=CONTINUOUS)
@pytest.mark.parametrize("measure", [GatingMI, GibbsLayerMI])
def test_regression_labels_are_refused_before_the_model_runs(given, measure):
    net = Keyword()
    with pytest.raises(ValueError, match=r"continuous.*qcut"):
        measure(net).fit(given)
    assert not net.seen
    GatingEntropy(net).fit(given)  # needs none
    layer_activations(net, given)


# Inference mode ------------------------------------------------------------------------------


def normed():
    torch.manual_seed(0)
    layers = [nn.ReLU(inplace=True), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(8, 2)).double()


@pytest.mark.parametrize("x", [X, torch.tensor(X), INFERENCE], ids=["array", "tensor", "inference"])
@pytest.mark.parametrize("sampling", ["off", "on"])
def test_gates_in_inference_mode(x, sampling):
    make = {"sampling": sampling, "random_state": 0}
    expected = GateExtractor(normed(), **make).fit_transform(X)
    net = normed()
    before = copy.deepcopy(net.state_dict())
    with torch.inference_mode():
        extractor = GateExtractor(net, **make).fit(x)
        assert extractor.transform(x) == expected
    assert extractor.transform(x) == expected
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(tensor.is_inference() for tensor in after.values())
    assert net.training


def test_measures_and_monitor_in_inference_mode():
    expected = GibbsLayerMI(normed()).fit(X, Y).layer_mi_y_
    monitors = [ComplexityMonitor({"H": GatingEntropy()}, X) for _ in range(2)]
    monitors[0].record(normed(), 0)
    with torch.inference_mode():
        assert_array_equal(GibbsLayerMI(normed()).fit(X, Y).layer_mi_y_, expected)
        monitors[1].record(normed(), 0)
    assert monitors[1].history_ == monitors[0].history_


def test_training_in_inference_mode():
    make = {"max_epochs": 2, "hidden_layer_sizes": (4,), "random_state": 0}
    expected = ComplexityRegularizedClassifier(**make).fit(X, Y).predict_proba(X)
    penalties = [ComplexityLoss(network(), random_state=0) for _ in range(2)]
    for penalty in penalties:
        penalty.energy_step(X)
    complexity = penalties[1].complexity(X)
    with torch.inference_mode():
        fitted = ComplexityRegularizedClassifier(**make).fit(INFERENCE, Y)
        assert_array_equal(fitted.predict_proba(X), expected)
        assert_array_equal(penalties[0].complexity(X), complexity)
        _, inside = penalties[0].run(X)
        for use in (penalties[0].energy_step, ComplexityLoss(network()).find_layers):
            with pytest.raises(RuntimeError, match=r"inference_mode\(\) records nothing"):
                use(X)
    with pytest.raises(RuntimeError, match=r"inference_mode\(\) records nothing"):
        penalties[0](inside)


# Devices -------------------------------------------------------------------------------------


class Placed(nn.Module):
    """A network with a buffer, and a parameter of its own that it multiplies by."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(6, 2)
        self.middle = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
        self.matrix = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        x = self.middle(torch.relu(self.norm(self.first(x))))
        return self.last(torch.relu(x @ self.matrix.T))


def split(accelerate, net, folder):
    places = {"first": "cpu", "norm": "cpu", "middle": "disk", "last": "disk", "matrix": "cpu"}
    options = {"main_device": "cpu", "offload_dir": folder, "force_hooks": True}
    return accelerate.dispatch_model(net, places, **options)


PLACEMENTS = {
    "cpu": lambda a, net, _: a.dispatch_model(net, {"": "cpu"}, force_hooks=True),
    "cpu offload": lambda a, net, _: a.cpu_offload(net, execution_device="cpu"),
    "with buffers": lambda a, net, _: a.cpu_offload(
        net, execution_device="cpu", offload_buffers=True
    ),
    "disk offload": lambda a, net, d: a.disk_offload(net, d, execution_device="cpu"),
    "split": split,
}


@pytest.mark.parametrize("place", PLACEMENTS.values(), ids=PLACEMENTS)
def test_models_that_a_device_map_places(place, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    expected = GateExtractor(Placed()).fit_transform(X)
    activations = layer_activations(Placed(), X)
    assert len(activations) == 4
    net = place(accelerate, Placed(), tmp_path)
    devices = [p.device for p in net.parameters()]
    extractor = GateExtractor(net).fit(X)
    assert extractor.module_ is net
    assert extractor.transform(X) == expected
    found = layer_activations(net, X)
    assert list(found) == list(activations)
    for name, values in activations.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)
    assert [p.device for p in net.parameters()] == devices
    with pytest.raises(ValueError, match=r"device='cpu'.*device_map.*device='auto'"):
        GateExtractor(net, device="cpu").fit(X)
    if torch.device("meta") in devices:
        with pytest.raises(ValueError, match="training needs them on one device"):
            ComplexityLoss(net).find_layers(X)


def test_parameters_without_data_are_refused():
    with torch.device("meta"):
        net = Placed()
    for use in (
        GateExtractor(net).fit,
        lambda x: layer_activations(net, x),
        GatingEntropy(net).fit,
    ):
        with pytest.raises(ValueError, match=r"9 parameters of Placed, such as 'matrix'.*weights"):
            use(X)
    for use in (
        ComplexityLoss(net).find_layers,
        lambda x: ComplexityRegularizedClassifier(net).fit(x, Y),
    ):
        with pytest.raises(ValueError, match="are on meta; training needs"):
            use(X)


# Gradient checkpointing ----------------------------------------------------------------------


class Checkpointed(nn.Module):
    """A network in which regions run again in the backward pass: how is use_reentrant, or None."""

    def __init__(self, how, nested=False):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.nested, self.n_runs = how, nested, 0
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3))
        self.first = nn.Linear(4, 8)
        self.last = nn.Linear(8, 3)

    def region(self, x):
        self.n_runs += 1
        x = torch.relu(self.first(x)) if x.shape[1] == 4 else x
        return self.run(self.inner, x) if self.nested else self.inner(x)

    def run(self, function, x):
        if self.how is None:
            return function(x)
        return torch_checkpoint.checkpoint(function, x, use_reentrant=self.how)

    def forward(self, x):
        x = self.run(self.region, x)
        x = torch.relu(x - 0.1)
        return self.last(self.run(self.region, x))


def gradients(net, x, penalty="ebm", layers="*"):
    """Return the gradients of a loss with a penalty, and the names of the layers."""
    loss = ComplexityLoss(net, layers, penalty=penalty, gate_sharpness=5.0, random_state=0)
    loss.find_layers(x)
    torch.manual_seed(1)
    output, gates = loss.run(x)
    loss.energy_step(gates)
    (output.square().sum() + loss(gates)).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()]), loss.layer_names_


@pytest.mark.parametrize("how", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("penalty", ["ebm", "product"])
def test_checkpointing_changes_no_gradient(how, nested, penalty):
    x = torch.tensor(X, requires_grad=True)
    expected, names = gradients(Checkpointed(None).double(), x, penalty)
    assert names == ["relu", "inner.1", "relu:1", "inner.1:1"]
    kept = torch_checkpoint.CheckpointFunction
    net = Checkpointed(how, nested).double()
    found, found_names = gradients(net, x, penalty)
    assert found_names == names
    n_before = net.n_runs
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert torch_checkpoint.CheckpointFunction is kept
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    # the regions did run again: twice in each of two trials and of two passes
    assert n_before == 2 * 2 + 2 * 2


@pytest.mark.parametrize("how", [False, True])
def test_a_region_that_runs_again_has_the_names_of_its_layers(how):
    x = torch.tensor(X, requires_grad=True)
    expected, _ = gradients(Checkpointed(None).double(), x, layers="inner.1:1")
    found, _ = gradients(Checkpointed(how).double(), x, layers="inner.1:1")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_checkpoints_of_other_threads_run_as_ever():
    """A thread without relaxed gates has its own checkpoints, while another has relaxed ones."""
    expected = {}
    net = Checkpointed(None).double()
    net(torch.tensor(X)).sum()
    other = Checkpointed(True).double().eval()
    plain = Checkpointed(None).double().eval()
    plain(torch.tensor(X)).sum().backward()

    def elsewhere():
        other(torch.tensor(X, requires_grad=True)).sum().backward()
        expected["grad"] = other.first.weight.grad

    penalty = ComplexityLoss(net, random_state=0).find_layers(X)
    with penalty.relaxed():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        net(torch.tensor(X))
    torch.testing.assert_close(expected["grad"], plain.first.weight.grad)


@pytest.mark.parametrize("how", [False, True])
def test_checkpointed_regions_have_their_gates_once(how):
    net, plain = Checkpointed(how).double(), Checkpointed(None).double()
    found, expected = GateExtractor(net).fit(X), GateExtractor(plain).fit(X)
    assert found.layer_names_ == expected.layer_names_
    assert found.transform(X) == expected.transform(X)


@pytest.mark.parametrize("how", [False, True])
def test_checkpointing_of_a_classifier(how):
    make = {"lam": 0.1, "max_epochs": 2, "random_state": 0, "gate_sharpness": 5.0}
    expected = ComplexityRegularizedClassifier(Checkpointed(None), **make).fit(X, Y)
    found = ComplexityRegularizedClassifier(Checkpointed(how), **make).fit(X, Y)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-5)


def test_checkpointing_of_transformers():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.OPTConfig(**sizes, ffn_dim=12, word_embed_proj_dim=8)
    found = {}
    for how in (None, False, True):
        torch.manual_seed(0)
        net = transformers.OPTModel(config).double().train()
        if how is not None:
            net.gradient_checkpointing_enable({"use_reentrant": how})
        loss = ComplexityLoss(net, "*", penalty="product", random_state=0)
        loss.find_layers(ENCODED)
        torch.manual_seed(1)
        output, gates = loss.run(ENCODED)
        loss.energy_step(gates)
        (output.last_hidden_state.square().sum() + loss(gates)).backward()
        found[how] = torch.cat([p.grad.flatten() for p in net.parameters()])
    for how in (False, True):
        torch.testing.assert_close(found[how], found[None], rtol=1e-9, atol=1e-9)


def test_labels_of_other_types_are_compared_as_they_are():
    y = [Decimal("0.5"), Decimal(1), Decimal(2)] * 8
    assert GatingMI(random_state=0).fit(X, y).mi_xy_ == GatingMI(random_state=0).fit(X, Y).mi_xy_
