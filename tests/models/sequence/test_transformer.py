import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import erf, softmax

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention, factory
from jaxcxr.models.sequence import transformer

X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)


def block(**options):
    make = functools.partial(MultiHeadAttention, heads=2)
    return transformer.EncoderBlock(attention=make, **options)


def test_layer_norm_parameters_lie_directly_under_its_name(draw):
    variables = draw(block(), X)
    assert set(variables["params"]) == {"norm1", "attention", "norm2", "mlp"}
    assert set(variables["params"]["norm1"]) == {"scale", "bias"}
    assert variables["params"]["mlp"]["fc1"]["kernel"].shape == (8, 32)


def test_drop_path_drops_whole_examples_and_rescales():
    x = np.ones((4000, 2, 3), np.float32)
    drop = transformer.DropPath(0.25)
    y = np.asarray(drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
    assert (y == y[:, :1, :1]).all()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 0.04
    np.testing.assert_array_equal(drop.apply({}, x, train=False), x)


def test_drop_path_rates_rise_from_zero():
    np.testing.assert_allclose(transformer.drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert transformer.drop_path_rates(0.3, 1) == [0.0]


def test_causal_mask_hides_what_comes_later(draw):
    module = block()
    variables, mask = draw(module, X, scale=0.5), transformer.causal_mask(5)
    changed = X.copy()
    changed[:, 3:] += 1.0
    before, after = (module.apply(variables, x, mask) for x in (X, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 0.1


def test_block_is_equivariant_to_the_order_of_tokens(draw):
    module, order = block(), np.array([3, 1, 4, 0, 2])
    variables = draw(module, X, scale=0.5)
    np.testing.assert_allclose(
        module.apply(variables, X[:, order]), module.apply(variables, X)[:, order], atol=1e-5
    )


def test_remat_changes_neither_parameters_nor_gradients(draw):
    make = factory("mha", heads=2, dropout=0.0, dtype=np.float32)
    plain, remat = (transformer.encoder_block(flag)(make) for flag in (False, True))
    variables = draw(plain, X)

    def gradient(module):
        def loss(variables):
            return (module.apply(variables, X, None, None, True) ** 2).mean()

        return jax.jit(jax.grad(loss))(variables)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(plain), gradient(remat)
    )


def normalised(x, params):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


def attention_in_numpy(x, params):
    query, key, value = (
        np.einsum("bnd,dhw->bnhw", x, params[name]["kernel"]) + params[name]["bias"]
        for name in ("query", "key", "value")
    )
    weights = softmax(np.einsum("bqhw,bkhw->bhqk", query, key) / np.sqrt(query.shape[-1]), -1)
    mixed = np.einsum("bhqk,bkhw->bqhw", weights, value)
    return np.einsum("bqhw,hwd->bqd", mixed, params["out"]["kernel"]) + params["out"]["bias"]


def mlp_in_numpy(x, params):
    y = x @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    y = y * (1 + erf(y / np.sqrt(2))) / 2
    return y @ params["fc2"]["kernel"] + params["fc2"]["bias"]


@pytest.mark.parametrize("norm", transformer.NORMS)
def test_block_is_the_formula_of_its_norm(draw, norm):
    module = block(norm=norm)
    variables = draw(module, X, scale=0.3)
    params, x = variables["params"], X.astype(np.float64)
    attend = functools.partial(attention_in_numpy, params=params["attention"])
    mlp = functools.partial(mlp_in_numpy, params=params["mlp"])
    if norm == "pre":
        x = x + attend(normalised(x, params["norm1"]))
        x = x + mlp(normalised(x, params["norm2"]))
    elif norm == "post":
        x = normalised(x + attend(x), params["norm1"])
        x = normalised(x + mlp(x), params["norm2"])
    else:
        assert set(params) == {"attention", "mlp"}
        x = x + attend(x)
        x = x + mlp(x)
    np.testing.assert_allclose(module.apply(variables, X), x, atol=2e-5)


def test_another_norm_is_refused():
    with pytest.raises(UserError, match="norm='rms' is not known; use one of pre, post, tfixup"):
        jax.eval_shape(block(norm="rms").init, jax.random.key(0), X)


def test_scales_of_tfixup_at_six_layers():
    np.testing.assert_allclose(transformer.tfixup_scale(6), 0.4281, atol=1e-4)
    np.testing.assert_allclose(transformer.tfixup_scale(6, decoder=True), 0.3689, atol=1e-4)


def block_parameters(kind, norm, remat=False):
    """Initial kernels of two neighbouring blocks of width 128 in a stack of six, by name."""
    make = factory(kind, heads=2, dropout=0.0, dtype=np.float32)
    module = transformer.encoder_block(remat)(make, norm=norm, layers=6)
    x = np.zeros((1, 3, 128), np.float32)
    params = jax.jit(lambda: module.init(jax.random.key(0), x, None, None, False))()["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path[-2].key: leaf for path, leaf in leaves if path[-1].key == "kernel"}


@pytest.mark.parametrize(
    ("kind", "remat"), [("mha", True), ("1*global+1*fixed(1)", False), ("shared", False)]
)
def test_tfixup_scales_values_outputs_and_mlp_once(kind, remat):
    scaled = block_parameters(kind, "tfixup", remat)
    assert set(scaled) == {"query", "key", "value", "out", "fc1", "fc2"}
    for name, kernel in scaled.items():
        fans = 128 + (512 if name.startswith("fc") else 128)
        factor = 1 if name in ("query", "key") else 0.67 * 6**-0.25
        np.testing.assert_allclose(kernel.std(), factor * np.sqrt(2 / fans), rtol=0.02)
    # The draws are those of the other styles, so that only the scale differs.
    plain = block_parameters(kind, "pre", remat)
    for name, kernel in scaled.items():
        factor = 1 if name in ("query", "key") else transformer.tfixup_scale(6)
        np.testing.assert_allclose(kernel, factor * plain[name], rtol=1e-5)


def test_twelve_layers_of_tfixup_train_without_warm_up():
    """Adam at its full rate from the first step; nothing is normalised anywhere."""
    model = models.create("pose_temporal", dim=32, heads=2, depth=12, norm="tfixup", drop_path=0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5, 17, 3)).astype(np.float32)
    y = rng.normal(size=(8, 5, 17, 3)).astype(np.float32) * 0.3
    optimizer = optax.adam(1e-3)

    def loss(params):
        return ((model.apply({"params": params}, x, train=True) - y) ** 2).mean()

    @jax.jit
    def train():
        params = model.init(jax.random.key(0), x)["params"]

        def step(state, _):
            params, moments = state
            value, gradient = jax.value_and_grad(loss)(params)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), value

        return params, jax.lax.scan(step, (params, optimizer.init(params)), length=30)[1]

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its dtypes
        params, losses = train()
    names = {path[-2].key for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert not any(name.startswith("norm") for name in names)
    assert jnp.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("vit_tiny", (1, 16, 16, 1), {"patch": 8}),
        ("pose_temporal", (1, 3, 17, 3), {"positions": "learned"}),
        ("pose_spatiotemporal", (1, 3, 17, 3), {}),
    ],
)
def test_models_take_the_norm_from_their_options(name, shape, options):
    def shapes(**more):
        model = models.create(name, dim=16, heads=2, depth=2, **options, **more)
        return jax.eval_shape(model.init, jax.random.key(0), np.zeros(shape, np.float32))

    backbone = shapes()["params"]["backbone"]
    assert jax.tree.structure(shapes(norm="pre")["params"]["backbone"]) == jax.tree.structure(
        backbone
    )
    # Post-LN has the same blocks and needs no norm behind them; T-Fixup has none at all.
    post = shapes(norm="post")["params"]["backbone"]
    assert set(backbone) - set(post) == {"norm"}
    assert all(jax.tree.structure(post[k]) == jax.tree.structure(backbone[k]) for k in post)
    paths = jax.tree_util.tree_leaves_with_path(shapes(norm="tfixup"))
    assert not any("norm" in jax.tree_util.keystr(path) for path, _ in paths)


def test_tfixup_draws_positions_with_the_width():
    def table(norm):
        model = models.create("vit_tiny", dim=64, heads=2, depth=1, patch=8, norm=norm)
        image = np.zeros((1, 80, 80, 1), np.float32)
        params = jax.jit(model.init)(jax.random.key(0), image)["params"]["backbone"]
        return params["pos_embed"], params["cls_token"]

    positions, token = table("tfixup")
    np.testing.assert_allclose(positions.std(), 64**-0.5, rtol=0.05)
    np.testing.assert_allclose(token.std(), 64**-0.5, rtol=0.3)
    assert not table("pre")[1].any()
