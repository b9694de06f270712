"""Keeps a trained model in one file, with everything its outputs need to be interpreted.

The file is a plain zip, without pickle:

    bundle.json          format, version, classes, preprocessing, training data (with the SHA-256
                         of its manifest), versions, and the SHA-256 of every other file
    config.json          of the run
    weights.safetensors  of the best checkpoint, averaged where the run kept an average
    calibration.json     of probabilities, and thresholds, fitted on validation
    guard.safetensors    flags images unlike the training images, see `jaxcxr.deploy.bundle.guard`
    metrics.json         of the test split
    LICENSE.txt          of the weights

`jaxcxr predict`, `jaxcxr export` and `Bundle.load` need neither the run nor its data.
"""

__all__ = ["Bundle"]


def __getattr__(name: str):
    if name == "Bundle":  # lazily: models and JAX are slow to import
        from jaxcxr.deploy.bundle.bundled_model import Bundle

        return Bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
