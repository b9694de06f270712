"""Flexible heads inside the models, by what a config says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models, registry
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M

SMALL = {"dim": 16, "depth": 2, "heads": 4}
IMAGES = np.random.default_rng(0).normal(size=(2, 48, 64, 1)).astype(np.float32)
CLIP = np.random.default_rng(1).normal(size=(2, 9, 17, 3)).astype(np.float32)


def apply(model, variables, x, **options):
    return jax.jit(lambda v, x: model.apply(v, x, **options))(variables, x)


@pytest.mark.parametrize(
    ("name", "x", "options"),
    [
        ("vit_tiny", IMAGES, {"patch": 8, "attention": "2*global+2*fixed(9)", "remat": True}),
        ("vit_tiny", IMAGES, {"patch": 8, "pool": "mean", "attention": "local_global(window=9)"}),
        ("pose_temporal", CLIP, {"attention": "1*global+3*fixed(8)"}),
        (
            "pose_spatiotemporal", CLIP,
            {"attention": "local_global(window=8)|mha", "joint_attention": "4*fixed(8)"},
        ),
    ],
)
def test_plain_weights_give_the_same_outputs_where_the_window_is_all(draw, name, x, options):
    """The largest distance is 7 patches, 8 frames, 8 hops; plain attention's tree fits as it is."""
    flexible = models.create(name, **SMALL, **options)
    rest = {k: v for k, v in options.items() if "attention" not in k}
    plain = models.create(name, **SMALL, **rest)
    variables = draw(plain, x, scale=0.3)
    found, expected = apply(flexible, variables, x), apply(plain, variables, x)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    narrow = {k: v.replace("9", "1").replace("8", "1") if "attention" in k else v
              for k, v in options.items()}
    changed = apply(models.create(name, **SMALL, **narrow), variables, x)
    assert np.abs(changed - expected).max() > 1e-3


def test_a_window_of_hops_is_one_of_bones(draw):
    """With windows of one hop and two layers, a joint does not hear of one three hops away."""
    model = models.create(
        "pose_spatiotemporal", **SMALL, attention="4*fixed(0)", joint_attention="4*fixed(1)"
    )
    assert registry.model_options("pose_spatiotemporal")["parents"] == HUMAN36M.parents
    variables = draw(model, CLIP, scale=0.3)

    def of_the_right_hip(tokens):
        return jnp.square(tokens[:, :, 1]).sum()

    def loss(noise):
        # joint_embed reaches its own joint alone; the keypoints also share a centre and an extent
        params = {**variables["params"]}
        params["backbone"] = {**params["backbone"], "joint_embed": noise}
        return of_the_right_hip(model.apply({"params": params}, CLIP))

    gradient = jax.jit(jax.grad(loss))(variables["params"]["backbone"]["joint_embed"])
    heard = {HUMAN36M.joints[j] for j in np.flatnonzero(np.abs(gradient).max(-1))}
    near = {"hip", "right_hip", "right_knee", "right_ankle", "left_hip", "spine"}
    assert heard == near


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_tiny", {"patch": 8, "attention": "2*global"}, "2 heads and the model heads=4"),
        ("vit_tiny", {"patch": 8, "attention": "local_global(windw=3)"}, "window, local"),
        (
            "pose_spatiotemporal", {"joint_attention": "4*fixed(1)", "parents": (-1, 0)},
            "17 tokens are not the 2 joints",
        ),
    ],
)
def test_errors_reach_the_user(name, options, message):
    model = models.create(name, **SMALL, **options)
    x = IMAGES if name == "vit_tiny" else CLIP
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), x)


def test_losses_come_out_of_recomputed_blocks():
    model = models.create(
        "vit_tiny", **SMALL, patch=8, remat=True,
        attention="4*adaptive(2,init=0.5,loss=0.1)/static(0.2)+cost(0,1)",
    )
    variables = model.init(jax.random.key(0), IMAGES)
    assert set(variables) == {"params"}

    @jax.jit
    def call(variables):
        rngs = {"dropout": jax.random.key(1)}
        return model.apply(variables, IMAGES, train=True, mutable=["losses"], rngs=rngs)[1]

    sown = call(variables)["losses"]["backbone"]
    assert set(sown) == {"blocks_0", "blocks_1"}
    np.testing.assert_allclose(sown["blocks_0"]["attention"]["span"], [0.05], rtol=1e-6)
    assert set(sown["blocks_1"]["attention"]) == {"span", "gate", "cost"}
