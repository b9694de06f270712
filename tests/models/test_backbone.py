"""A backbone of one's own: its file and a line of the registry serve training, weights, export,
explanations and pruning."""

import types
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from flax import linen as nn

from jaxcxr import config as config_lib
from jaxcxr import models, registry
from jaxcxr.deploy import pruned_run
from jaxcxr.deploy.export import formats, onnx_graph, onnx_ops, torch_weights
from jaxcxr.errors import UserError
from jaxcxr.models.attention import Stack, layers
from jaxcxr.models.layers import tap
from jaxcxr.models.sequence import transformer
from jaxcxr.models.vision.classifier import ClassifierHead
from jaxcxr.models.weights import pretrained
from jaxcxr.models.weights.layouts import BACKBONE, FIRST_CONV, HEAD, Layout, linear, norm
from jaxcxr.train import loop, setup, writers
from jaxcxr.xray.explain import saliency
from tests import toys
from tests.train.runs import saved_state, toy_run

BLOCK = f"{BACKBONE}/mixers_{{}}"
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)


class Patches(nn.Module):
    """Patches, a map that explanations see, encoder blocks, mean."""

    dim: int
    depth: int
    heads: int
    patch: int
    attention: Any
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Features `[batch, dim]`."""
        size = (self.patch, self.patch)
        x = nn.Conv(self.dim, size, size, padding="VALID", dtype=self.dtype, name="stem")(images)
        x = tap(self, "stage1", x)
        grid, x = x.shape[1:3], x.reshape(x.shape[0], -1, self.dim)
        makers = layers(self.attention, self.depth, heads=self.heads, dropout=0.0,
                        dtype=self.dtype, grid=grid, global_tokens=0)
        for index, make in enumerate(makers):
            x = transformer.EncoderBlock(make, 2.0, dtype=self.dtype, name=f"mixers_{index}")(
                x, None, None, train
            )
        return x.mean(1, dtype=jnp.float32).astype(self.dtype)


class PatchMixer(nn.Module):
    """The backbone, with all that the package asks of one."""

    layouts: ClassVar = (Layout(
        entries=(
            *linear("stem", f"{BACKBONE}/stem", FIRST_CONV),
            *norm("mixer.{}.before", f"{BLOCK}/norm1"),
            *norm("mixer.{}.between", f"{BLOCK}/norm2"),
            *(entry for role in ("query", "key", "value")
              for entry in linear(f"mixer.{{}}.{role}", f"{BLOCK}/attention/{role}")),
            *linear("mixer.{}.out", f"{BLOCK}/attention/out"),
            *linear("mixer.{}.wide", f"{BLOCK}/mlp/fc1"),
            *linear("mixer.{}.narrow", f"{BLOCK}/mlp/fc2"),
            *linear("last", HEAD),
        ),
        library="mixers", head="last", fixed=("dim",),
        constructor="mixers.{name}(patch={patch}, classes={classes})",
    ),)

    classes: int = 15
    dim: int = 8
    depth: int = 2
    heads: int = 2
    patch: int = 2
    attention: str | tuple[str, ...] = "mha"
    head_width: int = 0
    dtype: Any = jnp.float32

    def setup(self):
        """Names the two groups of parameters."""
        self.backbone = Patches(
            self.dim, self.depth, self.heads, self.patch, self.attention, self.dtype
        )
        self.head = ClassifierHead(self.classes, self.head_width, 0.0, self.dtype)

    @nn.nowrap
    def stacks(self, shape: tuple[int, ...]) -> tuple[Stack, ...]:
        """The blocks over patches."""
        grid = (shape[0] // self.patch, shape[1] // self.patch)
        return (Stack("mixers", "attention", self.depth, grid[0] * grid[1], {"grid": grid}),)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `[batch, classes]`."""
        return self.head(self.backbone(images.astype(self.dtype), train), train=train)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(
        registry.MODELS, "patch_mixer", registry.Model(f"{__name__}:PatchMixer", "cxr")
    )


def made(draw, seed=0, **options):
    model = models.create("patch_mixer", classes=3, **options)
    return model, draw(model, IMAGES, seed, scale=0.3)


def test_it_is_trained_from_weights_of_its_library(draw, tmp_path):
    _, variables = made(draw)
    arrays = torch_weights.state_dict(variables, "patch_mixer")
    assert arrays["stem.weight"].shape == (8, 3, 2, 2)
    assert arrays["mixer.1.query.weight"].shape == (8, 8)
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    config = toys.xray_config(stages__all__duration="2 steps", report__samples=1)
    config_lib.set_model(config, "patch_mixer")
    config.model.pretrained = str(tmp_path / "w.safetensors")
    config.model.input.update(mean=(0.449,), std=(0.226,))
    config_lib.validate(config)
    with toy_run(devices=1):
        first = jax.device_get(setup.make(config).first_state().params)
        loop.train(config, tmp_path / "run", writers.Screen(quiet=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
                 first["backbone"], variables["params"]["backbone"])
    last = saved_state(tmp_path / "run", 2, config).params
    assert jax.tree.all(jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, first, last))
    task = toys.make_xray_task(config)
    seen = {"params": last}
    assert task.draw("validation", setup.make_model(config, task), seen, tmp_path / "run") == []
    assert (tmp_path / "run" / "report" / "attention.png").is_file()


def test_weights_come_back_and_a_missing_one_is_named(draw, tmp_path):
    _, variables = made(draw)
    arrays = torch_weights.state_dict(variables, "patch_mixer")
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    again = pretrained.load(tmp_path / "w.safetensors", variables, "patch_mixer", skip_head=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, variables)
    del arrays["mixer.0.wide.bias"]
    safetensors.numpy.save_file(arrays, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match="1 missing from the file: params/backbone/mixers_0/mlp"):
        pretrained.load(tmp_path / "less.safetensors", variables, "patch_mixer")


def test_it_is_exported_with_the_python_that_makes_it(draw, tmp_path):
    model, variables = made(draw, head_width=4)
    options = config_lib.default("cxr")
    config_lib.set_model(options, "patch_mixer", head_width=4)
    bundle = types.SimpleNamespace(
        model_name="patch_mixer", config=options, model=model, variables=variables,
        classes=("a", "b", "c"), image_size=8,
    )
    about = torch_weights.write(bundle, tmp_path / "w.safetensors")
    assert about["model"] == "mixers.patch_mixer(patch=2, classes=3)"
    saved = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert saved["last.0.weight"].shape == (4, 8)
    assert saved["last.3.weight"].shape == (3, 4)
    bundle.config.model.options.dim = 16
    with pytest.raises(UserError, match="mixers has no patch_mixer with dim=16, only with 8"):
        torch_weights.write(bundle, tmp_path / "w.safetensors")


def test_onnxruntime_computes_it(draw):
    model, variables = made(draw)
    proto = onnx_graph.model(
        lambda x: {"logits": model.apply(variables, x)},
        formats.symbolic({"x": ((8, 8, 1), np.float32)}), ("x",), onnx_ops.PRIMITIVES,
    )
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {"x": IMAGES})
    np.testing.assert_allclose(got, model.apply(variables, IMAGES), rtol=1e-4, atol=1e-5)


def test_every_kind_of_method_explains_it(draw):
    model, variables = made(draw)
    explainer = saliency.Explainer(model, variables, -1.0)
    assert explainer.methods(jnp.asarray(IMAGES)) == tuple(saliency.METHODS)
    for method in ("grad_cam", "rollout", "attention_gradient"):
        found = explainer.maps(method, jnp.asarray(IMAGES), np.array([0, 2]))
        assert found.shape == (2, 8, 8)
        assert np.ptp(found[0]) > 0


def test_its_heads_are_found_by_prune():
    config = toys.xray_config()
    config_lib.set_model(config, "patch_mixer", attention="1*static+1*fixed(1)|mha")
    (blocks,) = pruned_run._stacks(config)
    assert blocks.stack.name == "mixers"
    assert list(blocks.flexible) == [0]
    assert blocks.stack.where.rows == 4
