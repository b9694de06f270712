"""Our encoder and decoder blocks against torch.nn's, with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.models.attention import MultiHeadAttention
from jaxcxr.models.sequence import transformer
from jaxcxr.models.sequence.decoder import DecoderBlock

pytestmark = pytest.mark.oracles

DIM, HEADS, RNG = 16, 4, np.random.default_rng(0)
X = RNG.normal(size=(3, 6, DIM)).astype(np.float32)
MEMORY = RNG.normal(size=(3, 5, DIM)).astype(np.float32)
PADDED, MEMORY_PADDED = (np.arange(n) >= np.array([[n], [3], [4]]) for n in (6, 5))
WHAT = "transformer blocks (Pre-LN, Post-LN, masks) against torch"
ATTENTION = functools.partial(MultiHeadAttention, heads=HEADS)


def layer(torch, kind, norm):
    made = kind(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", layer_norm_eps=1e-6,
        batch_first=True, norm_first=norm == "pre",
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made.eval()


def dense(weight, bias, shape=None):
    kernel = weight.T if shape is None else weight.T.reshape(shape)
    return {"kernel": kernel, "bias": bias if shape is None else bias.reshape(shape[1:])}


def attention(state, name):
    width = DIM // HEADS
    weights = np.split(state[f"{name}.in_proj_weight"], 3)
    biases = np.split(state[f"{name}.in_proj_bias"], 3)
    made = {
        role: dense(weight, bias, (DIM, HEADS, width))
        for role, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    kernel = state[f"{name}.out_proj.weight"].T.reshape(HEADS, width, DIM)
    return made | {"out": {"kernel": kernel, "bias": state[f"{name}.out_proj.bias"]}}


def params_of(network, names):
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    params = {ours: attention(state, theirs) for ours, theirs in names.items()}
    params["mlp"] = {
        ours: dense(state[f"{theirs}.weight"], state[f"{theirs}.bias"])
        for ours, theirs in (("fc1", "linear1"), ("fc2", "linear2"))
    }
    for index in range(1, len(names) + 2):
        params[f"norm{index}"] = {
            "scale": state[f"norm{index}.weight"], "bias": state[f"norm{index}.bias"]
        }
    return {"params": params}


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_block_equals_torch(torch, agree, norm):
    network = layer(torch, torch.nn.TransformerEncoderLayer, norm)
    variables = params_of(network, {"attention": "self_attn"})
    block = transformer.EncoderBlock(attention=ATTENTION, norm=norm)
    found = jax.jit(block.apply)(variables, X, transformer.key_mask(jnp.asarray(~PADDED)))
    # Gradients on, so that torch takes its plain path, which keeps padded rows as they are.
    expected = network(torch.from_numpy(X), src_key_padding_mask=torch.from_numpy(PADDED))
    expected = expected.detach().numpy()
    agree(WHAT, found[~PADDED], expected[~PADDED], 2e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_block_equals_torch(torch, agree, norm):
    network = layer(torch, torch.nn.TransformerDecoderLayer, norm)
    names = {"self_attention": "self_attn", "cross_attention": "multihead_attn"}
    variables = params_of(network, names)
    block = DecoderBlock(ATTENTION, DIM, HEADS, norm=norm)
    found, _ = jax.jit(block.apply)(
        variables, X, MEMORY, transformer.causal_mask(6),
        transformer.key_mask(jnp.asarray(~MEMORY_PADDED)),
    )
    later = torch.triu(torch.ones(6, 6, dtype=torch.bool), diagonal=1)
    expected = network(
        torch.from_numpy(X), torch.from_numpy(MEMORY), tgt_mask=later,
        memory_key_padding_mask=torch.from_numpy(MEMORY_PADDED),
    )
    agree(WHAT, found, expected.detach().numpy(), 2e-5)
