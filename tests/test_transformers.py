"""Transformers with random weights: gates as hooks have them, row by row, or a refusal by name."""

import re
import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn
from torch.utils.data import DataLoader

from skgate import GateCaptureWarning, GateExtractor, GatingEntropy
from skgate.densities import ChowLiu, Kernel

N, TOKENS, DECODED, VOCABULARY = 24, 9, 5, 50
GENERATOR = torch.Generator().manual_seed(0)
IDS = torch.randint(3, VOCABULARY, (N, TOKENS), generator=GENERATOR)
DECODER_IDS = torch.randint(3, VOCABULARY, (N, DECODED), generator=GENERATOR)
PAIRS = {"input_ids": IDS, "decoder_input_ids": DECODER_IDS}
IMAGES = torch.randn(N, 3, 8, 8, generator=GENERATOR)
SOUNDS = torch.randn(N, 8, 16, generator=GENERATOR)

WIDTH, HEADS = 16, 2
HIDDEN = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS}
TEXT = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {**HIDDEN, **TEXT, "intermediate_size": 24, "num_key_value_heads": HEADS}
MOE = {**LLAMA, "moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2}
T5 = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2,
    "num_heads": HEADS,
}  # fmt: skip
BART = {
    **TEXT, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
    "decoder_start_token_id": 1,
}  # fmt: skip


@dataclass
class Case:
    """A model, its inputs, and by name of each layer of gates where hooks find them.

    ``linear`` has the module whose output is gated, ``routers`` that which returns the logits of
    experts, of which ``top`` are taken. ``*`` stands for both blocks.
    """

    model: str
    config: dict
    inputs: object
    linear: dict
    smooth: bool = False
    routers: dict = field(default_factory=dict)
    top: int = 2

    def build(self, **changes):
        torch.manual_seed(0)
        model = getattr(hf, self.model)
        net = model(model.config_class(**{**self.config, **changes})).eval()
        for parameter in net.parameters():  # so that attention and routers matter
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        return net


def exact(case):
    """Return a model in float64, in which rounding flips no gate; not all kernels take it."""
    return case.build(experts_implementation="eager").double()


def both(**names):
    """Return names of layers for both blocks."""
    return {
        layer.replace("*", str(i)): module.replace("*", str(i))
        for layer, module in names.items()
        for i in range(2)
    }


def blocks(prefix, activation, linear):
    return both(**{f"{prefix}.*.{activation}": f"{prefix}.*.{linear}"})


SILU = blocks("model.layers", "mlp.act_fn.silu", "mlp.gate_proj")
ROUTER = blocks("model.layers", "mlp.gate.topk", "mlp.gate")
ZOO = {
    "GPT-2": Case(
        "GPT2LMHeadModel",
        {**TEXT, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS},
        IDS,
        blocks("transformer.h", "mlp.act.tanh", "mlp.c_fc"),
        smooth=True,
    ),
    "BERT": Case(
        "BertModel",
        {**HIDDEN, **TEXT, "intermediate_size": 32},
        IDS,
        {
            **blocks(
                "encoder.layer", "intermediate.intermediate_act_fn.gelu", "intermediate.dense"
            ),
            "pooler.activation": "pooler.dense",
        },
        smooth=True,
    ),
    "DistilBERT": Case(
        "DistilBertModel",
        {**TEXT, "dim": WIDTH, "hidden_dim": 32, "n_layers": 2, "n_heads": HEADS},
        IDS,
        blocks("transformer.layer", "ffn.activation.gelu", "ffn.lin1"),
        smooth=True,
    ),
    "ESM": Case(  # whose GELU is written with erf
        "EsmModel",
        {**HIDDEN, **TEXT, "intermediate_size": 32, "mask_token_id": 3},
        IDS,
        {
            **blocks("encoder.layer", "intermediate.erf", "intermediate.dense"),
            "pooler.activation": "pooler.dense",
        },
        smooth=True,
    ),
    "OPT": Case(
        "OPTForCausalLM",
        {**HIDDEN, **TEXT, "ffn_dim": 32, "word_embed_proj_dim": WIDTH},
        IDS,
        blocks("model.decoder.layers", "activation_fn", "fc1"),
    ),
    "T5": Case(
        "T5ForConditionalGeneration",
        T5,
        PAIRS,
        {
            **blocks("encoder.block", "layer.1.DenseReluDense.act", "layer.1.DenseReluDense.wi"),
            **blocks("decoder.block", "layer.2.DenseReluDense.act", "layer.2.DenseReluDense.wi"),
        },
    ),
    "BART": Case(
        "BartModel",
        BART,
        PAIRS,
        {
            **blocks("encoder.layers", "activation_fn.gelu", "fc1"),
            **blocks("decoder.layers", "activation_fn.gelu", "fc1"),
        },
        smooth=True,
    ),
    "Whisper": Case(
        "WhisperModel",
        {**BART, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16},
        {"input_features": SOUNDS, "decoder_input_ids": DECODER_IDS},
        {
            "encoder.gelu": "encoder.conv1",
            "encoder.gelu:1": "encoder.conv2",
            **blocks("encoder.layers", "activation_fn.gelu", "fc1"),
            **blocks("decoder.layers", "activation_fn.gelu", "fc1"),
        },
        smooth=True,
    ),
    "ViT": Case(
        "ViTModel",
        {**HIDDEN, "intermediate_size": 32, "image_size": 8, "patch_size": 4},
        IMAGES,
        {
            **blocks("layers", "mlp.activation_fn.gelu", "mlp.fc1"),
            "pooler.activation": "pooler.dense",
        },
        smooth=True,
    ),
    "Llama": Case("LlamaForCausalLM", LLAMA, IDS, SILU, smooth=True),
    "Mixtral": Case(
        "MixtralForCausalLM", {**LLAMA, "num_local_experts": 4}, IDS, {}, routers=ROUTER
    ),
    "Mixtral, smooth": Case(
        "MixtralForCausalLM",
        {**LLAMA, "num_local_experts": 4},
        IDS,
        {},
        smooth=True,
        routers=ROUTER,
    ),
    "Qwen2-MoE": Case(
        "Qwen2MoeForCausalLM",
        {**MOE, "shared_expert_intermediate_size": 24},
        IDS,
        {
            **blocks(
                "model.layers", "mlp.shared_expert.act_fn.silu", "mlp.shared_expert.gate_proj"
            ),
            **blocks("model.layers", "mlp.sigmoid", "mlp.shared_expert_gate"),
        },
        smooth=True,
        routers=ROUTER,
    ),
    "Qwen3-MoE": Case("Qwen3MoeForCausalLM", {**MOE, "head_dim": 8}, IDS, {}, routers=ROUTER),
    "OLMoE": Case("OlmoeForCausalLM", MOE, IDS, {}, routers=ROUTER),
    "Switch": Case(
        "SwitchTransformersForConditionalGeneration",
        {
            **T5,
            "num_decoder_layers": 2,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
            "num_experts": 4,
        },
        PAIRS,
        {
            "encoder.block.0.layer.1.mlp.act": "encoder.block.0.layer.1.mlp.wi",
            "decoder.block.0.layer.2.mlp.act": "decoder.block.0.layer.2.mlp.wi",
        },
        routers={
            f"{stack}.mlp.router.argmax": f"{stack}.mlp.router"
            for stack in ("encoder.block.1.layer.1", "decoder.block.1.layer.2")
        },
        top=1,
    ),
}


def run(net, inputs):
    dtype = next(net.parameters()).dtype
    inputs = inputs if isinstance(inputs, dict) else {net.main_input_name: inputs}
    with torch.no_grad():
        return net(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()})


def rows(inputs, index):
    if isinstance(inputs, dict):
        return {name: values[index] for name, values in inputs.items()}
    return inputs[index]


def k_hot(logits, k):
    """Return which of the last axis are among the k largest, by a sort."""
    order = np.argsort(-np.asarray(logits, dtype=float), axis=-1, kind="stable")
    hot = np.zeros(order.shape, bool)
    np.put_along_axis(hot, order[..., :k], True, -1)
    return hot


def logits_of(output):
    """Return the logits that a router returns among other things, (..., n_experts)."""
    return output[2] if output[0].dtype == torch.int64 else output[0]


def gates_by_hand(case, net, inputs):
    """Return the gates of each layer from forward hooks, (n_samples, n_gates)."""
    found, hooks = {}, []
    for layers, read in [
        (case.linear, lambda output: output > 0),
        (case.routers, lambda output: torch.tensor(k_hot(logits_of(output).float(), case.top))),
    ]:
        for layer, module in layers.items():

            def keep(_, __, output, layer=layer, read=read):
                found[layer] = read(output)

            hooks.append(net.get_submodule(module).register_forward_hook(keep))
    try:
        run(net, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    n = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
    return {layer: gates.reshape(n, -1).numpy() for layer, gates in found.items()}


def extract(case, net, inputs=None, **options):
    """Return an extractor, its states, and the lines of its warnings."""
    inputs = case.inputs if inputs is None else inputs
    extractor = GateExtractor(net, smooth=case.smooth, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        states = extractor.fit_transform(inputs)
    assert {w.category for w in caught} <= {GateCaptureWarning}
    lines = [line.strip() for w in caught for line in str(w.message).splitlines()[1:]]
    return extractor, states, lines


def by_layer(states):
    edges = np.cumsum(states.n_gates)[:-1]
    gates = np.split(np.asarray(states).astype(bool), edges, axis=1)
    return dict(zip(states.layer_names, gates, strict=True))


@pytest.fixture(params=ZOO)
def case(request):
    return ZOO[request.param]


def test_gates_equal_those_of_hooks_on_each_sample_alone(case):
    net = exact(case)
    extractor, states, _ = extract(case, net)
    gates = by_layer(states)
    alone = [gates_by_hand(case, net, rows(case.inputs, slice(i, i + 1))) for i in range(N)]
    assert set(gates) == {*case.linear, *case.routers}
    for layer, found in gates.items():
        np.testing.assert_array_equal(found, np.concatenate([a[layer] for a in alone]), layer)
        assert 0.02 < found.mean() < 0.98, layer
        assert len(np.unique(found, axis=0)) > N // 4, layer
    for record in extractor.coverage_:  # what has no gates here is not left out in silence
        if record.layer not in gates and record.kind in ("threshold", "smooth activation"):
            assert ".experts" in record.layer
            assert record.reason


def test_gates_in_bfloat16_equal_those_of_hooks(case):
    net = case.build().bfloat16()
    _, states, _ = extract(case, net)
    by_hand = gates_by_hand(case, net, case.inputs)
    gates = by_layer(states)
    assert set(gates) == {*case.linear, *case.routers}
    for layer, found in gates.items():
        np.testing.assert_array_equal(found, by_hand[layer], layer)


def test_permuting_the_samples_permutes_the_states(case):
    net = exact(case)
    extractor, states, _ = extract(case, net)
    order = np.random.default_rng(0).permutation(N)
    permuted = extractor.transform(rows(case.inputs, order.tolist()))
    np.testing.assert_array_equal(np.asarray(permuted), np.asarray(states[order]))


def test_permuting_the_samples_permutes_the_states_in_bfloat16(case):
    net = case.build().bfloat16()
    extractor, states, _ = extract(case, net)
    order = np.random.default_rng(0).permutation(N)
    permuted = by_layer(extractor.transform(rows(case.inputs, order.tolist())))
    for layer, gates in by_layer(states).items():
        rate = gates.mean(0)
        between_two_rows = 2 * (rate * (1 - rate)).mean()
        assert np.mean(permuted[layer] != gates[order]) <= 0.02 * between_two_rows, layer


def test_any_batch_size_gives_the_same_states(case):
    net = exact(case)
    _, states, _ = extract(case, net)
    for batch_size in (1, 3, 7):
        _, smaller, _ = extract(case, net, batch_size=batch_size)
        assert smaller.layer_names == states.layer_names
        np.testing.assert_array_equal(np.asarray(smaller), np.asarray(states), str(batch_size))


def test_warnings_name_experts_and_nothing_else(case):
    extractor, states, lines = extract(case, case.build())
    for line in lines:
        assert ".mlp.experts." in line, line
    patterns = [
        re.escape(line.split(": ")[0].split(" (")[0]).replace(r"\*", r"\d+") for line in lines
    ]
    named = {
        record.layer
        for record in extractor.coverage_
        if any(re.fullmatch(pattern, record.layer) for pattern in patterns)
    }
    experts = {
        record.layer
        for record in extractor.coverage_
        if ".mlp.experts" in record.layer and record.kind in ("threshold", "smooth activation")
    }
    assert named == experts
    assert not experts & set(states.layer_names)
    assert bool(experts) == bool(case.routers)
    if case.smooth or "Switch" in case.model:  # they have gates, in an order of their own
        assert all("the data choose or sort the rows" in line for line in lines)


# Experts ------------------------------------------------------------------------------------

EXPERTS, SINGLE = 4, 12  # and units of one


def planted_mixtral(table, n_layers=1, k=2, **changes):
    """Return a Mixtral whose routers send a token to the ``k`` experts that a table has for it."""
    case = ZOO["Mixtral"]
    config = {"num_hidden_layers": n_layers, "vocab_size": len(table), "pad_token_id": None,
              "num_local_experts": EXPERTS, "num_experts_per_tok": k, "hidden_size": len(table),
              "intermediate_size": SINGLE, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    net = case.build(**config, **changes)
    with torch.no_grad():
        noise = 0.02 * torch.randn(len(table), len(table))
        net.model.embed_tokens.weight.copy_(torch.eye(len(table)) + noise)
        for block in net.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.gate.weight.zero_()
            for token, experts in enumerate(table):
                for rank, expert in enumerate(experts[:k]):
                    block.mlp.gate.weight[expert, token] = 10.0 - rank
    return net


@pytest.mark.parametrize("name", ["Mixtral", "Qwen2-MoE", "Qwen3-MoE", "OLMoE"])
def test_routers_equal_the_logits_that_the_model_returns(name):
    case = ZOO[name]
    net = case.build()
    with torch.no_grad():
        returned = net(IDS, output_router_logits=True).router_logits
    _, states, _ = extract(case, net, layers="*.mlp.gate.topk")
    gates = by_layer(states)
    assert len(gates) == len(returned) == 2
    for layer, (found, logits) in enumerate(zip(gates.values(), returned, strict=True)):
        expected = k_hot(logits, 2).reshape(N, TOKENS, -1)  # (samples, tokens, experts)
        np.testing.assert_array_equal(found.reshape(expected.shape), expected, str(layer))
        assert (found.reshape(expected.shape).sum(-1) == 2).all()


@pytest.mark.parametrize("samples", ["sample", "position"])
@pytest.mark.parametrize("density", [Kernel(bandwidth=0.05), ChowLiu()], ids=["kernel", "Chow-Liu"])
def test_entropy_of_a_planted_router_is_that_of_its_choices(density, samples):
    # one of the experts 0 and 1, and then one of 2 and 3: a tree that Chow-Liu can hold
    table = [(0, 2), (0, 3), (1, 2), (1, 3)] * 2
    p = np.array([0.4, 0.1, 0.15, 0.35])
    bits = -(p * np.log2(p)).sum()  # 1.80
    n, n_tokens = 1500, 2
    rng = np.random.default_rng(0)
    ids = rng.choice(4, (n, n_tokens), p=p) + 4 * rng.integers(0, 2, (n, n_tokens))
    net = planted_mixtral(table)
    extractor = GateExtractor(net, exclude="*.experts.*", samples=samples)
    entropy = GatingEntropy(extractor, density=density, random_state=0).fit(torch.tensor(ids))
    truth = bits * (n_tokens if samples == "sample" else 1)
    n_rows = n if samples == "sample" else n * n_tokens
    se = (
        np.sqrt((p * np.log2(p) ** 2).sum() - bits**2)
        * np.sqrt(n_tokens / n)
        / (1 if samples == "sample" else n_tokens)
    )
    miller = (4 ** (n_tokens if samples == "sample" else 1) - 1) / (2 * n_rows * np.log(2))
    assert abs(entropy.entropy_ - truth) < 3 * se + miller
    assert entropy.entropy_se_ == pytest.approx(se, rel=0.3)


def experts_by_hand(net, ids):
    """Return the gates of the experts of each token, (samples, tokens, k, units)."""
    block, k = net.model.layers[0], net.config.num_experts_per_tok
    gates = np.zeros((*ids.shape, k, SINGLE), bool)
    with torch.no_grad():
        x = block.post_attention_layernorm(net.model.embed_tokens(ids))
        for place in np.ndindex(*ids.shape):
            chosen = (block.mlp.gate.weight @ x[place]).topk(k).indices
            for rank, expert in enumerate(chosen):
                up = block.mlp.experts.gate_up_proj[expert] @ x[place]
                gates[(*place, rank)] = (up[:SINGLE] > 0).numpy()
    return gates


def batches_by_chance():
    """Return ids whose first batch of eight leaves its tokens in order when sorted by expert."""
    rng = np.random.default_rng(0)
    of_expert = lambda expert, *shape: 4 * rng.integers(0, 4, shape) + expert  # noqa: E731
    mixed = rng.integers(0, 16, (24, 4))
    once = np.concatenate([of_expert(0, 24, 1), of_expert(1, 24, 3)], axis=1)
    twice = once.copy()
    twice[20, 0], twice[21, 1] = 1, 0  # as many tokens of the first expert, one too far down
    yield "mixed", mixed
    yield "one token", mixed[:, :1]
    yield "one expert first", np.concatenate([of_expert(0, 8, 4), mixed])
    yield "one expert and token first", np.concatenate([of_expert(0, 8, 1), mixed[:, :1]])
    yield "sorted by expert", np.concatenate([of_expert(i, 8, 4) for i in range(3)])
    yield "one token of the first expert", np.concatenate([once, twice])
    yield "all experts in each sample", np.stack([rng.permutation(4) for _ in range(24)])
    yield "equal samples first", np.concatenate([mixed[:1].repeat(8, 0), mixed])


@pytest.mark.parametrize(("samples", "batch_size"), [("sample", 1), ("sample", 8), ("position", 8)])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
def test_experts_are_right_or_refused(experts, k, batch_size, samples):
    table = [(token % 4, (token + 1) % 4) for token in range(16)]
    net = planted_mixtral(table, k=k, hidden_act="relu", experts_implementation=experts)
    for name, ids in batches_by_chance():
        if samples == "position" and ids.shape[1] == 1:
            continue
        ids = torch.tensor(ids)
        extractor = GateExtractor(net, batch_size=batch_size, samples=samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GateCaptureWarning)
            gates = by_layer(extractor.fit_transform(ids))
        router = np.array([[table[token][:k] for token in row] for row in ids.tolist()])
        hot = (router[..., None] == np.arange(4)).any(2)  # (samples, tokens, experts)
        found = gates.pop("model.layers.0.mlp.gate.topk")
        np.testing.assert_array_equal(found.reshape(hot.shape), hot, name)
        reasons = {r.layer: r.reason for r in extractor.coverage_ if ".experts.act" in r.layer}
        assert not gates, name
        assert all("the data choose or sort the rows" in why for why in reasons.values())
        assert reasons, name


# Masks and lengths --------------------------------------------------------------------------

LENGTHS = np.random.default_rng(0).integers(2, TOKENS + 1, N)
LENGTHS[0] = TOKENS
MASKED = {
    "BERT": (ZOO["BERT"], "right"),
    "OPT": (ZOO["OPT"], "right"),
    "OPT, padded on the left": (ZOO["OPT"], "left"),
    "T5 encoder": (
        Case(
            "T5EncoderModel",
            T5,
            IDS,
            blocks("encoder.block", "layer.1.DenseReluDense.act", "layer.1.DenseReluDense.wi"),
        ),
        "right",
    ),
}


def masked(ids, lengths, side="right", padding=0):
    """Return ids with padding on one side, and the mask that is 1 where they are data."""
    place = np.arange(ids.shape[1])
    place = place if side == "right" else place[::-1]
    mask = torch.tensor(place < np.asarray(lengths)[:, None])
    return {"input_ids": torch.where(mask, ids, padding), "attention_mask": mask.long()}


def trimmed_gates(case, net, inputs):
    """Return the gates of each sample without its padding, (tokens, units), by layer."""
    samples = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
        gates = gates_by_hand(case, net, ids[mask][None])
        samples.append({
            layer: g.reshape(int(mask.sum()), -1) for layer, g in gates.items() if g.size > WIDTH
        })  # fmt: skip
    return samples


@pytest.fixture(params=MASKED)
def padded(request):
    """A model, and its inputs with three kinds of padding."""
    case, side = MASKED[request.param]
    other = torch.randint(3, VOCABULARY, IDS.shape, generator=torch.Generator().manual_seed(1))
    return case, [masked(IDS, LENGTHS, side, padding) for padding in (0, 7, other)]


def test_rows_are_the_tokens_that_are_no_padding(padded):
    case, inputs = padded
    net = case.build().double()
    options = {"exclude": "pooler*"} if "pooler.activation" in case.linear else {}
    extractor, states, lines = extract(case, net, inputs[0], samples="position", **options)
    assert not lines
    np.testing.assert_array_equal(states.groups, np.repeat(np.arange(N), LENGTHS))
    samples = trimmed_gates(case, net, inputs[0])
    for layer, gates in by_layer(states).items():
        np.testing.assert_array_equal(gates, np.concatenate([s[layer] for s in samples]), layer)
    for changed in inputs[1:]:
        again = extractor.transform(changed)
        np.testing.assert_array_equal(again.groups, states.groups)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(states))


def test_gates_under_the_mask_are_closed(padded):
    case, inputs = padded
    net = case.build().double()
    extractor = GateExtractor(net, smooth=case.smooth)
    with pytest.warns(GateCaptureWarning, match=r"% of the positions are under a mask"):
        states = extractor.fit_transform(inputs[0])
    samples = trimmed_gates(case, net, inputs[0])
    mask = inputs[0]["attention_mask"].bool().numpy()
    for layer, gates in by_layer(states).items():
        if layer == "pooler.activation":  # of the first token
            continue
        gates = gates.reshape(N, TOKENS, -1)
        assert not gates[~mask].any()
        np.testing.assert_array_equal(gates[mask], np.concatenate([s[layer] for s in samples]))
    for changed in inputs[1:]:
        with pytest.warns(GateCaptureWarning, match="under a mask"):
            again = extractor.transform(changed)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(states))


@pytest.mark.filterwarnings("ignore::skgate.exceptions.GateCaptureWarning")
@pytest.mark.parametrize("samples", ["sample", "position"])
def test_entropies_do_not_depend_on_ids_under_the_mask(padded, samples):
    case, inputs = padded
    options = {"exclude": "pooler*"} if "pooler.activation" in case.linear else {}
    extractor = GateExtractor(case.build(), smooth=case.smooth, samples=samples, **options)
    measured = [
        GatingEntropy(extractor, density="product", random_state=0).fit(x).layer_entropy_
        for x in inputs
    ]
    assert (measured[0] > 0).all()
    for other in measured[1:]:
        np.testing.assert_array_equal(other, measured[0])
    ignoring = extractor.set_params(mask=None, exclude=None, layers=list(case.linear)[:2])
    with_padding = [ignoring.fit_transform(x) for x in inputs[:2]]
    assert (np.asarray(with_padding[0]) != np.asarray(with_padding[1])).any()


def test_encoder_and_decoder_have_masks_of_their_own():
    case = ZOO["T5"]
    net = case.build().double()
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, DECODED + 1, N)

    def inputs(padding):
        decoder = masked(DECODER_IDS, lengths, padding=padding)
        return masked(IDS, LENGTHS, padding=padding) | {
            f"decoder_{name}": value for name, value in decoder.items()
        }

    extractor = GateExtractor(net)
    with pytest.warns(GateCaptureWarning, match="under a mask"):
        states = extractor.fit_transform(inputs(0))
    with pytest.warns(GateCaptureWarning, match="under a mask"):
        again = extractor.transform(inputs(7))
    np.testing.assert_array_equal(np.asarray(again), np.asarray(states))
    for layer, gates in by_layer(states).items():
        tokens, sizes = (TOKENS, LENGTHS) if layer.startswith("encoder") else (DECODED, lengths)
        padding = np.arange(tokens) >= sizes[:, None]
        assert not gates.reshape(N, tokens, -1)[padding].any(), layer
        assert gates.reshape(N, tokens, -1)[~padding].mean() > 0.2, layer
    for side, tokens in (("encoder", LENGTHS), ("decoder", lengths)):
        by_token = GateExtractor(net, layers=f"{side}.*", samples="position")
        rows = by_token.fit_transform(inputs(0))
        np.testing.assert_array_equal(rows.groups, np.repeat(np.arange(N), tokens))
        whole = np.concatenate([
            gates.reshape(N, -1, rows.n_gates[0])
            for layer, gates in by_layer(states).items() if layer.startswith(side)
        ], axis=-1)  # fmt: skip
        kept = np.arange(whole.shape[1]) < tokens[:, None]
        np.testing.assert_array_equal(np.asarray(rows), whole[kept])


TEXTS = [torch.randint(3, VOCABULARY, (length,)) for length in (16, 9, 12, 8, 8, 5, 20, 24, 3)]


def pad(texts):
    """Return a batch of texts, padded to the longest, as a tokenizer does."""
    ids = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    return masked(ids, [len(text) for text in texts])


@pytest.mark.parametrize("name", ["OPT", "BERT"])
def test_batches_of_different_lengths(name):
    case = ZOO[name]
    net = case.build().double()
    loader = DataLoader(TEXTS, batch_size=3, collate_fn=pad)  # of 16, 8 and 24 tokens
    options = {"smooth": case.smooth, "exclude": "pooler*" if name == "BERT" else None}
    states = GateExtractor(net, samples="position", **options).fit_transform(loader)
    np.testing.assert_array_equal(states.groups, np.repeat(np.arange(9), [len(t) for t in TEXTS]))
    alone = [gates_by_hand(case, net, text[None]) for text in TEXTS]
    for layer, gates in by_layer(states).items():
        expected = [a[layer].reshape(len(t), -1) for a, t in zip(alone, TEXTS, strict=True)]
        np.testing.assert_array_equal(gates, np.concatenate(expected), layer)
    with pytest.raises(ValueError, match=r"8 positions in this batch and had 16.*'position'"):
        GateExtractor(net, **options).fit_transform(loader)


def test_batches_of_different_lengths_without_padding():
    case = ZOO["OPT"]
    net = case.build().double()
    texts = torch.randint(3, VOCABULARY, (9, 24))
    texts = [
        text[:length] for text, length in zip(texts, [16] * 3 + [8] * 3 + [24] * 3, strict=True)
    ]
    loader = DataLoader(texts, batch_size=3)
    states = GateExtractor(net, samples="position").fit_transform(loader)
    alone = [gates_by_hand(case, net, text[None]) for text in texts]
    for layer, gates in by_layer(states).items():
        expected = [a[layer].reshape(len(t), -1) for a, t in zip(alone, texts, strict=True)]
        np.testing.assert_array_equal(gates, np.concatenate(expected), layer)
    with pytest.raises(ValueError, match=r"8 positions in this batch and had 16"):
        GateExtractor(net).fit_transform(loader)


@pytest.mark.parametrize("n_tokens", [8, 15, 16, 32])
def test_units_of_a_fused_linear_layer_are_not_taken_for_tokens(n_tokens):
    # of the 32 units of one linear operation, 16 are gated
    case = Case("Phi3ForCausalLM", {**LLAMA, "intermediate_size": 16}, None, {}, smooth=True)
    ids = torch.randint(3, VOCABULARY, (6, n_tokens))
    _, states, _ = extract(case, case.build().double(), ids, samples="position")
    assert states.n_gates == (16, 16)
    np.testing.assert_array_equal(states.groups, np.repeat(np.arange(6), n_tokens))
