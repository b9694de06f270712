"""Exports against what reads them: onnxruntime, a fresh process, our own reader of torch files."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from jaxcxr import __main__ as command
from jaxcxr import models
from jaxcxr.deploy.bundle import Bundle
from jaxcxr.deploy.export import formats, onnx_graph, onnx_ops, torch_weights
from jaxcxr.errors import UserError
from jaxcxr.models.weights import pretrained
from jaxcxr.xray.evaluation.calibration import Calibration

SMALL_VIT = {"dim": 16, "depth": 2, "heads": 2, "patch": 8}
IMAGES = {"images": ((32, 32, 1), np.float32)}


def varied(model, *inputs, **options):
    """Variables of a model, none of them at its initial zero or one."""
    shapes = jax.eval_shape(lambda key: model.init(key, *inputs, **options), jax.random.key(0))
    rng = np.random.default_rng(0)
    return {
        name: jax.tree.map(
            lambda s, low=low: rng.uniform(low, 0.3, s.shape).astype(np.float32), shapes[name])
        for name, low in (("params", -0.2), ("batch_stats", 0.1)) if name in shapes
    }


def to_onnx(compute, shapes):
    return onnx_graph.model(
        compute, formats.symbolic(shapes), tuple(shapes), onnx_ops.PRIMITIVES
    )


def run_onnx(proto, **inputs):
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize(("name", "options"), [
    ("resnet18", {"stages": (1, 1), "width": 4}),
    ("densenet121", {"stages": (2, 1), "growth": 4, "width": 8, "head_width": 0}),
    ("vit_tiny", SMALL_VIT),
    ("vit_tiny", {**SMALL_VIT, "scan": True, "pool": "mean", "positions": "sinusoidal"}),
    ("dinov2_small", {**SMALL_VIT, "registers": 2}),
    ("convnext_tiny", {"stages": (1, 1), "widths": (8, 16)}),
    ("swin_tiny", {"dim": 8, "stages": (2, 2), "heads": (2, 4), "window": 3}),
    ("vit_tiny", {**SMALL_VIT, "depth": 1, "attention": "1*global+1*fixed(2)/entmax15"}),
])
def test_onnxruntime_computes_what_the_model_does_for_any_batch(name, options):
    model = models.create(name, classes=3, **options)
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 1)).astype(np.float32)
    variables = varied(model, images)

    def compute(images):
        return {"logits": model.apply(variables, images, train=False)}

    proto = to_onnx(compute, IMAGES)
    expected = np.asarray(jax.jit(compute)(images)["logits"])
    assert np.abs(expected - expected[:1]).max() > 1e-3
    for batch in (1, 4):
        got = run_onnx(proto, images=images[:batch])["logits"]
        np.testing.assert_allclose(got, expected[:batch], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "densenet121", "vit_small"])
def test_full_size_models_to_1e_4(record, name):
    model = models.create(name, classes=15)
    images = np.random.default_rng(1).normal(size=(2, 224, 224, 1)).astype(np.float32)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), images))

    def compute(images):
        return {"logits": model.apply(variables, images, train=False)}

    shapes = {"images": ((224, 224, 1), np.float32)}
    proto = to_onnx(compute, shapes)
    expected = np.asarray(jax.jit(compute)(images)["logits"])
    got = run_onnx(proto, images=images)["logits"]
    record(
        "export_full_size",
        (name, f"{np.abs(got - expected).max():.1e}", f"{np.abs(expected).max():.1f}"),
        columns=("model", "largest difference", "largest logit"),
        note="Random weights, images of 224 px, ONNX by onnxruntime.",
    )
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_poses_and_their_mask_are_exported_too():
    model = models.create("pose_temporal", dim=16, depth=1, heads=2)
    shapes = {"keypoints": ((9, 17, 3), np.float32), "mask": ((9,), np.bool_)}
    keypoints, mask = formats.examples(shapes, 3)
    variables = varied(model, keypoints, mask=mask, train=False)

    def compute(keypoints, mask):
        return {"joints": model.apply(variables, keypoints, mask=mask, train=False)}

    proto = to_onnx(compute, shapes)
    got = run_onnx(proto, keypoints=keypoints, mask=mask)["joints"]
    expected = np.asarray(jax.jit(compute)(keypoints, mask)["joints"])
    np.testing.assert_allclose(got[mask], expected[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compute", [
    lambda x: x.at[:, 2:4].add(x[:, :2]),
    lambda x: jnp.cumsum(jnp.pad(x, ((0, 0), (1, 2)), constant_values=0.5), 1, dtype=jnp.float32),
    lambda x: jnp.clip(jnp.log1p(jnp.abs(x)), 0.1, 0.5) * jnp.sign(x) - jnp.expm1(x),
    lambda x: jnp.where(jnp.argmax(x, 1)[:, None] != jnp.arange(6), x**3, jnp.float32(2)),
    lambda x: jax.lax.scan(lambda c, w: (c * w + x, c.sum(1)), x, jnp.arange(3.0))[1].T,
    lambda x: jax.lax.scan(lambda c, w: (c * w + x, c), x, jnp.arange(3.0), reverse=True)[0],
    lambda x: jax.lax.scan(lambda c, _: (c * x[:, :1], None), x, None, length=2)[0],
    lambda x: jnp.concatenate([
        jax.lax.slice_in_dim(x, 1, 5, 2, 1), jnp.broadcast_to(jnp.ones(2), (x.shape[0], 2))], 1),
    lambda x: jnp.einsum("bi,bj->bij", x, x).reshape(x.shape[0], 36)[:, 3::5],
    lambda x: x.reshape(x.shape[0], 2, 3)[:, 1::2, ::2],
    lambda x: x.reshape(x.shape[0], 3, 2, 1)[:, ::-1, ::2, ::2],
])
def test_operators(compute):
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    proto = to_onnx(lambda x: {"y": compute(x)}, {"x": ((6,), np.float32)})
    got = run_onnx(proto, x=x)["y"]
    np.testing.assert_allclose(got, jax.jit(compute)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("compute", "message"), [
    (lambda x: jnp.sort(x, 1), "'sort', which has no translation"),
    (lambda x: x.reshape(-1, 2, 3)[:, jnp.array([0, 1]), jnp.array([2, 0])], "several places"),
    (lambda x: jax.lax.slice_in_dim(x, 1, None), "slices the batch"),
    (lambda x: jnp.take_along_axis(x, jnp.argmax(x, 1)[:, None], 1), "gathers at computed indices"),
])
def test_what_cannot_be_said_in_onnx_is_refused(compute, message):
    with pytest.raises(UserError, match=message):
        to_onnx(lambda x: {"y": compute(x)}, {"x": ((6,), np.float32)})


def export(bundle_file, out, kind, code=0):
    words = ["export", f"--model={bundle_file}", f"--format={kind}", f"--out={out}"]
    if not code:
        result = out.with_name("result.json")
        command.run([*words, f"--json={result}"])
        about = json.loads(out.with_name(f"{out.name}.json").read_text())
        rows = dict(json.loads(result.read_text())["rows"])
        assert rows.pop("size").endswith(" MB")
        for name, value in rows.items():
            assert value in (about[name], json.dumps(about[name]))
        return about
    with pytest.raises(SystemExit) as stopped:
        command.run(words)
    assert stopped.value.code == code
    return None


def test_the_onnx_file_of_a_bundle(bundle_file, tmp_path):
    bundle, path = Bundle.load(bundle_file), tmp_path / "x.onnx"
    about = export(bundle_file, path, "onnx")
    assert about["largest relative difference"] < 1e-4
    pixels = np.random.default_rng(2).integers(0, 256, (5, 32, 32), np.uint8)
    got = run_onnx(onnx.load(path), pixels=pixels)["logits"]
    np.testing.assert_allclose(got, bundle.logits(pixels, batch=5), atol=1e-4)
    assert about["classes"] == list(bundle.classes)
    beside = Calibration.from_json(about["calibration"])
    np.testing.assert_array_equal(beside.probabilities(got), bundle.probabilities(got))


def test_stablehlo_is_read_in_a_fresh_process(bundle_file, tmp_path):
    bundle, path = Bundle.load(bundle_file), tmp_path / "x.stablehlo"
    about = export(bundle_file, path, "stablehlo")
    assert about["platforms"] == ["cpu", "cuda", "rocm", "tpu"]
    pixels = np.random.default_rng(3).integers(0, 256, (5, 32, 32), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    code = (
        "import sys, numpy as np, jax; from jax import export;"
        "f = export.deserialize(bytearray(open('x.stablehlo', 'rb').read()));"
        "x = np.load('pixels.npy'); assert 'jaxcxr' not in sys.modules;"
        "np.savez('y.npz', *[f.call(x[:n])['logits'] for n in (1, 5)])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = bundle.logits(pixels, batch=5)
    with np.load(tmp_path / "y.npz") as found:
        for array in found.values():
            np.testing.assert_allclose(array, expected[: len(array)], atol=1e-5)


@pytest.mark.parametrize(("name", "options"), [
    ("resnet18", {"stages": (1, 1), "width": 8}),
    ("resnet50", {"stages": (1, 1), "width": 8}),
    ("densenet121", {"stages": (2, 1), "growth": 4, "width": 8}),
    ("vit_tiny", SMALL_VIT),
])
def test_weights_come_back_through_the_reader_of_torch_files(tmp_path, name, options):
    model = models.create(name, classes=3, **{"head_width": 0, **options})
    image = np.zeros((1, 32, 32, 1), np.float32)
    variables = varied(model, image)
    arrays = torch_weights.state_dict(variables, name)
    counters = [value for key, value in arrays.items() if key.endswith("num_batches_tracked")]
    assert all(value.shape == () and value.dtype == np.int64 for value in counters)
    assert bool(counters) == ("batch_stats" in variables)
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    again = pretrained.load(tmp_path / "w.safetensors", variables, name, skip_head=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, variables)


@pytest.mark.oracles
def test_a_savedmodel_is_used_by_tensorflow(bundle_file, tmp_path):
    python = os.environ.get("JAXCXR_TENSORFLOW_PYTHON")
    if not python:
        pytest.skip("JAXCXR_TENSORFLOW_PYTHON names no Python with TensorFlow")
    out = tmp_path / "saved"
    command.run(["export", f"--model={bundle_file}", "--format=savedmodel", f"--out={out}",
                 f"--tensorflow={python}"])
    about = json.loads((tmp_path / "saved.json").read_text())
    assert about["largest relative difference"] < 1e-4
    assert (out / "saved_model.pb").stat().st_size > 10_000


def test_formats_that_cannot_hold_the_model_say_so(bundle_file, tmp_path, capsys):
    export(bundle_file, tmp_path / "w", "torch-safetensors", code=2)
    assert "torchvision has no resnet18 with stages=(1, 1)" in capsys.readouterr().err
    export(bundle_file, tmp_path / "w", "savedmodel", code=2)
    assert "has no TensorFlow, which writes SavedModels" in capsys.readouterr().err
    export(bundle_file, tmp_path, "savedmodel", code=2)
    assert "a SavedModel is a new folder" in capsys.readouterr().err
    export(bundle_file, tmp_path, "onnx", code=2)
    assert "is a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
