import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.attention import KINDS, layers, parse
from jaxcxr.models.attention.local import LocalBlocks2D, Longformer

ALSO_CAUSAL = {
    "mha", "local", "local_2d", "longformer", "strided", "fixed", "reformer", "transformer_xl",
    "shared",
}
SMALL = {"dim": 16, "depth": 2, "heads": 2}


def make(kinds, depth=3, **layout):
    made = layers(kinds, depth, heads=2, dropout=0.0, dtype=jnp.float32, **layout)
    return [m() for m in made]


def test_parse_reads_names_and_literals():
    assert parse(" mha ") == ("mha", {})
    assert parse("longformer(window=8, dilation=(1, 2))") == (
        "longformer", {"window": 8, "dilation": (1, 2)},
    )


@pytest.mark.parametrize("kind", ["", "a.b", "f(1)", "f(x=y)", "f(**k)", "f(x=", "1"])
def test_parse_names_what_is_no_kind(kind):
    with pytest.raises(UserError, match="neither a name"):
        parse(kind)


@pytest.mark.parametrize("kinds", ["longformer(window=8)|mha", ("longformer(window=8)", "mha")])
def test_layers_take_the_kinds_in_turn(kinds):
    first, second, third = make(kinds)
    assert first == third == Longformer(heads=2, window=8)
    assert second == KINDS["mha"](heads=2)


def test_layout_goes_where_it_is_known_and_yields_to_the_config():
    one, two, three = make(
        "local_2d|longformer(global_tokens=0)|mha", grid=(2, 3), global_tokens=1
    )
    assert one == LocalBlocks2D(heads=2, grid=(2, 3), global_tokens=1)
    assert two == Longformer(heads=2)
    assert three == KINDS["mha"](heads=2)


@pytest.mark.parametrize(("kinds", "words"), [
    ("mha|mha|mha|mha", "4 kinds of attention for 3 layers"),
    ((), "0 kinds"),
    ("longformer(windw=8)", "'windw'. Did you mean 'window'"),
    ("longformer(heads=8)", "no option 'heads'"),
    ("longformer(8)", "neither a name"),
    ("longfomer", "Did you mean 'longformer'"),
])
def test_bad_choices_are_named(kinds, words):
    with pytest.raises(UserError, match=words):
        make(kinds)


def shapes(name, shape, mask=None, **options):
    model = models.create(name, **SMALL, **options)
    x = jnp.zeros(shape)
    found = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, **({} if mask is None else
                                                                  {"mask": mask})), x)
    return found[0].shape, found[1]["params"]["backbone"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_serves_every_transformer(kind):
    mask = jnp.ones((2, 9), bool)
    if kind not in ALSO_CAUSAL:
        with pytest.raises(UserError, match="causal"):
            shapes("pose_temporal", (2, 9, 17, 3), mask, attention=kind, causal=True)
    assert shapes("vit_tiny", (2, 24, 32, 1), patch=8, attention=kind)[0] == (2, 15)
    clip = (2, 9, 17, 3)
    assert shapes("pose_temporal", clip, mask, attention=f"mha|{kind}")[0] == clip
    joints = "mha" if kind == "local_2d" else kind
    over = {"attention": kind, "joint_attention": joints}
    assert shapes("pose_spatiotemporal", clip, mask, **over)[0] == clip


def test_kinds_lie_in_their_own_blocks():
    _, params = shapes("vit_tiny", (1, 32, 32, 1), patch=8, attention="linformer|mha", remat=True)
    assert "key_projection" in params["blocks_0"]["attention"]
    assert "key_projection" not in params["blocks_1"]["attention"]


def test_the_class_token_sees_the_whole_image_through_local_blocks(draw):
    kind = "local_2d(block=1, before=0, after=0)"
    model = models.create("vit_tiny", dim=16, depth=1, heads=2, patch=8, attention=kind)
    images = np.random.default_rng(0).normal(size=(1, 24, 32, 1)).astype(np.float32)
    variables = draw(model, images, scale=0.3)
    gradient = jax.jit(jax.grad(lambda x: jnp.square(model.apply(variables, x)).sum()))(images)
    patches = np.abs(gradient).reshape(3, 8, 4, 8).max((1, 3))
    assert (patches > 0).all()
