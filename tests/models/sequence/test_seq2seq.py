import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention
from jaxcxr.models.sequence import seq2seq, transformer
from jaxcxr.models.sequence.decoder import DecoderAttention, FeatureEmbedding
from jaxcxr.models.sequence.seq2seq import EncoderDecoder


class Decay(nn.Module):
    """Output t = rate * (output t-1) + the input + the mean of the real source steps."""

    def setup(self):
        self.rate = self.param("rate", nn.initializers.constant(0.5), ())

    def encode(self, source, source_mask=None, train=False):
        mask = jnp.ones(source.shape[:2], bool) if source_mask is None else source_mask
        return (source * mask[..., None]).sum(1) / mask.sum(1)[:, None]

    def start(self, memory, steps):
        return jnp.zeros_like(memory), jnp.ones_like(memory)

    def step(self, carry, previous, memory):
        output = self.rate * carry + previous + memory
        return output, output


DECAY_SOURCE = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
MASK = np.array([[True, True, False], [True, True, True]])
TARGETS = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
VARIABLES = {"params": {"rate": np.float32(0.5)}}


def by_hand(rate, feedback, targets=None, forced=None):
    mean = np.stack([DECAY_SOURCE[0, :2].mean(0), DECAY_SOURCE[1].mean(0)])
    carry, previous, outputs = np.zeros_like(mean), np.ones_like(mean), []
    for t in range(5):
        carry = rate * carry + previous + mean
        previous = feedback(carry)
        if targets is not None:
            previous = np.where(forced[:, t, None], targets[:, t], previous)
        outputs.append(carry)
    return np.stack(outputs, 1)


def test_decode_feeds_each_output_back():
    found = seq2seq.decode(Decay(), VARIABLES, DECAY_SOURCE, 5, source_mask=MASK)
    np.testing.assert_allclose(found, by_hand(0.5, lambda y: y), rtol=1e-5)


def test_decode_of_tokens_feeds_the_likeliest_back():
    feedback = seq2seq.one_hot_of_largest
    found = seq2seq.decode(Decay(), VARIABLES, DECAY_SOURCE, 5, feedback, MASK)
    np.testing.assert_allclose(found, by_hand(0.5, lambda y: np.eye(4)[y.argmax(-1)]), rtol=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.0])
def test_decode_takes_targets_where_forced(ratio):
    forced = np.random.default_rng(2).random((2, 5)) < ratio
    found = seq2seq.decode(
        Decay(), VARIABLES, DECAY_SOURCE, 5, source_mask=MASK, targets=TARGETS, forced=forced
    )
    expected = by_hand(0.5, lambda y: y, TARGETS, forced)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if ratio == 1:
        plain = seq2seq.decode(
            Decay(), VARIABLES, DECAY_SOURCE, 5, source_mask=MASK, targets=TARGETS
        )
        np.testing.assert_array_equal(found, plain)


def test_decode_is_differentiable_by_the_parameters():
    def total(rate):
        variables = {"params": {"rate": rate}}
        return seq2seq.decode(Decay(), variables, DECAY_SOURCE, 5, source_mask=MASK).sum()

    step = 1e-3
    slope = (by_hand(0.5 + step, lambda y: y) - by_hand(0.5 - step, lambda y: y)).sum() / step / 2
    np.testing.assert_allclose(jax.grad(total)(jnp.float32(0.5)), slope, rtol=1e-3)


def test_shift_right_puts_the_start_first_and_drops_the_last():
    shifted = seq2seq.shift_right(TARGETS, np.full(4, 7.0, np.float32))
    np.testing.assert_array_equal(shifted[:, 0], np.full((2, 4), 7.0))
    np.testing.assert_array_equal(shifted[:, 1:], TARGETS[:, :-1])


RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(2, 5, 3)).astype(np.float32)
TARGET = RNG.normal(size=(2, 6, 4)).astype(np.float32)
SOURCE_MASK = np.arange(5) < np.array([[3], [5]])
TARGET_MASK = np.arange(6) < np.array([[6], [4]])
MASKS = {"source_mask": SOURCE_MASK, "target_mask": TARGET_MASK}


def small(**options):
    sizes = {"dim": 16, "encoder_depth": 1, "decoder_depth": 2, "heads": 2}
    return EncoderDecoder(4, **(sizes | options))


def drawn(model, scale=0.3):
    """Random variables; the scales of norms are around 1."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TARGET)

    def leaf(path, shape):
        values = rng.normal(scale=scale, size=shape.shape).astype(np.float32)
        return values + float(path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def decode(model, variables, steps, feedback=seq2seq.identity, **arrays):
    run = functools.partial(seq2seq.decode, model, steps=steps, feedback=feedback)
    return jax.jit(run)(variables, source=SOURCE, **arrays)


def forward(model, variables, target=TARGET, **masks):
    return jax.jit(model.apply)(variables, SOURCE, target, **masks)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "pre", "positions": "learned"},
        {"norm": "post"},
        {"norm": "tfixup", "attention": "linformer(rank=2)", "encoder_depth": 2},
        {"decoder_attention": "1*fixed(2)/entmax15+1*adaptive(2)/alibi|mha"},
        {"decoder_attention": "gated(gate=token)", "shared_memory": 2, "decoder_depth": 3},
    ],
)
def test_decoding_fed_with_targets_is_the_teacher_forced_forward(options):
    model = small(**options)
    # Without norms the same weights would blow the tokens up.
    variables = drawn(model, 0.15 if model.norm == "tfixup" else 0.3)
    expected = forward(model, variables, **MASKS)
    found = decode(model, variables, 6, source_mask=SOURCE_MASK, targets=TARGET)
    assert 1e-2 < np.abs(expected).max() < 10
    np.testing.assert_allclose(found[TARGET_MASK], expected[TARGET_MASK], atol=1e-5)


def test_decoding_equals_the_forward_more_closely_in_float64():
    """What is left is the rounding of the scores of plain attention, which are float32."""
    with jax.enable_x64(True):
        model = small(norm="tfixup", decoder_depth=1, dtype=jnp.float64)
        variables = jax.tree.map(np.float64, drawn(model, 0.15))
        target = TARGET.astype(np.float64)
        expected = forward(model, variables, target, **MASKS)
        found = decode(model, variables, 6, source_mask=SOURCE_MASK, targets=target)
        assert found.dtype == expected.dtype == np.float64
        np.testing.assert_allclose(found[TARGET_MASK], expected[TARGET_MASK], atol=1e-12)


def test_decoding_in_bfloat16_is_near_that_in_float32():
    variables = drawn(small(decoder_depth=1))
    expected = forward(small(decoder_depth=1), variables)
    found = decode(small(decoder_depth=1, dtype=jnp.bfloat16), variables, 6, targets=TARGET)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_a_step_projects_its_own_token_alone():
    """Room for 128 more steps costs scores and sums, and no projections of earlier tokens."""
    model = small(dim=64, decoder_depth=1)
    variables = drawn(model)
    memory = model.apply(variables, SOURCE, method="encode")
    step = functools.partial(model.apply, method="step")

    def flops(steps):
        carry, first = model.apply(variables, memory, steps, method="start")
        compiled = jax.jit(step).lower(variables, carry, first, memory).compile()
        return compiled.cost_analysis()["flops"]

    projections = 2 * 128 * (2 * 64 * 64 * 2)  # batch, tokens, keys and values
    assert flops(192) - flops(64) < 0.1 * projections


def test_greedy_decoding_is_the_forward_on_what_it_said():
    model = small()
    variables = drawn(model)
    outputs = decode(model, variables, 6, seq2seq.one_hot_of_largest)
    said = seq2seq.one_hot_of_largest(outputs)
    assert len(np.unique(said.argmax(-1))) > 1
    np.testing.assert_allclose(forward(model, variables, said), outputs, atol=1e-5)


def test_steps_taken_one_by_one_are_those_of_the_loop():
    model = small()
    variables = drawn(model)
    expected = decode(model, variables, 3, source_mask=SOURCE_MASK)
    memory = model.apply(variables, SOURCE, SOURCE_MASK, method="encode")
    carry, previous = model.apply(variables, memory, 3, method="start")
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    step = jax.jit(functools.partial(model.apply, method="step"))
    for t in range(3):
        carry, previous = step(variables, carry, previous, memory)
        np.testing.assert_allclose(previous, expected[:, t], atol=1e-5)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), carry) == shapes


def test_an_output_depends_on_the_source_and_earlier_targets_alone():
    model = small(decoder_depth=1)
    variables = drawn(model)

    def of_third(source, target):
        return jnp.square(model.apply(variables, source, target, **MASKS)[:, 3]).sum()

    by_source, by_target = jax.jit(jax.grad(of_third, (0, 1)))(SOURCE, TARGET)
    size = np.abs(by_source).sum(-1)
    assert (size[SOURCE_MASK] > 0).all()
    assert not size[~SOURCE_MASK].any()
    size = np.abs(by_target).sum(-1)
    assert (size[:, :3] > 0).all()
    assert not size[:, 3:].any()


def test_padding_is_not_even_looked_at():
    model = small(decoder_depth=1)
    variables, hole = drawn(model), TARGET_MASK.copy()
    hole[0, 1] = False
    apply = jax.jit(functools.partial(model.apply, source_mask=SOURCE_MASK, target_mask=hole))
    source, target = SOURCE.copy(), TARGET.copy()
    source[~SOURCE_MASK], target[~hole] = np.nan, np.nan
    np.testing.assert_array_equal(
        apply(variables, source, target), apply(variables, SOURCE, TARGET)
    )


def test_the_decoder_takes_other_causal_attention():
    plain, flexible = small(), small(decoder_attention="2*global")
    variables = drawn(plain)
    expected = forward(plain, variables)
    np.testing.assert_allclose(forward(flexible, variables), expected, atol=1e-5)
    narrow = forward(small(decoder_attention="2*fixed(0)"), variables)
    assert np.abs(narrow - expected).max() > 1e-3
    with pytest.raises(UserError, match="cannot decode step by step"):
        seq2seq.decode(small(decoder_attention="performer(causal=True)"), variables, SOURCE, 2)
    for options in ({"decoder_attention": "shared"}, {"norm": "none"}, {"heads": 3},
                    {"shared_memory": 0}):
        with pytest.raises(UserError):
            jax.eval_shape(small(**options).init, jax.random.key(0), SOURCE, TARGET)


def test_tfixup_scales_encoder_decoder_and_embeddings():
    model = small(dim=128, encoder_depth=2, decoder_depth=3, norm="tfixup")
    source = np.zeros((1, 2, 100), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), source, TARGET[:1])["params"]
    assert not any("norm" in name for name in params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        if names[-1] != "kernel" or names[0] == "head":
            continue
        if names[0].endswith("embed"):
            factor, std = transformer.tfixup_scale(3, decoder=True), 128**-0.5
        else:
            decodes = names[0].startswith("decoder")
            factor = transformer.tfixup_scale(3 if decodes else 2, decoder=decodes)
            factor = 1.0 if names[-2] in ("query", "key") else factor
            std = np.sqrt(2 / (128 + (512 if "mlp" in names else 128)))
        # The table of the four target features is a small sample.
        np.testing.assert_allclose(leaf.std(), factor * std, rtol=0.1 if leaf.size < 1000 else 0.02)


def test_embeddings_are_as_large_with_tfixup_at_any_width():
    """A one-hot token becomes a vector whose elements have the deviation (9N)^-1/4."""
    x = np.eye(50, dtype=np.float32)
    for dim in (32, 512):
        embed = FeatureEmbedding(dim, "tfixup", layers=6)
        tokens = embed.init_with_output(jax.random.key(0), x)[0]
        np.testing.assert_allclose(tokens.std(), 0.3689, rtol=0.05)


def test_blocks_that_share_have_an_output_alone_and_mix_as_their_leader():
    model = small(shared_memory=2, decoder_depth=3)
    params = drawn(model)["params"]
    names = [set(params[f"decoder_{i}"]["cross_attention"]) for i in range(3)]
    assert names == [{"query", "key", "value", "out"}, {"out"}, {"query", "key", "value", "out"}]
    memory = jax.eval_shape(
        lambda v: model.apply(v, SOURCE, method="encode"), {"params": params}
    )
    assert [one is None for one in memory["keys_values"]] == [False, True, False]


def test_a_follower_says_what_its_leader_mixed():
    leader = DecoderAttention(16, 2)
    x, memory = RNG.normal(size=(2, 2, 5, 16)).astype(np.float32)
    variables = leader.init(jax.random.key(0), x, memory)
    found, mixed = leader.apply(variables, x, memory)
    expected = MultiHeadAttention(2).apply(variables, x, memory)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    follower = DecoderAttention(16, 2, leads=False)
    own = {"params": {"out": variables["params"]["out"]}}
    again, same = follower.apply(own, 3 * x, mixed=mixed)
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(same, mixed)
    with pytest.raises(UserError, match="does not lead"):
        follower.apply(own, x)
