"""Files written here opcode by opcode: torch is not needed to know what it writes."""

import gzip
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcxr.errors import UserError
from jaxcxr.models.weights import weight_files

OUT_OF_PLACE = "not part of a tensor file; nothing was run"


def plain(value):
    """Opcodes of a value, without the frame of a whole pickle."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(key, kind, length, offset, size, stride):
    """Opcodes of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, {})`."""
    storage = (
        b"(" + plain("storage") + f"ctorch\n{kind}\n".encode() + plain(key) + plain("cpu")
        + plain(length) + b"tQ"
    )
    arguments = storage + plain(offset) + plain(size) + plain(stride) + plain(False) + plain({})
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def program(tensors):
    body = b"".join(plain(name) + code for name, code in tensors.items())
    return b"\x80\x02}(" + body + b"u."


def write_zip(path, data_pkl, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("w/data.pkl", data_pkl)
        archive.writestr("w/byteorder", "little")
        for key, array in storages:
            archive.writestr(f"w/data/{key}", array.tobytes())
    return path


def write_legacy(path, data_pkl, storages=()):
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    with open(path, "wb") as file:
        for value in header:
            pickle.dump(value, file, protocol=2)
        file.write(data_pkl)
        pickle.dump([key for key, _ in storages], file, protocol=2)
        for _, array in storages:
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


VALUES = np.arange(12, dtype=np.float32)
HALVES = (np.arange(4) / 3).astype(ml_dtypes.bfloat16)
STORAGES = [("0", VALUES), ("1", HALVES)]
PROGRAM = program({
    "plain": tensor("0", "FloatStorage", 12, 0, (3, 4), (4, 1)),
    "module.transposed": tensor("0", "FloatStorage", 12, 0, (4, 3), (1, 4)),
    "slice": tensor("0", "FloatStorage", 12, 5, (2,), (3,)),
    "bf16": tensor("1", "BFloat16Storage", 4, 0, (4,), (1,)),
    "scalar": tensor("0", "FloatStorage", 12, 7, (), ()),
    "empty": tensor("0", "FloatStorage", 12, 0, (0, 3), (3, 1)),
})


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_views_of_shared_storages(tmp_path, write):
    arrays = weight_files.read(write(tmp_path / "w.pth", PROGRAM, STORAGES))
    table = VALUES.reshape(3, 4)
    np.testing.assert_array_equal(arrays["plain"], table)
    np.testing.assert_array_equal(arrays["module.transposed"], table.T)
    np.testing.assert_array_equal(arrays["slice"], [5, 8])
    np.testing.assert_array_equal(arrays["bf16"], HALVES)
    assert arrays["bf16"].dtype == ml_dtypes.bfloat16
    assert arrays["scalar"] == 7
    assert arrays["scalar"].shape == ()
    assert arrays["empty"].shape == (0, 3)


def test_state_dict_is_found_inside_a_training_checkpoint(tmp_path):
    inner = program({"w": tensor("0", "FloatStorage", 12, 0, (12,), (1,))})[2:-1]
    outer = b"\x80\x02}(" + plain("epoch") + plain(3) + plain("state_dict") + inner + b"u."
    arrays = weight_files.read(write_zip(tmp_path / "w.pt", outer, STORAGES[:1]))
    assert list(arrays) == ["state_dict.w"]


# After class and arguments: the object is made, and given its state.
OBJECT = b"\x81}(" + plain("lr") + plain(0.1) + b"ub"


def made(name):
    """Opcodes of an object of a class, with a state."""
    return f"c{name[0]}\n{name[1]}\n".encode() + b")" + OBJECT


@pytest.mark.parametrize(
    "name", [("argparse", "Namespace"), ("omegaconf.dictconfig", "DictConfig"),
             ("numpy.core.multiarray", "scalar"), ("my.own.package", "Settings"),
             ("builtins", "set"), ("os_like.module", "system")])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_objects_beside_the_tensors_are_left_alone(tmp_path, write, name):
    code = (b"\x80\x02}(" + plain("args") + made(name) + plain("epoch") + plain(3)
            + plain("model") + PROGRAM[2:-1] + b"u.")
    code = code.replace(made(name), b"cbuiltins\nset\n]\x85R") if name[1] == "set" else code
    arrays = weight_files.read(write(tmp_path / "w.ckpt", code, STORAGES))
    np.testing.assert_array_equal(arrays["model.plain"], VALUES.reshape(3, 4))
    assert all(key.startswith("model.") for key in arrays)


def test_a_whole_pickled_module_gives_its_state_dict(tmp_path):
    """As torchxrayvision publishes its weights: objects of classes, with their dicts as state."""
    weight = tensor("0", "FloatStorage", 12, 0, (3, 4), (4, 1))
    conv = (b"ctorch.nn.modules.conv\nConv2d\n)\x81}(" + plain("training") + plain(False)
            + plain("_parameters") + b"}(" + plain("weight") + weight + plain("bias") + b"Nu"
            + plain("_modules") + b"}" + b"ub")
    net = (b"\x80\x02cmy.models\nNet\n)\x81}(" + plain("labels") + plain(["a", "b"])
           + plain("_buffers") + b"}(" + plain("count") + tensor("1", "BFloat16Storage", 4, 0, (4,),
           (1,)) + b"u" + plain("_modules") + b"}(" + plain("conv0") + conv + b"uub.")
    arrays = weight_files.read(write_zip(tmp_path / "w.pt", net, STORAGES))
    assert set(arrays) == {"count", "conv0.weight"}
    np.testing.assert_array_equal(arrays["conv0.weight"], VALUES.reshape(3, 4))


def test_a_pickle_that_contains_itself_ends(tmp_path):
    code = (b"\x80\x02}q\x01(" + plain("again") + b"h\x01" + plain("w")
            + tensor("0", "FloatStorage", 12, 0, (12,), (1,)) + b"u.")
    assert list(weight_files.read(write_zip(tmp_path / "w.pt", code, STORAGES[:1]))) == ["w"]


@pytest.mark.parametrize("state", [{"size": (10**9,)}, (None, {"size": (10**9,)})])
def test_a_tensor_cannot_be_changed_after_it_was_built(tmp_path, state):
    code = tensor("0", "FloatStorage", 12, 0, (12,), (1,)) + plain(state) + b"b"
    with pytest.raises(UserError, match="changes a tensor"):
        weight_files.read(write_zip(tmp_path / "w.pt", program({"w": code}), STORAGES[:1]))


@pytest.mark.parametrize("name", ["w.pth.tar", "w.ckpt", "w.bin", "w", "a.safetensors", "w.npz"])
def test_the_content_says_what_a_file_is(tmp_path, name):
    save_file({"a": VALUES}, tmp_path / f"s-{name}")
    with (tmp_path / f"n-{name}").open("wb") as file:
        np.savez(file, a=VALUES)
    code = program({"a": tensor("0", "FloatStorage", 12, 0, (12,), (1,))})
    write_zip(tmp_path / f"z-{name}", code, STORAGES[:1])
    write_legacy(tmp_path / f"l-{name}", code, STORAGES[:1])
    for kind in "snzl":
        np.testing.assert_array_equal(weight_files.read(tmp_path / f"{kind}-{name}")["a"], VALUES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "an HDF5 file, as Keras writes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (gzip.compress(bytes(600), mtime=0), "compressed by gzip"),
        (b"PK\x03\x04" + bytes(600), "cut short"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (b"", "no file of safetensors, torch or NumPy"),
        (b"\x80\x02N.", "no torch file"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, content, reason):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        weight_files.read(tmp_path / "w.pth")


def test_a_folder_of_a_hub(tmp_path):
    with pytest.raises(UserError, match="a folder with no weight file"):
        weight_files.read(tmp_path)
    for name in ("b.ckpt", "pytorch_model.bin", "model.safetensors"):
        save_file({name: VALUES}, tmp_path / name)
        assert list(weight_files.read(tmp_path)) == [name]
    (tmp_path / "more").mkdir()
    for name in ("a.ckpt", "b.ckpt"):
        save_file({name: VALUES}, tmp_path / "more" / name)
    with pytest.raises(UserError, match="a folder with 2 weight files"):
        weight_files.read(tmp_path / "more")


class Evil:
    """Leaves a file behind when something unpickles it with full rights."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, write):
    victim = tmp_path / "made_by_the_pickle"
    code = pickle.dumps({"w": Evil(victim)}, 2)
    with pytest.raises(UserError, match=OUT_OF_PLACE):
        weight_files.read(write(tmp_path / "w.pth", code))
    assert not victim.exists()
    pickle.loads(code)  # the very bytes do act where everything is allowed
    assert victim.exists()


def test_malicious_header_of_the_old_format_is_refused(tmp_path):
    victim = tmp_path / "made_by_the_pickle"
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Evil(victim)))
    with pytest.raises(UserError, match=OUT_OF_PLACE):
        weight_files.read(tmp_path / "w.pth")
    assert not victim.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval", "builtins\ngetattr", "torch\nload", "torch.storage\n_load_from_bytes",
        "numpy\nload", "collections\nnamedtuple", "torch._utils\nFloatStorage",
    ],
)
def test_every_other_name_is_refused(tmp_path, name):
    code = b"\x80\x02c" + name.encode() + b"\n."
    with pytest.raises(UserError, match=OUT_OF_PLACE):
        weight_files.read(write_zip(tmp_path / "w.pth", code))


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes on what the unpickler hands out; the next file must not notice."""
    build = b"ctorch._utils\n_rebuild_tensor_v2\n" + plain((None, {"__defaults__": (1, 2)})) + b"b"
    code = b"\x80\x02}(" + plain("w") + build + b"u."
    with pytest.raises(UserError, match="holds no named tensors"):
        weight_files.read(write_zip(tmp_path / "evil.pth", code))
    arrays = weight_files.read(write_zip(tmp_path / "w.pth", PROGRAM, STORAGES))
    np.testing.assert_array_equal(arrays["plain"], VALUES.reshape(3, 4))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ((0, (13,), (1,)), "outside its storage"),
        ((10, (3,), (1,)), "outside its storage"),
        ((0, (2, 2), (11, 1)), "outside its storage"),
        ((0, (10**9,), (0,)), "outside its storage"),
        ((-1, (2,), (1,)), "negative"),
        ((11, (2,), (-1,)), "negative"),
        ((0, (2, 2), (1,)), "different length"),
    ],
)
def test_views_never_leave_their_storage(tmp_path, view, message):
    code = program({"w": tensor("0", "FloatStorage", 12, *view)})
    with pytest.raises(UserError, match=message):
        weight_files.read(write_zip(tmp_path / "w.pth", code, STORAGES[:1]))


def test_damaged_files_are_named(tmp_path):
    code = program({"w": tensor("0", "FloatStorage", 12, 0, (12,), (1,))})
    with pytest.raises(UserError, match="storage 0 is absent"):
        weight_files.read(write_zip(tmp_path / "a.pth", code))
    with pytest.raises(UserError, match="cut short"):
        weight_files.read(write_zip(tmp_path / "b.pth", code, [("0", VALUES[:5])]))
    with pytest.raises(UserError, match="compressed"):
        weight_files.read(write_zip(tmp_path / "c.pth", code, STORAGES, zipfile.ZIP_DEFLATED))
    write_legacy(tmp_path / "d.pth", code, STORAGES[:1])
    whole = (tmp_path / "d.pth").read_bytes()
    for length in (3, 40, len(whole) - 60, len(whole) - 4):
        (tmp_path / "d.pth").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"d\.pth was not read"):
            weight_files.read(tmp_path / "d.pth")


def test_pickled_arrays_in_npz_are_refused(tmp_path):
    victim = tmp_path / "made_by_the_pickle"
    np.savez(tmp_path / "w.npz", w=np.array([Evil(victim)], dtype=object))
    with pytest.raises(UserError, match="allow_pickle"):
        weight_files.read(tmp_path / "w.npz")
    assert not victim.exists()


def test_safetensors_and_npz(tmp_path):
    arrays = {"a": VALUES, "b": VALUES.astype(np.float16)}
    save_file({**arrays, "c": HALVES}, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **arrays)
    for name in ("w.safetensors", "w.npz"):
        found = weight_files.read(tmp_path / name)
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[key], array)
    np.testing.assert_array_equal(weight_files.read(tmp_path / "w.safetensors")["c"], HALVES)


def test_wrong_paths(tmp_path):
    with pytest.raises(UserError, match="no weight file at"):
        weight_files.read(tmp_path / "absent.npz")
    (tmp_path / "w.safetensors").write_bytes(b"not that")
    with pytest.raises(UserError, match="was not read"):
        weight_files.read(tmp_path / "w.safetensors")
