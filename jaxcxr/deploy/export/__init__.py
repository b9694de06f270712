"""The model of a bundle for other programs, each compared with the bundle.

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
