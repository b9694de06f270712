"""`jaxcxr export`: the model of a bundle for other programs, each compared with the bundle.

    jaxcxr export --model=cxr.jaxcxr --format=onnx --out=cxr.onnx

Formats, all with a batch of any size:

    stablehlo          by jax.export, for CPU, CUDA, ROCm and TPU: read by
                       `jax.export.deserialize(open(F, "rb").read()).call(pixels)`
    onnx               opset 18, float32; compared in onnxruntime (pip install 'jaxcxr[onnx]')
    torch-safetensors  weights in torchvision's names (resnet, densenet121) or timm's (vit)
    savedmodel         a folder, written by a Python that has TensorFlow, --tensorflow=PYTHON

Radiographs go in as `pixels`, uint8 `[batch, S, S]`, resized and equalised as `OUT.json` says;
normalisation is in the model. Out come `logits`, float32 `[batch, classes]`. Models of poses take
`keypoints` float32 `[batch, frames, 17, 3]` and `mask` bool `[batch, frames]`. `OUT.json` also has
the classes, the calibration with thresholds, the licence, and the difference that was measured.
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping

from jaxcxr.errors import UserError

FORMATS = ("stablehlo", "onnx", "torch-safetensors", "savedmodel")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="the bundle")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of the file to write")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--tensorflow", default=sys.executable, metavar="PYTHON",
        help="of savedmodel: interpreter of an environment with TensorFlow (default: this one)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the file and what belongs beside it, and print how far it agrees.

    Raises:
      UserError: no bundle, a model that the format cannot hold, or a file that cannot be written.
    """
    from jaxcxr.deploy.bundle.bundled_model import Bundle
    from jaxcxr.deploy.export import function, onnx_file, savedmodel, stablehlo, torch_weights

    write: Mapping[str, Callable] = {
        "stablehlo": stablehlo.write, "onnx": onnx_file.write,
        "torch-safetensors": torch_weights.write,
        "savedmodel": functools.partial(savedmodel.write, python=args.tensorflow),
    }
    bundle, out = Bundle.load(args.model), pathlib.Path(args.out).expanduser()
    if out.is_dir() and args.format != "savedmodel":
        raise UserError(f"{out} is a folder; give --out a file.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        about = write[args.format](bundle, out)
        beside = out.with_name(f"{out.name}.json")
        record = {"format": args.format, **function.described(bundle), **about}
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); give another --out"
        ) from error
    print(bundle.description)
    for name, value in about.items():
        print(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    size = sum(path.stat().st_size for path in (out, *out.rglob("*")) if path.is_file())
    print(f"Written: {out}, {size / 1e6:.1f} MB, and {beside.name}")
