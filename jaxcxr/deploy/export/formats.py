"""Writes the model of a bundle in one of the formats, with a description of its outputs."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcxr.deploy.bundle.bundled_model import Bundle

FORMATS = ("stablehlo", "onnx", "torch-safetensors", "savedmodel")


def write(
    bundle: "Bundle", format_: str, out: pathlib.Path, python: str
) -> tuple[dict[str, Any], pathlib.Path]:
    """Writes a model and its description.

    Arguments:
      bundle: with the model.
      format_: of `FORMATS`.
      out: file, or folder of a savedmodel, to write.
      python: interpreter that has TensorFlow, for a savedmodel.

    Returns:
      Facts about the file, such as the measured difference; and the path of the description.

    Raises:
      UserError: the format cannot hold the model.
      OSError: a file cannot be written.
    """
    from jaxcxr.deploy.export import function, onnx_file, savedmodel, stablehlo, torch_weights

    out.parent.mkdir(parents=True, exist_ok=True)
    if format_ == "savedmodel":
        about = savedmodel.write(bundle, out, python=python)
    else:
        writers = {
            "stablehlo": stablehlo.write, "onnx": onnx_file.write,
            "torch-safetensors": torch_weights.write,
        }
        about = writers[format_](bundle, out)
    beside = out.with_name(f"{out.name}.json")
    record = {"format": format_, **function.described(bundle), **about}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    beside.write_text(text + "\n", encoding="utf-8")
    return about, beside
