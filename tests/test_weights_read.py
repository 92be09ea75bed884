"""Checkpoint files of every kind become tensors; whatever else a file is or asks for, nothing of it runs."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.weights.read import read_facts, read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")


class Block(nn.Module):
    """What OpenAI's archives have: fp16 parameters, buffers, nested modules, attributes of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).half()
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("resolution", torch.tensor(224))
        self.scale = 1.5
        self.sizes = [1, 2]
        self.names = ["a", "b"]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.norm = nn.BatchNorm1d(4)
        self.projection = nn.Parameter(torch.randn(4, 2, dtype=torch.float64).t())

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x).float()) @ self.projection.float().t()


class Sharing(Net):
    """A parameter and a module under two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = self.projection
        self.same = self.blocks


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "visual.weight": torch.randn(3, 4),
        "visual.bias": torch.randn(3).half(),
        "count": torch.tensor(7),
    }


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(got) == set(wanted)
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name
        assert not got[name].requires_grad


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    return str(caught.value)


# --- kinds and wrappers


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_safetensors_are_read_whatever_their_suffix(tmp_path: Path, suffix: str) -> None:
    save_file(state(), tmp_path / f"x{suffix}")
    assert_same(read_tensors(tmp_path / f"x{suffix}"), state())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_files_are_read_whatever_their_suffix(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.safetensors"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_tensors(str(path)), state())


def test_what_is_read_can_be_changed_and_the_file_stays(tmp_path: Path) -> None:
    for name, save in {"x.pt": torch.save, "x.safetensors": save_file, "x.jit": save_scripted}.items():
        save(state(), tmp_path / name)
        before = (tmp_path / name).read_bytes()
        read_tensors(tmp_path / name)["visual.weight"].zero_()
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "module", "model_state_dict", "state_dict_ema", "model_ema"]
)
def test_a_state_dict_is_found_in_its_wrapper_and_the_rest_left_out(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimizer, key: state(), "name": "run"}, tmp_path / "x.pt")
    assert_same(read_tensors(tmp_path / "x.pt"), state())


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_the_averaged_copy_is_preferred(tmp_path: Path, key: str) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}, key: {"w": torch.ones(1)}}, tmp_path / "x.pt")
    assert read_tensors(tmp_path / "x.pt")["w"] == 1


@pytest.mark.parametrize("unused", [None, {}, {"decay": 0.99}])
def test_a_wrapper_without_tensors_is_passed_over(tmp_path: Path, unused: object) -> None:
    torch.save({"state_dict": state(), "model_ema": unused}, tmp_path / "x.pt")
    assert_same(read_tensors(tmp_path / "x.pt"), state())


def test_wrappers_in_wrappers_are_taken_off(tmp_path: Path) -> None:
    torch.save({"model": {"state_dict": state(), "step": 1}}, tmp_path / "x.pt")
    assert_same(read_tensors(tmp_path / "x.pt"), state())


def test_a_dict_that_holds_itself_does_not_hang(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "x.pt")
    assert "no state dict" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_parallel_and_compiled_models_are_stripped(tmp_path: Path, prefix: str) -> None:
    named = {prefix + name: tensor for name, tensor in state().items()}
    torch.save({"state_dict": named}, tmp_path / "x.pt")
    save_file(named, tmp_path / "x.safetensors")
    assert_same(read_tensors(tmp_path / "x.pt"), state())
    assert_same(read_tensors(tmp_path / "x.safetensors"), state())


def test_a_prefix_that_only_some_names_have_is_kept(tmp_path: Path) -> None:
    some = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(some, tmp_path / "x.pt")
    assert set(read_tensors(tmp_path / "x.pt")) == set(some)


def test_parameters_and_module_metadata_give_plain_tensors(tmp_path: Path) -> None:
    net = Net()
    torch.save(net.state_dict(keep_vars=True), tmp_path / "x.pt")
    got = read_tensors(tmp_path / "x.pt")
    assert_same(got, net.state_dict())
    assert {type(tensor) for tensor in got.values()} == {Tensor}


# --- TorchScript archives


def save_scripted(tensors: dict[str, Tensor], path: Path) -> None:
    class Holder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    root = Holder()
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Holder())
            module = getattr(module, parent)
        module.register_buffer(last, tensor)
    torch.jit.save(torch.jit.trace(root, torch.zeros(1)), path)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_an_archive_gives_the_state_dict_of_its_module(tmp_path: Path, how: str) -> None:
    script = how == "script"
    compiled = torch.jit.script(Net()) if script else torch.jit.trace(Net().eval(), torch.zeros(1, 4).half())
    torch.jit.save(compiled, tmp_path / "x.pt")
    got = read_tensors(tmp_path / "x.pt")
    assert_same(got, torch.jit.load(tmp_path / "x.pt").state_dict())
    assert got["blocks.0.linear.weight"].dtype == torch.float16
    assert "blocks.1.steps" in got


def test_what_an_archive_has_under_two_names_comes_out_under_both(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Sharing()), tmp_path / "x.pt")
    got = read_tensors(tmp_path / "x.pt")
    assert_same(got, torch.jit.load(tmp_path / "x.pt").state_dict())
    assert {"projection", "tied", "blocks.1.steps", "same.1.steps"} <= set(got)


def test_the_code_of_an_archive_is_neither_run_nor_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("code of the archive was loaded")

    torch.jit.save(torch.jit.script(Net()), tmp_path / "good.pt")
    rewrite(tmp_path / "good.pt", tmp_path / "x.pt", lambda name, data: b"(!" if "/code/" in name else data)
    monkeypatch.setattr(torch.jit, "load", never)
    monkeypatch.setattr(torch._C, "import_ir_module", never)
    assert "norm.running_var" in read_tensors(tmp_path / "x.pt")


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **how: Any) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)


def with_pickle(tmp_path: Path, pickled: bytes) -> Path:
    save_scripted(state(), tmp_path / "good.pt")
    rewrite(
        tmp_path / "good.pt", tmp_path / "x.pt", lambda name, data: pickled if "/data.pkl" in name else data
    )
    return tmp_path / "x.pt"


def tree(attributes: bytes) -> bytes:
    """A pickled script object with these attributes (opcodes that push names and values)."""
    return b"\x80\x02c__torch__.M\nM\n)\x81}(" + attributes + b"ub."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(offset: int = 0, size: int = 2, key: str = "0", storage: str = "FloatStorage") -> bytes:
    reference = (
        b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + b"K\x02tQ"
    )
    shape = b"J" + struct.pack("<i", offset) + b"J" + struct.pack("<i", size) + b"\x85K\x01\x85\x89"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + shape + b"ccollections\nOrderedDict\n)RtR"


def test_the_handmade_pickle_of_the_tests_below_is_a_good_one(tmp_path: Path) -> None:
    good = with_pickle(tmp_path, tree(text("w") + tensor()))
    assert read_tensors(good)["w"].shape == (2,)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (text("w") + tensor(offset=10**6), "out of bounds"),
        (text("w") + tensor(offset=-1), "w has a negative offset, size or stride"),
        (text("w") + tensor(size=-2), "w has a negative offset, size or stride"),
        (text("w") + tensor(key="../../etc/passwd"), "etc/passwd is missing"),
        (text("w") + tensor(storage="system"), "torch.system, which is no known tensor storage"),
        (text("w") + b"K\x01", "holds no tensor"),
        (b"", "holds no tensor"),
        (text("w"), "broken"),  # a name without a value
        (text("w") + b"h\x09", "broken"),  # nothing is under that number
        (text("w") + b"ctorch.ops\nload_library\n" + text("x.so") + b"\x85R", "torch.ops.load_library"),
        (text("w") + b"(" + text("id") + b"ios\nsystem\n", "opcode INST"),
        (text("w") + b"}}(" + text("a") + b"K\x01ub", "sets the state of dict"),
        (text("w") + text("f") + b")R", "calls str"),
    ],
)
def test_an_archive_with_an_odd_pickle_is_refused(tmp_path: Path, attributes: bytes, reason: str) -> None:
    assert re.search(reason, refusal(with_pickle(tmp_path, tree(attributes))))


def test_an_archive_whose_modules_hold_each_other_is_refused(tmp_path: Path) -> None:
    endless = b"\x80\x02c__torch__.M\nM\n)\x81q\x00}" + text("again") + b"h\x00sb."
    assert "nested more than" in refusal(with_pickle(tmp_path, endless))


def test_an_archive_that_doubles_itself_is_refused(tmp_path: Path) -> None:
    level = b"c__torch__.M\nM\n)\x81}(" + text("a") + b"h\x00" + text("b") + b"h\x00ubq\x00"
    doubling = b"\x80\x02c__torch__.M\nM\n)\x81q\x00" + level * 60 + b"."
    assert "more than 1,000,000 attributes" in refusal(with_pickle(tmp_path, doubling))


def test_an_archive_with_a_missing_or_short_record_is_refused(tmp_path: Path) -> None:
    save_scripted({"w": torch.zeros(64)}, tmp_path / "good.pt")
    rewrite(tmp_path / "good.pt", tmp_path / "x.pt", lambda name, data: None if "/data/0" in name else data)
    assert "good/data/0 is missing" in refusal(tmp_path / "x.pt")
    rewrite(
        tmp_path / "good.pt", tmp_path / "x.pt", lambda name, data: data[:8] if "/data/0" in name else data
    )
    assert "out of bounds" in refusal(tmp_path / "x.pt")


def test_a_recompressed_archive_is_refused(tmp_path: Path) -> None:
    save_scripted(state(), tmp_path / "good.pt")
    rewrite(tmp_path / "good.pt", tmp_path / "x.pt", lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed, which torch never does" in refusal(tmp_path / "x.pt")


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_scripted(state(), tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    for cut in range(4, len(whole) - 1, len(whole) // 40):
        (tmp_path / "x.pt").write_bytes(whole[:cut])
        assert f"cut off at {cut} bytes" in refusal(tmp_path / "x.pt")


# --- files that would run code


class Bomb:
    """Unpickled by Python's own unpickler, it makes a folder: the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def test_the_bomb_of_these_tests_is_a_live_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("how", ["zip", "legacy", "bare", "bare protocol 0", "torchscript", "torchscript 4"])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, how: str) -> None:
    path, canary = tmp_path / "x.pt", tmp_path / "canary"
    bomb = {"state_dict": state(), "extra": Bomb(canary)}
    if how in ("zip", "legacy"):
        torch.save(bomb, path, _use_new_zipfile_serialization=how == "zip")
    elif how.startswith("bare"):
        path.write_bytes(pickle.dumps(Bomb(canary), protocol=0 if "0" in how else 4))
    else:
        with_pickle(tmp_path, pickle.dumps(Bomb(canary), protocol=4 if "4" in how else 2))
    message = refusal(path)
    assert not canary.exists()
    if how in ("zip", "legacy", "torchscript"):
        assert "posix.mkdir" in message
        assert "safetensors" in message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (np.float64(0.5), "multiarray.scalar"),
        (Path("x"), "pathlib"),
    ],
    ids=["Namespace", "numpy", "path"],
)
def test_what_a_training_loop_left_in_is_named_and_a_way_on_given(
    tmp_path: Path, extra: object, named: str, zipped: bool
) -> None:
    torch.save(
        {"state_dict": state(), "args": extra}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped
    )
    message = refusal(tmp_path / "x.pt")
    assert named in message
    assert "safetensors.torch.save_file" in message


def test_a_pickled_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "x.pt")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "x.pt")


# --- files that are no checkpoints


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in &amp; continue</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 353976522\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (PAGE, "is an HTML page that says 'Sign in & continue'"),
        (b"\xef\xbb\xbf\n <html><body>502</body></html>", "is an HTML page, not a checkpoint"),
        (
            b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
            "is an XML document that says 'AccessDenied'",
        ),
        (b'{"error": "Repository not found"}', "is a JSON document that says 'Repository not found'"),
        (b'{"architectures": ["CLIPModel"]}', "is a JSON document, not a checkpoint"),
        (b'{"weight_map": {}}', "JSON index of a checkpoint in several shards"),
        (b"[1, 2", "begins like JSON"),
        (POINTER, "a git-LFS pointer to a file of 353976522 bytes.*git lfs pull"),
        (zip_of("word/document.xml"), "not one that torch wrote: it holds word/document.xml"),
        (b"\x1f\x8b\x08\x00rest", "no checkpoint of a known kind"),
        (b"nothing known", "it begins with b'nothing '"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_told_by_what_it_is(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    assert re.search(reason, refusal(tmp_path / "x.pt"))
    assert "x.pt" in refusal(tmp_path / "x.pt")


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt").endswith("none.pt does not exist.")
    assert "is a folder; name the checkpoint file in it" in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(state(), whole)
    else:
        torch.save(state(), whole, _use_new_zipfile_serialization=kind == "zip")
    data = whole.read_bytes()
    for cut in range(1, len(data), max(1, len(data) // 50)):
        (tmp_path / "x.pt").write_bytes(data[:cut])
        refusal(tmp_path / "x.pt")


def test_a_safetensors_file_cut_in_its_data_says_so(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:-5])
    assert "damaged or cut-off safetensors file" in refusal(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="damaged or cut-off safetensors file"):
        read_facts(tmp_path / "x.safetensors")


def test_a_safetensors_header_of_nonsense_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.pt").write_bytes(struct.pack("<Q", len(header)) + header + b"0000")
    assert "damaged or cut-off safetensors file" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("held", [torch.zeros(2), [torch.zeros(2)], 5])
def test_a_torch_file_of_something_else_is_refused_by_its_type(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "x.pt")
    assert f"holds a {type(held).__name__}, not a state dict" in refusal(tmp_path / "x.pt")


def test_a_checkpoint_under_an_unknown_key_is_listed(tmp_path: Path) -> None:
    torch.save({"net": state(), "epoch": 3}, tmp_path / "x.pt")
    assert "it has: net (dict), epoch (int)" in refusal(tmp_path / "x.pt")


def test_empty_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "x.pt")
    save_file({}, tmp_path / "x.safetensors")
    assert "it has: nothing" in refusal(tmp_path / "x.pt")
    assert "holds no tensor" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (lambda: torch.zeros(2, 2, device="meta"), "without values (meta)"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.eye(2).to_sparse_csr(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), "quantised"),
    ],
    ids=["meta", "sparse", "csr", "quantised"],
)
@pytest.mark.filterwarnings("ignore")  # torch's: some of these are beta, others go
def test_tensors_that_are_not_plain_are_told(tmp_path: Path, make: Callable[[], Tensor], how: str) -> None:
    torch.save({**state(), "odd": make()}, tmp_path / "x.pt")
    assert f"has 1 of {len(state()) + 1} tensors that are not plain: odd ({how})" in refusal(
        tmp_path / "x.pt"
    )
