"""A trained model in one file, with all that its outputs need to mean something.

The file is a zip, without pickle, that any zip tool opens:

    bundle.json          format, version, classes, preprocessing, training data (with the SHA-256
                         of its manifest), versions, and the SHA-256 of every other file
    config.json          of the run
    weights.safetensors  of the best checkpoint, the average where one was kept
    calibration.json     probabilities and thresholds, fitted on validation
    guard.safetensors    what tells images unlike the training's, see `jaxcxr.deploy.bundle.guard`
    metrics.json         figures of the test split
    LICENSE.txt          of the weights

`jaxcxr predict`, `jaxcxr export` and `Bundle.load` need nothing else: neither run nor data.
"""

__all__ = ["Bundle"]


def __getattr__(name: str):
    if name == "Bundle":  # lazily: models and JAX are slow to import
        from jaxcxr.deploy.bundle.bundled_model import Bundle

        return Bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
