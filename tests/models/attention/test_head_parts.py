import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from jaxcxr.errors import UserError
from jaxcxr.models.attention import head_parts
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import Grid, TokenSequence
from jaxcxr.models.attention.groups import parse_groups


def test_evaluation_gates_are_exactly_open_and_shut_beyond_log_11():
    edge = np.log(11)
    log_alpha = jnp.array([edge + 1e-3, -edge - 1e-3, 0.0, head_parts.OPEN_GATE], jnp.float32)
    np.testing.assert_array_equal(head_parts.hard_concrete(log_alpha), [1, 0, 0.5, 1])


def test_the_open_probability_is_the_share_of_drawn_gates_that_are_open():
    log_alpha = jnp.array([-2.0, 0.0, 1.5])
    many = jnp.broadcast_to(log_alpha, (20000, 3))
    drawn = np.asarray(head_parts.hard_concrete(many, jax.random.key(0)))
    assert drawn.min() == 0
    assert drawn.max() == 1
    share = (drawn > 0).mean(0)
    expected = head_parts.open_probability(log_alpha)
    np.testing.assert_allclose(expected, expit(np.array([-2, 0, 1.5]) + 0.791), atol=1e-3)
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(20000))


def test_gates_of_zero_logits_are_open():
    np.testing.assert_array_equal(head_parts.soft_gates(jnp.zeros(3)), 1)


LENGTH = 12
X = np.random.default_rng(0).normal(size=(2, LENGTH, 16)).astype(np.float32)
CAUSAL = np.tril(np.ones((1, 1, LENGTH, LENGTH), bool))
PADDING = (np.arange(LENGTH) != [[3], [LENGTH]])[:, None, None]


def pair(text):
    """The module at once and token by token, random weights, and an empty cache."""
    module = FlexibleHeadAttention(parse_groups(text)[0])
    stepwise = module.clone(decode=True)
    shapes = jax.eval_shape(lambda: stepwise.init(jax.random.key(0), X))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda s: rng.normal(scale=0.5, size=s.shape).astype(s.dtype), shapes["params"]
    )
    empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes["cache"])
    return module, stepwise, params, empty


def decoded(module, params, kept, sizes, mask=None):
    """Outputs of calls with so many tokens each, joined."""

    @jax.jit
    def step(kept, x):
        return module.apply(
            {"params": params, "cache": kept}, x, mask=mask, mutable=["cache", "attention"]
        )

    outputs = []
    for piece in np.split(X, np.cumsum(sizes)[:-1], 1):
        out, new = step(kept, piece)
        assert set(new) == {"cache"}
        kept = new["cache"]
        outputs.append(out)
    return np.concatenate(outputs, 1)


@pytest.mark.parametrize(
    "text",
    [
        "2*global+2*fixed(3)",
        "2*ramped(2.5,1.5)/alibi+2*adaptive(2)/table",
        "2*adaptive(1,limit=4)/sparsemax/static+2*dynamic(1)/entmax15/token",
        "2*dynamic(1,limit=3)/entmax/qk_norm+2*sigmoid/fixed(4)/element",
        "2*quasi/fixed(2)+2*kernel/linear",
        "2*feature/fixed(3)+2*additive/talking/fixed(0)",
        "1*dim(8,4)/general/fixed(5)+2*dim(4)/similarity/sigmoid",
    ],
)
def test_token_by_token_is_all_at_once(text):
    module, stepwise, params, empty = pair(text)
    expected = jax.jit(module.apply)({"params": params}, X, mask=CAUSAL)
    found = decoded(stepwise, params, empty, [1] * LENGTH)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_several_tokens_at_a_time_and_padding():
    module, stepwise, params, empty = pair("2*fixed(3)/alibi+2*entmax15")
    mask = CAUSAL & PADDING
    expected = module.apply({"params": params}, X, mask=mask)
    found = decoded(stepwise, params, empty, [4, 3, 4, 1], mask=PADDING)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_bounded_span_keeps_what_it_reaches():
    *_, empty = pair("1*global+1*fixed(3)+2*ramped(4.5,1.5)")
    kept = [empty[f"group_{index}_cache"]["cached_key"].shape[1] for index in range(3)]
    assert kept == [LENGTH, 3, 5]


def test_a_memory_needs_no_cache():
    module, stepwise, params, _ = pair("4*global")
    expected = module.apply({"params": params}, X, X[:, :5])
    np.testing.assert_array_equal(stepwise.apply({"params": params}, X, X[:, :5]), expected)


def test_what_cannot_be_decoded():
    def call(text, *memory, **options):
        module = FlexibleHeadAttention(parse_groups(text)[0], decode=True)
        module.init(jax.random.key(0), X, *memory, **options)

    with pytest.raises(UserError, match="'location'"):
        call("4*location(12)")
    with pytest.raises(UserError, match="Grid do not come one after another"):
        call("4*fixed(1)", distance=Grid(3, 4))
    with pytest.raises(UserError, match="distances to a memory"):
        call("4*fixed(1)", X, distance=TokenSequence())
    with pytest.raises(UserError, match="inference"):
        call("4*global", train=True)
