"""What torch writes, in both of its formats, is read back number for number."""

import argparse
import collections
import pathlib
import warnings

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
    assert set(arrays) == {f"model.module.{key}" for key in tensors}
    for key, tensor in tensors.items():
        expected = tensor.detach()
        found = arrays[f"model.module.{key}"]
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


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_and_a_whole_module(torch, tmp_path, zipped):
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    content = {
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")), "model": network,
        "optimizer": optimizer.state_dict(), "best": np.float64(0.5), "dtype": torch.float16,
        "shape": torch.Size([1, 2]), "curve": np.arange(3.0), "where": pathlib.PurePosixPath("x"),
        "seen": {1, 2}, "calls": collections.defaultdict(list), "counts": collections.Counter("ab"),
    }
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    arrays = weight_files.read(tmp_path / "w.ckpt")
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    assert set(arrays) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(arrays[key], value.numpy())


def test_a_torchscript_archive(torch, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(tmp_path / "w.pt"))
    arrays = weight_files.read(tmp_path / "w.pt")
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(arrays[key], value.numpy())
