"""Files of weights: what is read, and a sentence for each that cannot be."""

import json
import os
import pickle
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from fpn_jax.errors import InputError
from fpn_jax.pretrained.read import read, read_metadata

ARRAYS = {
    "a.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "a.num_batches_tracked": np.array(7, np.int64),
}


def write_safetensors(path, header, payload=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + payload)
    return path


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def sentence(path):
    with pytest.raises(InputError) as error:
        read(str(path))
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def write(path, arrays):
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
        torch.save({name: torch.from_numpy(x) for name, x in arrays.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt"])
def test_every_format_gives_the_same_arrays(suffix, tmp_path):
    arrays = read(str(write(tmp_path / f"x{suffix}", ARRAYS))).arrays
    assert arrays.keys() == ARRAYS.keys()
    for name, x in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], x)
        assert arrays[name].dtype == x.dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_floating_types_become_float32(dtype, tmp_path):
    x = np.array([[1.5, -2.25]]).astype(dtype)
    path, name = tmp_path / "x.safetensors", {2: "F16", 8: "F64"}[x.itemsize]
    name = "BF16" if dtype is ml_dtypes.bfloat16 else name
    header = {"a": entry(name, x.shape, (0, x.nbytes))}
    weights = read(str(write_safetensors(path, header, x.tobytes()))).arrays["a"]
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, [[1.5, -2.25]])


def test_bfloat16_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
    torch.save({"a": torch.tensor([1.5]).bfloat16()}, tmp_path / "x.pth")
    np.testing.assert_array_equal(read(str(tmp_path / "x.pth")).arrays["a"], [1.5])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_prefixes_of_every_name_are_cut_off(prefix, tmp_path):
    arrays = {prefix + name: x for name, x in ARRAYS.items()}
    assert read(str(write(tmp_path / "x.npz", arrays))).arrays.keys() == ARRAYS.keys()
    arrays["b"] = np.zeros(1)
    assert read(str(write(tmp_path / "y.npz", arrays))).arrays.keys() == arrays.keys()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_the_state_dict_may_stand_under_a_key(key, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
    stored = {f"module.{name}": torch.from_numpy(x) for name, x in ARRAYS.items()}
    stored = {key: stored, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(stored, tmp_path / "x.pth")
    assert read(str(tmp_path / "x.pth")).arrays.keys() == ARRAYS.keys()


def test_remarks_of_a_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(ARRAYS, path, {"preprocessing": "tensorflow"})
    assert read_metadata(str(path)) == {"preprocessing": "tensorflow"}
    assert read_metadata("anything.npz") == {}


def test_missing_files_folders_and_suffixes(tmp_path):
    assert "do not exist" in sentence(tmp_path / "x.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "are a folder" in sentence(tmp_path / "folder.npz")
    (tmp_path / "x.h5").write_bytes(b"x")
    assert "'.h5' is unknown; choose one of .safetensors" in sentence(tmp_path / "x.h5")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_empty_and_damaged_files(suffix, tmp_path):
    path = write(tmp_path / f"x{suffix}", {"a": np.zeros((64, 64), np.float32)})
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert "are an empty file" in sentence(path)
    for damaged in (whole[:-4000], whole[: len(whole) // 2], whole[:9], b"<html>" * 99):
        path.write_bytes(damaged)
        assert "damaged" in sentence(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(shape=(2**62, 2**62))},
        {"a": entry(shape=(10**9,))},
        {"a": entry(shape=(-4,))},
        {"a": entry(offsets=(0, 32))},
        {"a": entry(offsets=(16, 0))},
        {"a": entry(offsets=(8, 24))},
        {"a": entry(), "b": entry()},
        {"a": entry(), "b": entry(offsets=(8, 24))},
        {"a": entry("F99")},
        {"a": "F32"},
        {"a": {"dtype": "F32"}},
        [],
        b"{" * 9999,
        b"\xff\xfe",
    ],
)
def test_headers_that_lie(header, tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", header, bytes(16))
    assert "damaged" in sentence(path)


def test_a_header_longer_than_its_file(tmp_path):
    path = tmp_path / "x.safetensors"
    for length in (100, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        assert "damaged" in sentence(path)


def test_types_that_numpy_lacks(tmp_path):
    header = {"a": entry("F8_E4M3", (4,), (0, 4))}
    path = write_safetensors(tmp_path / "x.safetensors", header, bytes(4))
    assert "'F8_E4M3' is unknown" in sentence(path)


def test_no_arrays(tmp_path):
    assert "contain no arrays" in sentence(write(tmp_path / "x.npz", {}))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "one array without a name" in sentence(tmp_path / "one.npz")


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_no_file_runs_code(suffix, tmp_path):
    evil, path = tmp_path / "evil", tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez(path, a=np.array([Malicious(evil)], dtype=object))
    else:
        torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
        torch.save({"a": torch.zeros(1), "b": Malicious(evil)}, path)
    sentence(path)
    path.write_bytes(pickle.dumps(Malicious(evil), protocol=2))
    sentence(path)
    assert not evil.exists()
    pickle.loads(path.read_bytes())
    assert evil.exists()


def test_what_is_no_state_dict(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
    path = tmp_path / "x.pth"
    torch.save([torch.zeros(1)], path)
    assert "contain a list, not arrays by name" in sentence(path)
    torch.save({"epoch": 3, "weights": {"a": torch.zeros(1)}}, path)
    assert "contain 'epoch', which is a int" in sentence(path)


def test_a_pytorch_whose_promise_does_not_hold(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(
        InputError, match=r"PyTorch 2\.6 or newer; .* installed 2\.5\.1"
    ):
        read(str(tmp_path / "x.pth"))


def test_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(b"x")
    assert "convert them to .safetensors" in sentence(tmp_path / "x.pth")


@pytest.mark.parametrize("header", [b"[\0U\x08", b"{", b"{'descr': 1}", b"(" * 500])
def test_headers_of_numpy_that_do_not_parse(header, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header)
    assert "damaged" in sentence(path)


def test_members_of_an_npz_that_are_no_numbers_are_named(tmp_path):
    np.savez(tmp_path / "words.npz", a=np.zeros(1), b=np.array(["x"]))
    assert "contain 'b', which is <U1; arrays must be" in sentence(
        tmp_path / "words.npz"
    )
    with zipfile.ZipFile(tmp_path / "bytes.npz", "w") as file:
        file.writestr("a.npy", b"")
    assert "contain 'a', which is no array" in sentence(tmp_path / "bytes.npz")
