"""Small models of each family of backbones, with weights drawn by name."""

import zlib

import jax
import numpy as np

from jaxcxr import models

# Our name -> options, side of the images, and timm's model of the same geometry.
SMALL = {
    "dinov2_small": (
        {"dim": 32, "depth": 2, "heads": 4, "registers": 0}, 56,
        "vision_transformer.VisionTransformer(img_size=56, patch_size=14, embed_dim=32, depth=2, "
        "num_heads=4, init_values=1.0, num_classes=3)",
    ),
    "dinov2_base": (
        {"dim": 32, "depth": 2, "heads": 2, "registers": 3}, 56,
        "vision_transformer.VisionTransformer(img_size=56, patch_size=14, embed_dim=32, depth=2, "
        "num_heads=2, init_values=1.0, reg_tokens=3, no_embed_class=True, num_classes=3)",
    ),
    "convnext_tiny": (
        {"stages": (1, 2, 1, 1), "widths": (8, 16, 16, 16)}, 64,
        "convnext.ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 16, 16), num_classes=3)",
    ),
    "swin_tiny": (
        {"dim": 8, "stages": (2, 2), "heads": (2, 4), "window": 4}, 40,
        "swin_transformer.SwinTransformer(img_size=40, window_size=4, embed_dim=8, depths=(2, 2), "
        "num_heads=(2, 4), num_classes=3)",
    ),
}


def make(name):
    """A model of three classes, its variables and two images of three channels."""
    options, size, _ = SMALL[name]
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    model = models.create(name, classes=3, **options)

    def leaf(path, shape):
        key = "/".join(part.key for part in path)
        values = np.random.default_rng(zlib.crc32(key.encode())).normal(size=shape.shape)
        fan = max(1, int(np.prod(shape.shape[:-1]))) if shape.ndim > 1 else 10
        scale = key.endswith(("scale", "gamma", "ls1", "ls2"))
        return (values / np.sqrt(fan) + scale).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return model, jax.tree_util.tree_map_with_path(leaf, shapes), images
