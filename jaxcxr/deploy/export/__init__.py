"""Exports the model of a bundle to other programs and compares each file with the bundle.

Formats, all with a batch of any size:

    stablehlo          by jax.export, for CPU, CUDA, ROCm and TPU: read by
                       `jax.export.deserialize(open(F, "rb").read()).call(pixels)`
    onnx               opset 18, float32; compared in onnxruntime (pip install 'jaxcxr[onnx]')
    torch-safetensors  weights in the names of torchvision (resnet, densenet121) or timm (vit)
    savedmodel         a folder, written by a Python that has TensorFlow, --tensorflow=PYTHON

Models of radiographs take `pixels`, uint8 `[batch, S, S]`, resized and equalised as `OUT.json`
says, and normalise them; they return `logits`, float32 `[batch, classes]`. Models of poses take
`keypoints` float32 `[batch, frames, 17, 3]` and `mask` bool `[batch, frames]`. `OUT.json` also has
the classes, the calibration with thresholds, the licence and the measured difference.
"""

FORMATS = ("stablehlo", "onnx", "torch-safetensors", "savedmodel")
