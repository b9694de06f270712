"""Peak FLOP/s, memory and links of accelerators, as their makers state them.

Sources, all for dense matrices (NVIDIA's sheets print twice as much, for 2:4 sparsity):
- NVIDIA A100 datasheet (rev. 4), H100 datasheet, H200 datasheet, the SXM columns; NVLink is given
  there for both directions together. Networks: DGX A100 has one 200 Gb/s port for each GPU, DGX
  H100 and DGX H200 one of 400 Gb/s.
- Google Cloud, docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e: FLOP/s, memory, bandwidth, and the
  interconnect for both directions together. Network: v5e 2 x 100 Gb/s a host of 8 chips, v5p
  50 Gb/s a chip, v6e 25.6 Tb/s a pod of 256 (2025 edition of the page).
- Austin et al., "How to Scale Your Model" (jax-ml.github.io/scaling-book), chapter "How to Think
  About TPUs": links of TPU v4, 6 of 45 GB/s each way; its network, 25 GB/s a host of 4 chips.
- docs.jax.dev, "Matmul precision": what JAX makes of float32 by default.
"""

import dataclasses
import time
import types
from collections.abc import Mapping

from jaxcxr.errors import UserError


@dataclasses.dataclass(frozen=True)
class Device:
    """An accelerator.

    Attributes:
      name: short, as on the command line.
      kinds: what `jax.Device.device_kind` calls it.
      flops: dtype -> peak FLOP/s of matrix products. "float32" is what JAX does by default, which
        is TF32 on NVIDIA's and one bfloat16 pass on Google's.
      memory: bytes.
      bandwidth: of the memory, bytes/s.
      link: bytes/s that a device sends to the others of its group, one way, all links together.
      group: devices that such links connect: a node of GPUs, a pod of TPUs.
      axes: of the torus that the links form, 0 where a switch connects all with all.
      network: bytes/s of each device to devices of other groups, one way.
    """

    name: str
    kinds: tuple[str, ...]
    flops: Mapping[str, float]
    memory: float
    bandwidth: float
    link: float
    group: int
    axes: int
    network: float


def _nvidia(tf32: float, bf16: float) -> Mapping[str, float]:
    return types.MappingProxyType({"float32": tf32, "bfloat16": bf16, "float16": bf16})


def _tpu(bf16: float) -> Mapping[str, float]:
    return types.MappingProxyType({"float32": bf16, "bfloat16": bf16})


_ALL = (
    Device("a100", ("NVIDIA A100-SXM4-80GB",), _nvidia(156e12, 312e12),
           80e9, 2.039e12, 300e9, 8, 0, 25e9),
    Device("a100-40gb", ("NVIDIA A100-SXM4-40GB",), _nvidia(156e12, 312e12),
           40e9, 1.555e12, 300e9, 8, 0, 25e9),
    Device("h100", ("NVIDIA H100 80GB HBM3",), _nvidia(494.7e12, 989.4e12),
           80e9, 3.35e12, 450e9, 8, 0, 50e9),
    Device("h200", ("NVIDIA H200",), _nvidia(494.7e12, 989.4e12),
           141e9, 4.8e12, 450e9, 8, 0, 50e9),
    Device("v4", ("TPU v4",), _tpu(275e12), 32 * 2**30, 1.2e12, 270e9, 4096, 3, 6.25e9),
    Device("v5e", ("TPU v5 lite", "TPU v5e"), _tpu(197e12),
           16e9, 0.819e12, 200e9, 256, 2, 3.125e9),
    Device("v5p", ("TPU v5", "TPU v5p"), _tpu(459e12), 95e9, 2.765e12, 600e9, 8960, 3, 6.25e9),
    Device("v6e", ("TPU v6 lite", "TPU v6e"), _tpu(918e12),
           32e9, 1.638e12, 400e9, 256, 2, 12.5e9),
)
DEVICES: Mapping[str, Device] = types.MappingProxyType({device.name: device for device in _ALL})


def named(name: str) -> Device:
    """Looks up a device by its short name."""
    if name not in DEVICES:
        raise UserError(f"no device is called {name!r}; use one of {', '.join(DEVICES)}.")
    return DEVICES[name]


def of_kind(kind: str) -> Device | None:
    """Looks up a device by `jax.Device.device_kind`; None if the table lacks it."""
    return next((device for device in _ALL if kind in device.kinds), None)


def measured_flops(dtype: str, size: int = 2048, rounds: int = 5) -> float:
    """Measures FLOP/s of a square matrix product: the peak where none is stated."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(jnp.matmul)
    one = jnp.ones((size, size), dtype)
    product(one, one).block_until_ready()
    seconds = []
    for _ in range(rounds):
        clock = time.perf_counter()
        product(one, one).block_until_ready()
        seconds.append(time.perf_counter() - clock)
    return 2.0 * size**3 / min(seconds)
