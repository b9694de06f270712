import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models import decoding, transformer
from jaxcxr.models.decoder import FeatureEmbedding
from jaxcxr.models.seq2seq import EncoderDecoder

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


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "pre", "positions": "learned"},
        {"norm": "post"},
        {"norm": "tfixup", "attention": "linformer(rank=2)", "encoder_depth": 2},
    ],
)
def test_decoding_fed_with_targets_is_the_teacher_forced_forward(options):
    model = small(**options)
    # Without norms the same weights would blow the tokens up.
    variables = drawn(model, 0.15 if model.norm == "tfixup" else 0.3)
    forward = jax.jit(functools.partial(model.apply, **MASKS))(variables, SOURCE, TARGET)
    steps = jax.jit(functools.partial(decoding.decode, model, steps=6))
    found = steps(variables, source=SOURCE, source_mask=SOURCE_MASK, targets=TARGET)
    assert 1e-2 < np.abs(forward).max() < 10
    np.testing.assert_allclose(found[TARGET_MASK], forward[TARGET_MASK], atol=1e-5)


def test_greedy_decoding_is_the_forward_on_what_it_said():
    model = small()
    variables = drawn(model)
    outputs = decoding.decode(model, variables, SOURCE, 6, decoding.one_hot_of_largest)
    said = decoding.one_hot_of_largest(outputs)
    assert len(np.unique(said.argmax(-1))) > 1
    np.testing.assert_allclose(model.apply(variables, SOURCE, said), outputs, atol=1e-5)


def test_steps_taken_one_by_one_are_those_of_the_loop():
    model = small()
    variables = drawn(model)
    expected = decoding.decode(model, variables, SOURCE, 3, source_mask=SOURCE_MASK)
    memory = model.apply(variables, SOURCE, SOURCE_MASK, method="encode")
    carry, previous = model.apply(variables, memory, 3, method="start")
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    for t in range(3):
        carry, previous = model.apply(variables, carry, previous, memory, method="step")
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
    forward = jax.jit(functools.partial(model.apply, source_mask=SOURCE_MASK, target_mask=hole))
    source, target = SOURCE.copy(), TARGET.copy()
    source[~SOURCE_MASK], target[~hole] = np.nan, np.nan
    np.testing.assert_array_equal(
        forward(variables, source, target), forward(variables, SOURCE, TARGET)
    )


def test_the_decoder_takes_other_causal_attention_but_keeps_no_cache_of_it():
    plain, flexible = small(), small(decoder_attention="2*global")
    variables = drawn(plain)
    np.testing.assert_allclose(
        flexible.apply(variables, SOURCE, TARGET), plain.apply(variables, SOURCE, TARGET), atol=1e-5
    )
    narrow = small(decoder_attention="2*fixed(0)").apply(variables, SOURCE, TARGET)
    assert np.abs(narrow - plain.apply(variables, SOURCE, TARGET)).max() > 1e-3
    with pytest.raises(UserError, match="cannot decode step by step"):
        decoding.decode(flexible, variables, SOURCE, 2)
    for options in ({"decoder_attention": "shared"}, {"norm": "none"}, {"heads": 3}):
        with pytest.raises(UserError):
            jax.eval_shape(small(**options).init, jax.random.key(0), SOURCE, TARGET)


def test_tfixup_scales_encoder_decoder_and_embeddings():
    model = small(dim=128, encoder_depth=2, decoder_depth=6, norm="tfixup")
    source = np.zeros((1, 2, 100), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), source, TARGET[:1])["params"]
    assert not any("norm" in name for name in params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        if names[-1] != "kernel" or names[0] == "head":
            continue
        if names[0].endswith("embed"):
            factor, std = transformer.tfixup_scale(6, decoder=True), 128**-0.5
        else:
            decodes = names[0].startswith("decoder")
            factor = transformer.tfixup_scale(6 if decodes else 2, decoder=decodes)
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


@pytest.mark.slow
def test_learns_to_reverse_tokens():
    """Greedy decoding reverses every sequence of a held-out set, of any length up to 6."""
    model = EncoderDecoder(8, dim=32, encoder_depth=1, decoder_depth=1, heads=4)
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 5e-3, 100, 1500))

    def batch(key, size):
        lengths, tokens = jax.random.split(key)
        length = jax.random.randint(lengths, (size, 1), 1, 7)
        mask = jnp.arange(6) < length
        tokens = jax.random.randint(tokens, (size, 6), 0, 8)
        order = jnp.where(mask, length - 1 - jnp.arange(6), 0)
        reverse = jnp.take_along_axis(tokens, order, axis=1)
        return jax.nn.one_hot(tokens, 8), reverse, mask

    def loss(params, key):
        source, reverse, mask = batch(key, 64)
        target = jax.nn.one_hot(reverse, 8)
        logits = model.apply({"params": params}, source, target, source_mask=mask, target_mask=mask)
        losses = optax.softmax_cross_entropy(logits, target)
        return (losses * mask).sum() / mask.sum()

    @jax.jit
    def train(key):
        source, reverse, _ = batch(key, 2)
        params = model.init(key, source, jax.nn.one_hot(reverse, 8))["params"]

        def step(state, key):
            params, moments = state
            value, gradient = jax.value_and_grad(loss)(params, key)
            updates, moments = optimizer.update(gradient, moments, params)
            return (optax.apply_updates(params, updates), moments), value

        keys = jax.random.split(key, 1500)
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        source, reverse, mask = batch(jax.random.key(1), 256)
        outputs = decoding.decode(
            model, {"params": params}, source, 6, decoding.one_hot_of_largest, mask
        )
        return losses, (outputs.argmax(-1) == reverse) | ~mask

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its dtypes
        losses, right = train(jax.random.key(0))
    assert losses[0] > 1.5
    assert right.all(), f"{float(right.mean()):.4f} right, loss {float(losses[-1]):.4f}"
