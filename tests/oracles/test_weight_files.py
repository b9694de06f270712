"""What torch writes, in both of its formats, is read back number for number."""

import numpy as np
import pytest

from jaxcxr.models.weights import weight_files

pytestmark = pytest.mark.oracles


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_saves(torch, tmp_path, zipped):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "plain": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "count": torch.tensor([1, 2**40]),
        "flags": torch.tensor([True, False]),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "half": (base / 7).half(),
        "bf16": (base / 7).bfloat16(),
        "parameter": torch.nn.Parameter(base + 1),
    }
    content = {"epoch": 3, "model": {f"module.{k}": v for k, v in tensors.items()}}
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    arrays = weight_files.read(path)
    assert set(arrays) == set(tensors)
    for key, tensor in tensors.items():
        expected = tensor.detach()
        found = arrays[key]
        assert found.shape == tuple(expected.shape), key
        assert str(found.dtype) == str(expected.dtype).removeprefix("torch."), key
        np.testing.assert_array_equal(
            found.astype(np.float64), expected.double().numpy(), err_msg=key
        )


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_a_state_dict_with_its_metadata(torch, tmp_path, zipped):
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    path = tmp_path / "w.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    arrays = weight_files.read(path)
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(arrays[key], tensor.numpy())


def test_a_whole_pickled_module_is_refused(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(weight_files.UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        weight_files.read(tmp_path / "w.pth")
