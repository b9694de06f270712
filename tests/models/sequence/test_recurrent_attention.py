"""The decoders against loops of their equations in NumPy, and their invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments, normalizers
from jaxcxr.models.sequence import seq2seq
from jaxcxr.models.sequence.recurrent_attention import Attention, RecurrentEncoderDecoder

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(3, 5, 4)).astype(np.float32)
TARGET = RNG.normal(size=(3, 6, 7)).astype(np.float32)
LENGTHS = np.array([5, 3, 1])
MASK = np.arange(5) < LENGTHS[:, None]
QUERY = RNG.normal(size=(3, 8)).astype(np.float32)
KEYS = RNG.normal(size=(3, 5, 8)).astype(np.float32)
VALUES = RNG.normal(size=(3, 5, 6)).astype(np.float32)

WORDS = ("dot", "scaled_dot", "similarity", "general", "biased_general", "activated_general",
         "kernel/linear", "additive", "deep", "location(5)", "feature")  # fmt: skip


def variables_of(module, *arguments, scale=0.5):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return jax.tree.map(
        lambda s: rng.normal(scale=scale, size=s.shape).astype(np.float32), shapes
    )


def apply(module, variables, *arguments, train=False, rngs=None, **masks):
    """`module.apply`, compiled as one."""

    def call(variables, arguments, masks, rngs):
        options = {**masks, "train": True} if train else masks
        return module.apply(variables, *arguments, **options, rngs=rngs)

    return jax.jit(call)(variables, arguments, masks, rngs)


def decode(module, variables, targets=None):
    def call(variables, targets):
        return seq2seq.decode(module, variables, SOURCE, 6, source_mask=MASK, targets=targets)

    return jax.jit(call)(variables, targets)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def dense(p, *parts):
    return np.concatenate(parts) @ p["kernel"] + p.get("bias", 0)


def simple(p, x, h):
    return np.tanh(dense(p["i"], x) + h @ p["h"]["kernel"])


def decoder_by_hand(kind, p, source, target):
    """Outputs for one sequence, from one direction of a simple cell, by the equations."""
    h, states = np.zeros(8), []
    for x in source:
        h = simple(p["encoder"]["forward_0"], x, h)
        states.append(h)
    states, a = np.array(states), {k: v[0] for k, v in p.get("attend", {}).items()}

    def context(s):
        if kind == "none":
            return states[-1]
        if kind == "luong":
            scores = [s @ a["matrix"] @ h for h in states]
        else:
            scores = [
                a["readout"] @ np.tanh(s @ a["first"] + h @ a["second"] + a["bias"]) for h in states
            ]
        return softmax(np.array(scores)) @ states

    s, fed, outputs = states[-1], np.zeros(8), []
    for y in [p["first"], *target[:-1]]:
        if kind == "luong":
            s = simple(p["decoder_0"], np.concatenate([y, fed]), s)
            fed = mixed = np.tanh(dense(p["mix"], context(s), s))
        else:
            c = context(s)
            s = simple(p["decoder_0"], np.concatenate([y, c]), s)
            mixed = np.tanh(dense(p["mix"], s, c, y))
        outputs.append(dense(p["readout"], mixed))
    return np.array(outputs)


@pytest.mark.parametrize("kind", ["bahdanau", "luong", "none"])
def test_decoder_is_the_loop_of_its_equations(kind):
    module = RecurrentEncoderDecoder(7, "rnn", 8, bidirectional=False, attention=kind)
    variables = variables_of(module, SOURCE, TARGET)
    found = apply(module, variables, SOURCE, TARGET, source_mask=MASK)
    params = jax.tree.map(np.float64, variables["params"])
    for row, length in enumerate(LENGTHS):
        expected = decoder_by_hand(kind, params, SOURCE[row, :length], TARGET[row])
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "cell"), [("bahdanau", "lstm"), ("luong", "gru_thesis"), ("none", "lstm")]
)
def test_decode_loop_fed_with_the_targets_is_the_teacher_forced_forward(kind, cell):
    module = RecurrentEncoderDecoder(7, cell, 8, layers=2, attention=kind)
    variables = variables_of(module, SOURCE, TARGET)
    forward = apply(module, variables, SOURCE, TARGET, source_mask=MASK)
    loop = decode(module, variables, TARGET)
    np.testing.assert_allclose(loop, forward, atol=1e-5)
    # Fed with its own outputs it goes another way after the first.
    free = decode(module, variables)
    np.testing.assert_allclose(free[:, 0], forward[:, 0], atol=1e-5)
    assert np.abs(free[:, 1:] - forward[:, 1:]).max() > 0.01


def test_an_output_depends_on_earlier_targets_only():
    module = RecurrentEncoderDecoder(7, "gru", 8, attention="luong")
    variables = variables_of(module, SOURCE, TARGET)
    target_mask = np.arange(6) < 5
    call = jax.jit(lambda y: module.apply(variables, SOURCE, y, target_mask=target_mask[None]))
    changed = TARGET.copy()
    changed[:, 3] += 1.0
    changed[:, 5] = np.nan
    before, after = np.asarray(call(TARGET)), np.asarray(call(changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (np.abs(before - after)[:, 4].max(-1) > 1e-3).all()
    np.testing.assert_array_equal(before[:, 5], 0)
    np.testing.assert_array_equal(after[:, 5], 0)


def test_all_alignments_are_here():
    assert {words.split("/")[0].split("(")[0] for words in WORDS} == set(alignments.NAMES)


@pytest.mark.parametrize("words", WORDS)
def test_attention_is_that_to_the_real_keys_alone(words):
    module = Attention(words)
    variables = variables_of(module, QUERY, KEYS, VALUES, MASK)
    params = variables.get("params", {})
    hidden_keys, hidden_values = (np.where(MASK[..., None], x, 9.0) for x in (KEYS, VALUES))
    context, weights = apply(module, variables, QUERY, hidden_keys, hidden_values, MASK)
    np.testing.assert_array_equal(np.asarray(weights)[~MASK], 0)
    name = words.split("/")[0].split("(")[0]
    score = jax.jit(functools.partial(alignments.score, name))
    for row, length in enumerate(LENGTHS):
        query, keys = QUERY[row, None, None, None], KEYS[row, None, :length, None]
        scores = np.asarray(score(params, query, keys))[0, 0, 0]
        expected = scores / scores.sum() if name == "kernel" else softmax(scores)
        np.testing.assert_allclose(weights[row, :length], expected, atol=1e-6)
        np.testing.assert_allclose(context[row], expected @ VALUES[row, :length], atol=1e-5)


def test_scores_of_one_key_pick_its_state():
    keys, query = np.eye(5, 8, dtype=np.float32)[None], np.zeros((1, 8), np.float32)
    attend = {
        words: jax.jit(Attention(words).apply) for words in ("dot", "dot/sparsemax", "dot/entmax15")
    }
    for chosen in range(5):
        query[:] = 200.0 * np.eye(8)[chosen]
        for words in attend:
            everything = np.ones((1, 5), bool)
            context, weights = attend[words]({}, query, keys, VALUES[:1], everything)
            np.testing.assert_allclose(weights, np.eye(5)[None, chosen], atol=1e-6)
            np.testing.assert_allclose(context[0], VALUES[0, chosen], atol=1e-5)


def test_learned_entmax_begins_between_softmax_and_sparsemax():
    module = Attention("dot/entmax")
    variables = module.init(jax.random.key(0), QUERY, KEYS, VALUES, MASK)
    _, weights = apply(module, variables, QUERY, KEYS, VALUES, MASK)
    scores = np.where(MASK, np.einsum("bd,bnd->bn", QUERY, KEYS), normalizers.HIDDEN)
    np.testing.assert_allclose(weights, normalizers.entmax15(jnp.asarray(scores)), atol=1e-5)


@pytest.mark.parametrize("kind", ["bahdanau", "luong", "none"])
def test_padding_of_the_source_changes_no_output_and_has_no_gradient(kind):
    module = RecurrentEncoderDecoder(7, "gru", 8, attention=kind)
    variables = variables_of(module, SOURCE, TARGET)
    mask = MASK & np.array([True, True, False])[:, None]  # the last source is empty

    def total(source, mask):
        outputs = module.apply(variables, source, TARGET, source_mask=mask)
        return (outputs * TARGET).sum(), outputs

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, outputs), gradient = run(SOURCE, mask)
    (_, same), _ = run(np.where(mask[..., None], SOURCE, np.nan), mask)
    gradient = np.asarray(gradient)
    np.testing.assert_allclose(outputs, same, atol=1e-6)
    np.testing.assert_array_equal(gradient[~mask], 0)
    assert (np.abs(gradient[mask]).max(-1) > 0).all()
    assert np.isfinite(outputs).all()


def test_dropout_draws_anew_at_every_step_and_only_in_training():
    module = RecurrentEncoderDecoder(64, "rnn", 64, attention="none", dropout=0.5)
    still, target = SOURCE[:1], np.zeros((1, 3, 64), np.float32)
    variables = variables_of(module, still, target, scale=0.1)
    # An identity as the last layer shows which features were dropped.
    variables["params"]["readout"] = {"kernel": np.eye(64, dtype=np.float32), "bias": np.zeros(64)}
    variables = jax.tree.map(jnp.float32, variables)
    plain = apply(module, variables, still, target)
    rngs = {"dropout": jax.random.key(0)}
    trained = np.asarray(apply(module, variables, still, target, train=True, rngs=rngs))
    dropped = trained[0] == 0
    assert 0.3 < dropped.mean() < 0.7
    assert (dropped[0] != dropped[1]).any()
    np.testing.assert_allclose(trained[0][~dropped], 2 * plain[0][~dropped], rtol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru_thesis"])
def test_bfloat16_is_near_float32_and_answers_in_float32(cell):
    single = RecurrentEncoderDecoder(7, cell, 8)
    half = RecurrentEncoderDecoder(7, cell, 8, dtype=jnp.bfloat16)
    variables = variables_of(single, SOURCE, TARGET)
    found = apply(half, variables, SOURCE, TARGET, source_mask=MASK)
    assert found.dtype == jnp.float32
    expected = apply(single, variables, SOURCE, TARGET, source_mask=MASK)
    np.testing.assert_allclose(found, expected, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "bahdanu"}, "bahdanau, luong, none"),
        ({"cell": "lsmt"}, "Did you mean 'lstm'"),
        ({"alignment": "generl"}, "Did you mean 'general'"),
        ({"alignment": "general/fixed(3)"}, "an alignment and a normaliser only"),
        ({"alignment": "kernel"}, "kernel/linear"),
        ({"alignment": "location(3)"}, "at most 3 keys and got 5"),
    ],
)
def test_bad_options_are_answered(options, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(
            RecurrentEncoderDecoder(7, **options).init, jax.random.key(0), SOURCE, TARGET
        )
