"""The table of devices, and the measured peak."""

import jax
import pytest

from jaxcxr.errors import UserError
from jaxcxr.plan import hardware


def test_devices_are_found_by_either_name():
    for name, device in hardware.DEVICES.items():
        assert hardware.named(name) is device
        assert all(hardware.of_kind(kind) is device for kind in device.kinds)
    assert hardware.of_kind(jax.devices()[0].device_kind) is None
    with pytest.raises(UserError, match=r"'b100'.*h100"):
        hardware.named("b100")


def test_makers_own_ratios_hold():
    """Figures that the same sheets state in another way, which a slip of the pen would break."""
    devices = hardware.DEVICES
    # "BF16 peak compute per Pod: 50.63 PFLOPs", 234.9 for v6e, 1.1 exaflops for v4.
    for name, pod in {"v5e": 50.63e15, "v6e": 234.9e15, "v4": 1.1e18}.items():
        device = devices[name]
        assert device.flops["bfloat16"] * device.group == pytest.approx(pod, rel=0.03)
    # H200: "1.4x more memory bandwidth than H100"; H100's tensor cores: about 3 times A100's.
    assert devices["h200"].bandwidth / devices["h100"].bandwidth == pytest.approx(1.4, abs=0.05)
    assert devices["h100"].flops["bfloat16"] / devices["a100"].flops["bfloat16"] > 3
    for device in devices.values():
        assert device.network < device.link < device.bandwidth


def test_measured_peak_is_of_this_machine(monkeypatch):
    clocks = iter([0.0, 0.5, 1.0, 1.25, 2.0, 3.0])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(clocks))
    # The fastest of three rounds took a quarter of a second.
    assert hardware.measured_flops("float32", size=64, rounds=3) == 2 * 64**3 / 0.25
