import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention, layers, shared
from jaxcxr.models.attention.shared import SharedAttention
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

X = normal(2, 9, 16)
KEYS = np.random.default_rng(1).random((2, 1, 1, 9)) < 0.8


def test_the_leader_is_plain_attention_and_hands_on_its_weights(draw):
    module = SharedAttention(heads=4)
    variables = draw(module, X, scale=0.4)
    found, weights = module.apply(variables, X, mask=KEYS)
    expected = MultiHeadAttention(heads=4).apply(variables, X, mask=KEYS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert weights.shape == (2, 4, 9, 9)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert np.asarray(weights)[np.broadcast_to(~KEYS, weights.shape)].max() == 0


def test_a_follower_mixes_its_own_values_by_the_weights_of_the_leader(draw):
    weights = jax.nn.softmax(normal(2, 4, 9, 9, seed=3))
    module = SharedAttention(heads=4, leads=False)
    params = draw(SharedAttention(heads=4), X, scale=0.4)["params"]
    own = {name: params[name] for name in ("value", "out")}
    found, same = module.apply({"params": own}, X, weights=weights)
    np.testing.assert_array_equal(same, weights)
    value = oracles.heads_of(params, X)[2]
    expected = oracles.output(params, np.einsum("bhqk,bkhd->bqhd", weights, value))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserError, match="does not lead"):
        module.apply({"params": own}, X)


@pytest.mark.parametrize(("kinds", "expected"), [
    ("shared", [True, False, True, False]),
    ("shared(size=3)", [True, False, False, True]),
    ("shared(size=1)", [True] * 4),
    ("shared|mha|shared|shared", [True, None, True, False]),
    (shared.kinds_of([2, 1, 1]), [True, False, True, True]),
])
def test_groups_of_neighbours_have_one_leader(kinds, expected):
    made = [m() for m in layers(kinds, 4, heads=2, dropout=0.0, dtype=jnp.float32)]
    assert [getattr(module, "leads", None) for module in made] == expected


def vit(**options):
    return models.create("vit_tiny", dim=16, depth=2, heads=2, patch=8, **options)


def test_groups_of_one_are_a_plain_model_and_larger_groups_share(draw):
    images = normal(2, 24, 24, 1)
    plain, single = vit(), vit(attention="shared(size=1)")
    variables = draw(plain, images, scale=0.3)
    expected = jax.jit(plain.apply)(variables, images)
    np.testing.assert_allclose(jax.jit(single.apply)(variables, images), expected, atol=1e-6)

    pair = vit(attention="shared", remat=True)
    found = draw(pair, images, scale=0.3)["params"]["backbone"]
    assert set(found["blocks_0"]["attention"]) == {"query", "key", "value", "out"}
    assert set(found["blocks_1"]["attention"]) == {"value", "out"}
    params = {"backbone": variables["params"]["backbone"] | {
        "blocks_1": {**variables["params"]["backbone"]["blocks_1"], "attention": {
            name: variables["params"]["backbone"]["blocks_1"]["attention"][name]
            for name in ("value", "out")
        }}
    }, "head": variables["params"]["head"]}

    def loss(params):
        return jnp.square(pair.apply({"params": params}, images)).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert abs(value - jnp.square(expected).mean()) > 1e-6
    query = gradient["backbone"]["blocks_0"]["attention"]["query"]["kernel"]
    assert np.abs(query).max() > 0


def test_sharing_skips_the_scores():
    x = jax.ShapeDtypeStruct((1, 256, 16), jnp.float32)
    weights = jax.ShapeDtypeStruct((1, 2, 256, 256), jnp.float32)
    found = []
    for leads in (True, False):
        module = SharedAttention(heads=2, leads=leads)

        def apply(variables, x, weights, module=module):
            return module.apply(variables, x, weights=weights)

        variables = jax.eval_shape(
            lambda x, w, m=module: m.init(jax.random.key(0), x, weights=w), x, weights
        )
        found.append(oracles.flops(apply, variables, x, weights))
    assert found[1] < 0.6 * found[0]


def test_similarity_is_that_of_scipy():
    maps = np.random.default_rng(0).dirichlet(np.ones(5), (3, 2, 4, 6))
    valid = np.random.default_rng(1).random((2, 6)) < 0.7
    found = shared.similarities(maps, valid)
    for i in range(3):
        for j in range(3):
            each = jensenshannon(maps[i], maps[j], base=2, axis=-1) ** 2
            expected = 1 - each.mean(1)[valid].mean()
            np.testing.assert_allclose(found[i, j], expected, atol=1e-7)
    apart = np.stack([np.eye(4)[[0, 0]], np.eye(4)[[3, 3]]])[:, None, None]
    np.testing.assert_allclose(shared.similarities(apart), np.eye(2), atol=1e-12)


def test_grouping_takes_neighbours_while_their_mean_similarity_holds():
    alike = np.array([
        [1.0, 0.9, 0.4, 0.1],
        [0.9, 1.0, 0.8, 0.1],
        [0.4, 0.8, 1.0, 0.6],
        [0.1, 0.1, 0.6, 1.0],
    ])
    assert shared.group_layers(alike, 0.85) == [2, 1, 1]
    # (0.9 + 0.4 + 0.8) / 3 = 0.7 for the first three.
    assert shared.group_layers(alike, 0.69) == [3, 1]
    assert shared.group_layers(alike, 0.71) == [2, 1, 1]
    assert shared.group_layers(alike, 0.55) == [3, 1]
    assert shared.group_layers(alike, 0.0) == [4]
    assert shared.group_layers(alike, 0.95) == [1, 1, 1, 1]
    assert shared.kinds_of([2, 1]) == "shared(size=2)|shared(size=2)|shared(size=1)"
