"""jaxcxr: chest X-ray findings and 3D human pose in JAX/Flax, trained by one loop."""

__version__ = "0.2.0"
