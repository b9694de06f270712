import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcxr import config, models, registry
from jaxcxr.config import keys
from jaxcxr.config.checks import check_stage
from jaxcxr.errors import UserError
from jaxcxr.train import optim, rules

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "optim.npz")


def stage(name="radam", rate=1e-2, **optimizer):
    result = config.default_stage()
    result.learning_rate = rate
    result.optimizer.update(name=name, **optimizer)
    return result


def trajectory(settings, start, gradients):
    """Parameters [steps + 1, size] before and after each update."""
    params = {"kernel": jnp.asarray(start, jnp.float32)}
    optimizer, _ = optim.make_optimizer(settings, params, len(gradients))

    @jax.jit
    def run(params, gradients):
        def step(carry, gradient):
            params, state = carry
            updates, state = optimizer.update({"kernel": gradient}, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params["kernel"]

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]

    history = run(params, jnp.asarray(gradients, jnp.float32))
    return np.concatenate([params["kernel"][None], history])


ALL = ((".*", True),)  # the parameter of torch's trajectories is a vector
GOLDEN_STAGES = {
    "radam": (stage("radam", weight_decay=0.1, decay_rules=ALL), 1e-6),
    "radam_b2_099": (stage("radam", b2=0.99), 1e-6),
    # optax computes 1 - b2^t in float32, which costs Adam digits in its first updates.
    "adamw": (stage("adamw", weight_decay=0.1, decay_rules=ALL), 2e-5),
    "adam": (stage("adam", weight_decay=0.1, decay_rules=ALL), 2e-5),
    "sgd": (stage("sgd", weight_decay=0.1, decay_rules=ALL), 1e-6),
    "nesterov": (stage("sgd", nesterov=True), 1e-6),
}


@pytest.mark.parametrize("name", GOLDEN_STAGES)
def test_trajectories_are_those_of_torch(name):
    settings, tolerance = GOLDEN_STAGES[name]
    ours = trajectory(settings, GOLDEN["start"], GOLDEN["gradients"])
    scale = np.abs(GOLDEN[name]).max(axis=0)
    assert np.abs((ours - GOLDEN[name]) / scale).max() < tolerance


def test_each_radam_update_is_torchs(agree):
    theirs = -np.diff(GOLDEN["radam_b2_099"], axis=0) / 1e-2
    radam = optim.scale_by_radam(b2=0.99)
    state = radam.init(jnp.asarray(GOLDEN["start"], jnp.float32))
    update = jax.jit(radam.update)
    for gradient, expected in zip(GOLDEN["gradients"], theirs, strict=True):
        ours, state = update(jnp.asarray(gradient, jnp.float32), state)
        # The moments are sums of both signs: digits are counted from the moment's size.
        agree("RAdam against torch over 50 steps, relative to the largest update", ours, expected,
              1e-6, np.abs(expected).max())


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999, 0.9999])
def test_rectification_has_all_digits_from_the_first_update(b2):
    t = np.arange(1, 5001)
    b2_long = np.longdouble(b2)
    power, end = b2_long ** t.astype(np.longdouble), 2 / (1 - b2_long) - 1
    rho = end - 2 * t * power / (1 - power)
    root = ((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))[rho > 5] ** 0.5
    rectify, factor = optim.rectification(jnp.asarray(t, jnp.float32), b2)
    np.testing.assert_array_equal(rectify, rho > 5)
    np.testing.assert_allclose(factor[rho > 5], root.astype(float), rtol=5e-7)
    np.testing.assert_array_equal(factor[rho <= 5], 1)


def test_radam_survives_nan_debugging_and_short_memory():
    gradients = np.ones((8, 3))
    with jax.debug_nans(True):
        assert np.isfinite(trajectory(stage("radam"), np.ones(3), gradients)).all()
    # b2 = 0.5 never reaches a tractable length: plain momentum for ever.
    ours = trajectory(stage("radam", b2=0.5), np.zeros(3), gradients)
    np.testing.assert_allclose(ours[:, 0], -0.01 * np.arange(9), rtol=1e-5)


def test_radam_equals_optax_where_optax_has_enough_digits():
    settings = stage("radam", b2=0.9, eps=1e-30)
    ours = trajectory(settings, GOLDEN["start"], GOLDEN["gradients"])
    theirs = optax.radam(1e-2, b2=0.9, eps=1e-30)
    params = jnp.asarray(GOLDEN["start"], jnp.float32)
    state = theirs.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for gradient in jnp.asarray(GOLDEN["gradients"], jnp.float32):
            updates, state = jax.jit(theirs.update)(gradient, state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(ours[-1], params, rtol=1e-4, atol=1e-6)


def network():
    leaf, matrix = jnp.ones(2), jnp.ones((2, 2))
    return {
        "backbone": {
            "conv": {"kernel": matrix, "bias": leaf},
            "norm": {"scale": leaf, "bias": leaf},
            "pos_embed": matrix,
            "position_embedding": {"embedding": matrix},
            "cls": matrix,
            "pose_in": {"kernel": matrix},
        },
        "head": {"kernel": matrix, "bias": leaf},
    }


def updates_of(settings, params, gradients):
    optimizer, _ = optim.make_optimizer(settings, params, 10)
    return optimizer.update(gradients, optimizer.init(params), params)[0]


def test_default_decay_spares_biases_norms_positions_and_class_token():
    params = network()
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = updates_of(stage("sgd", rate=1.0, weight_decay=0.5), params, zeros)
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, update in jax.tree_util.tree_leaves_with_path(updates)
        if np.any(update != 0)
    }
    assert decayed == {"backbone/conv/kernel", "backbone/pose_in/kernel", "head/kernel"}
    np.testing.assert_allclose(updates["head"]["kernel"], -0.5)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet18", {"classes": 2}, (1, 32, 32, 1)),
        ("vit_tiny", {"classes": 2}, (1, 32, 32, 1)),
        ("pose_spatiotemporal", {"positions": "learned"}, (1, 3, 17, 3)),
    ],
)
def test_default_decay_meets_the_weight_matrices_of_the_models_and_nothing_else(
    name, options, shape
):
    model = models.create(name, **options)
    seeds = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    params = jax.eval_shape(lambda: model.init(seeds, jnp.zeros(shape), train=False))["params"]
    values = optim.decay_factors(keys.DECAY, params)
    decayed = dict(zip(rules.paths(params), jax.tree.leaves(values), strict=True))
    assert decayed == {path: path.endswith("/kernel") for path in decayed}
    assert any(decayed.values())


SHAPES = {"xray": (1, 112, 112, 1), "pose": (1, 5, 17, 3)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in registry.MODELS),
        ("vit_tiny", {"scan": True}),
        ("vit_tiny", {"attention": "1*linear/kernel+1*adaptive(2,init=0.5)/entmax/static/table+"
                                   "1*similarity/talking/token", "depth": 2}),
        ("pose_temporal", {"scan": True}),
        ("pose_seq2seq", {"attention": "luong"}),
    ],
)
def test_default_decay_of_all_models_is_that_of_their_names_alone(name, options):
    """Of no model of ours does a vector depend on the rule of dimensions: names said it before."""
    model = models.create(name, **options)
    x = jnp.zeros(SHAPES["pose" if name.startswith("pose") else "xray"])
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    by_name = (*keys.DECAY[:-1], (r".*", True))
    assert keys.DECAY[-1] == (r".*", "matrices")
    found = jax.tree.leaves(optim.decay_factors(keys.DECAY, params))
    expected = jax.tree.leaves(rules.match_rules(by_name, params))
    assert found == expected, [
        path for path, one, other in zip(rules.paths(params), found, expected, strict=True)
        if one != other
    ]


def test_a_layer_scale_is_decayed_only_by_a_rule_that_names_it():
    vector, matrix = jnp.ones(4), jnp.ones((4, 4))
    block = {"layer_scale": vector, "mlp": {"kernel": matrix}}
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), block)
    params = {"backbone": {"block_0": block, "encoder": {"blocks": stack}}}
    gradients = jax.tree.map(jnp.zeros_like, params)

    def decayed(**options):
        updates = updates_of(stage("adamw", 1.0, weight_decay=0.5, **options), params, gradients)
        flat = zip(rules.paths(updates), jax.tree.leaves(updates), strict=True)
        return {path.removeprefix("backbone/") for path, update in flat if np.any(update != 0)}

    kernels = {"block_0/mlp/kernel", "encoder/blocks/mlp/kernel"}
    assert decayed() == kernels
    assert decayed(decay_rules=(("layer_scale", True), (".*", "matrices"))) == {
        *kernels, "block_0/layer_scale", "encoder/blocks/layer_scale",
    }
    assert decayed(decay_rules=(("layer_scale", 0.1), (".*", False))) == {
        "block_0/layer_scale", "encoder/blocks/layer_scale",
    }


def flexible():
    """Parameters of a layer of flexible heads, shapes only."""
    model = models.create(
        "pose_temporal", dim=16, depth=1, heads=4,
        attention="2*adaptive(2,init=0.5)/entmax/static/table+2*similarity/talking/token",
    )
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 3, 17, 3))))["params"]


def test_what_heads_learn_beside_weights_is_not_decayed_and_learns_faster():
    params = flexible()
    decayed = jax.tree.leaves(optim.decay_factors(keys.DECAY, params))
    rates = jax.tree.leaves(rules.match_rules(keys.MULTIPLIERS, params))
    for path, decay, rate in zip(rules.paths(params), decayed, rates, strict=True):
        assert decay == path.endswith("/kernel"), path
        assert (rate == 10) == path.endswith(("/span", "/alpha", "/gate")), path
    group = params["backbone"]["blocks_0"]["attention"]
    assert set(group["group_0"]) == {"span", "alpha", "gate", "table"}
    assert set(group["group_1"]) == {"log_scale", "talk_scores", "talk_weights"}


def test_spans_stay_between_0_and_1_and_nothing_else_is_held():
    def tree(values):
        values = jnp.array(values, jnp.float32)
        return {"group_0": {"span": values, "gate": values}, "group_0_span": {"bias": values}}

    params = tree([0.05, 0.5, 0.98])
    settings = stage("sgd", rate=0.1, momentum=0.0)
    optimizer, _ = optim.make_optimizer(settings, params, 10)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(tree([1.0, 0.01, -1.0]), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["group_0"]["span"], [0, 0.47, 1], atol=1e-6)
    np.testing.assert_allclose(params["group_0"]["gate"], [-2.95, 0.47, 3.98], rtol=1e-5)
    np.testing.assert_allclose(params["group_0_span"]["bias"], [-0.25, 0.497, 1.28], rtol=1e-5)
    # Back from the edge at once.
    updates, state = optimizer.update(tree([-0.1, 0.0, 0.1]), state, params)
    np.testing.assert_allclose(updates["group_0"]["span"], [0.1, 0, -0.1], atol=1e-6)


def test_decay_factors_and_multipliers_scale_their_parameters():
    params = network()
    zeros = jax.tree.map(jnp.zeros_like, params)
    factors = (("head/kernel", 0.5), (".*", False))
    updates = updates_of(stage("adamw", 1.0, weight_decay=0.2, decay_rules=factors), params, zeros)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1, rtol=1e-6)
    np.testing.assert_array_equal(updates["backbone"]["conv"]["kernel"], 0)

    multipliers = (("^backbone", 0.1), (".*", 1.0))
    ones = jax.tree.map(jnp.ones_like, params)
    updates = updates_of(stage("sgd", 1.0, multiplier_rules=multipliers), params, ones)
    np.testing.assert_allclose(updates["backbone"]["norm"]["scale"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["bias"], -1, rtol=1e-6)


def test_unmatched_parameter_is_named():
    with pytest.raises(UserError, match=r"optimizer.multiplier_rules: .* head/bias, head/kernel"):
        optim.make_optimizer(stage(multiplier_rules=(("^backbone", 1.0),)), network(), 10)
    with pytest.raises(UserError, match=r"optimizer.decay_rules"):
        optim.make_optimizer(stage(decay_rules=()), network(), 10)


def test_clipping_is_by_the_norm_of_the_whole_tree():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    updates = updates_of(stage("sgd", 1.0, clip_norm=1.0), params, gradients)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6)
    updates = updates_of(stage("sgd", 1.0, clip_norm=6.0), params, gradients)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-3, -4], rtol=1e-6)


def test_updates_follow_the_returned_schedule():
    settings = stage("sgd", 0.5, momentum=0.0)
    settings.warmup.update(name="linear", steps=4)
    settings.decay.update(name="step", boundaries=(0.6,), factor=0.5)
    check_stage(settings, "stage")
    ours = trajectory(settings, np.zeros(1), np.ones((10, 1)))
    _, schedule = optim.make_optimizer(settings, {"kernel": jnp.zeros(1)}, 10)
    np.testing.assert_allclose(-np.diff(ours[:, 0]), schedule(jnp.arange(10)), rtol=1e-5)
    expected = 0.5 * np.array([0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(schedule(jnp.arange(10)), expected, rtol=1e-6)


@pytest.mark.oracles
@pytest.mark.parametrize("b2", [0.99, 0.999])
def test_radam_is_torchs_over_fifty_updates(b2):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=20), rng.normal(size=(50, 20))
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.RAdam(
        [param], lr=1e-2, betas=(0.9, b2), weight_decay=0.1, decoupled_weight_decay=True
    )
    theirs = [start]
    for gradient in gradients:
        param.grad = torch.tensor(gradient)
        optimizer.step()
        theirs.append(param.detach().numpy().copy())
    ours = trajectory(stage("radam", b2=b2, weight_decay=0.1, decay_rules=ALL), start, gradients)
    assert np.abs(ours - np.stack(theirs)).max() < 1e-6 * np.abs(theirs).max()
