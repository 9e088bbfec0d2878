"""What is not a readable export archive: one clear line each, never a traceback."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.aten.foreign import describe_foreign
from leakaudit.frontends.interface import LoadOptions
from leakaudit.operators import Unsupported

torch = pytest.importorskip("torch")
nn = torch.nn


def small_model() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5))


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    """A good archive, member by member."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        small_model().eval(), (torch.randn(2, 3, 6, 6),), dynamic_shapes=(batch,)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def member(members: dict[str, bytes], end: str) -> str:
    (name,) = (name for name in members if name.endswith(end))
    return name


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def edited(
    members: dict[str, bytes], end: str, change: Callable[[dict[str, Any]], None]
) -> dict[str, bytes]:
    name = member(members, end)
    content = json.loads(members[name])
    change(content)
    return members | {name: json.dumps(content).encode()}


def refused(path: str) -> str:
    with pytest.raises(AuditError) as caught:
        pt2_model.load(path, LoadOptions())
    error = caught.value
    assert "\n" not in str(error)
    assert error.target == path
    assert error.exit_code == 3
    assert error.remedy
    return f"{error.reason} | {error.remedy}"


class TestForeignFiles:
    def test_good_archive_under_any_extension(self, members, tmp_path):
        for extension in ("pt2", "pt", "pth"):
            path = write(tmp_path / f"model.{extension}", members)
            assert describe_foreign(path) is None
            assert len(pt2_model.load(path, LoadOptions()).nodes) == 4

    def test_no_file(self, tmp_path):
        assert "no such file" in refused(str(tmp_path / "model.pt2"))
        assert "no such file" in refused("model\0.pt2") or "not valid" in refused("model\0.pt2")

    def test_folder(self, tmp_path):
        assert "folder" in refused(str(tmp_path))

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            (b"<html>not found</html>", "not a zip"),
            (b"PK\x03\x04 and then nothing", "truncated or damaged"),
        ],
    )
    def test_content(self, content, expected, tmp_path):
        path = tmp_path / "model.pt2"
        path.write_bytes(content)
        assert expected in refused(str(path))

    def test_truncated(self, members, tmp_path):
        path = tmp_path / "model.pt2"
        write(path, members)
        path.write_bytes(path.read_bytes()[:-500])
        assert "truncated or damaged" in refused(str(path))

    def test_pickled_module(self, tmp_path):
        path = tmp_path / "model.pt"
        torch.save(small_model(), path)
        text = refused(str(path))
        assert "a pickle (torch.save)" in text
        assert "state_dict" not in text
        assert "torch.export.save(torch.export.export(model, args), 'model.pt2')" in text

    @pytest.mark.parametrize("wrap", [lambda state: state, dict, lambda state: {"model": state}])
    def test_state_dict(self, wrap, tmp_path):
        path = tmp_path / "model.pth"
        torch.save(wrap(small_model().state_dict()), path)
        assert "a pickle (torch.save) of a state_dict" in refused(str(path))

    def test_legacy_pickle(self, tmp_path):
        path = tmp_path / "model.pt"
        torch.save(small_model().state_dict(), path, _use_new_zipfile_serialization=False)
        assert path.read_bytes().startswith(b"\x80\x02")
        assert "a pickle (torch.save" in refused(str(path))

    def test_a_pickle_is_never_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "trapped",))

        path = tmp_path / "model.pt"
        torch.save(Trap(), path)
        assert "a pickle" in refused(str(path))
        assert not (tmp_path / "trapped").exists()

    @pytest.mark.filterwarnings("ignore")
    def test_torchscript(self, tmp_path):
        path = tmp_path / "model.pt"
        torch.jit.save(torch.jit.trace(small_model(), torch.randn(1, 3, 6, 6)), path)
        assert "TorchScript" in refused(str(path))

    def test_compiled_package(self, members, tmp_path):
        program = member(members, "models/model.json")
        rest = {name: data for name, data in members.items() if name != program}
        root = program.split("/")[0]
        path = write(tmp_path / "a.pt2", rest | {f"{root}/data/aotinductor/model/a.so": b""})
        assert "AOTInductor" in refused(path)
        assert "no exported program" in refused(write(tmp_path / "b.pt2", rest))

    def test_older_layout_and_other_zips(self, tmp_path):
        older = write(tmp_path / "a.pt2", {"serialized_exported_program.json": b"{}"})
        assert "older PyTorch" in refused(older)
        assert "not an export archive" in refused(write(tmp_path / "b.pt2", {"a.txt": b"x"}))


class TestDamagedArchives:
    def test_corrupt_json(self, members, tmp_path):
        name = member(members, "models/model.json")
        for index, content in enumerate((b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000)):
            path = write(tmp_path / f"{index}.pt2", members | {name: content})
            assert "JSON" in refused(path)

    @pytest.mark.parametrize(
        "key", ["graph_module", "schema_version", "graph", "signature", "tensor_values", "nodes"]
    )
    def test_missing_key(self, key, members, tmp_path):
        def drop(content):
            module = content["graph_module"]
            for owner in (content, module, module["graph"]):
                owner.pop(key, None)

        path = write(tmp_path / "model.pt2", edited(members, "models/model.json", drop))
        assert f"{key!r} is missing" in refused(path)

    def test_unknown_schema_is_not_guessed_at(self, members, tmp_path):
        def change(content):
            content["schema_version"]["major"] = 9

        path = write(tmp_path / "model.pt2", edited(members, "models/model.json", change))
        assert "schema version is 9" in refused(path)

    @pytest.mark.parametrize(
        "name", ["../evil", "archive/../../evil", "/etc/evil", "C:\\evil", "a\\..\\..\\evil"]
    )
    def test_unsafe_names(self, name, members, tmp_path):
        path = write(tmp_path / "model.pt2", members | {name: b""})
        assert "unsafe" in refused(path)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_duplicate_member(self, members, tmp_path):
        path = tmp_path / "model.pt2"
        write(path, members)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member(members, "models/model.json"), b"{}")
        assert "occurs twice" in refused(str(path))

    def test_zip_bomb(self, members, tmp_path):
        name = member(members, "weights/weight_0")
        path = write(
            tmp_path / "model.pt2", members | {name: bytes(50_000_000)}, zipfile.ZIP_DEFLATED
        )
        text = refused(path)
        assert "the limit ratio is 100" in text
        assert "--limit ratio=" in text

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("storage_offset", {"as_int": 1}),
            ("storage_offset", {"as_int": -1}),
            ("storage_offset", {"as_int": 10**30}),
            ("strides", [{"as_int": 10**6}, {"as_int": 1}]),
            ("strides", [{"as_int": 1}]),
            ("strides", [{"as_int": -1}, {"as_int": 1}]),
            ("sizes", [{"as_int": 5}, {"as_int": 65}]),
            ("dtype", 8),
            ("dtype", 99),
            ("dtype", "float32"),
        ],
    )
    def test_weight_outside_its_storage(self, key, value, members, tmp_path):
        def change(content):
            content["config"]["3.weight"]["tensor_meta"][key] = value

        path = write(tmp_path / "model.pt2", edited(members, "weights_config.json", change))
        refused(path)

    def test_expanded_view_of_one_number_is_bounded(self, members, tmp_path):
        def change(content):
            meta = content["config"]["3.weight"]["tensor_meta"]
            meta["sizes"] = [{"as_int": 2**16}, {"as_int": 2**17}]
            meta["strides"] = [{"as_int": 0}, {"as_int": 0}]

        path = write(tmp_path / "model.pt2", edited(members, "weights_config.json", change))
        assert "expands to" in refused(path)

    def test_pickled_weight_is_not_loaded(self, members, tmp_path):
        def change(content):
            content["config"]["3.weight"]["use_pickle"] = True

        path = write(tmp_path / "model.pt2", edited(members, "weights_config.json", change))
        graph = pt2_model.load(path, LoadOptions())
        assert graph.weights.load("0.weight").shape == (4, 3, 3, 3)
        with pytest.raises(AuditError, match="never unpickled"):
            graph.weights.load("3.weight")

    def test_damaged_weight_is_reported_when_it_is_loaded(self, members, tmp_path):
        path = tmp_path / "model.pt2"
        write(path, members)
        data = members[member(members, "weights/weight_0")]
        content = path.read_bytes()
        at = content.index(data)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        graph = pt2_model.load(str(path), LoadOptions())
        with pytest.raises(AuditError, match="damaged"):
            graph.weights.load("0.weight")

    def test_weights_in_one_pickle_leave_the_graph_readable(self, members, tmp_path):
        config = member(members, "weights_config.json")
        rest = {name: data for name, data in members.items() if name != config}
        graph = pt2_model.load(write(tmp_path / "model.pt2", rest), LoadOptions())
        assert graph.parameters["3.weight"].trainable
        with pytest.raises(AuditError, match="no numbers"):
            graph.weights.load("3.weight")

    def test_big_endian(self, members, tmp_path):
        swapped = {
            name: np.frombuffer(data, "<u4").astype(">u4").tobytes()
            for name, data in members.items()
            if "/weights/weight_" in name
        }
        little = pt2_model.load(write(tmp_path / "little.pt2", members), LoadOptions())
        big = pt2_model.load(
            write(tmp_path / "big.pt2", members | swapped | {member(members, "byteorder"): b"big"}),
            LoadOptions(),
        )
        np.testing.assert_array_equal(big.weights.load("3.weight"), little.weights.load("3.weight"))

    @pytest.mark.parametrize("tensor", ["conv2d", "relu_", "linear"])
    def test_a_shape_that_the_operator_cannot_give(self, tensor, members, tmp_path):
        def change(content):
            values = content["graph_module"]["graph"]["tensor_values"]
            values[tensor]["sizes"][1] = {"as_int": 50}

        path = write(tmp_path / "model.pt2", edited(members, "models/model.json", change))
        graph = pt2_model.load(path, LoadOptions())
        op = graph.producers[tensor].op
        assert isinstance(op, Unsupported)
        assert "stated as" in op.reason

    @pytest.mark.parametrize("end", ["models/model.json", "weights_config.json"])
    def test_any_change_of_the_json_is_read_or_refused(self, end, members, tmp_path):
        """Random edits never raise anything but an AuditError."""
        random.seed(1)
        original = json.loads(members[member(members, end)])
        outcomes = set()
        for _ in range(400):
            content = copy.deepcopy(original)
            scramble(content)
            path = write(tmp_path / "model.pt2", edited(members, end, content_is(content)))
            try:
                graph = pt2_model.load(path, LoadOptions())
                for name in graph.parameters:
                    graph.weights.load(name)
                outcomes.add("read")
            except AuditError as error:
                outcomes.add("refused" if "\n" not in str(error) else "several lines")
        assert outcomes == {"read", "refused"}


def content_is(content: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(target: dict[str, Any]) -> None:
        target.clear()
        target.update(content)

    return change


def scramble(content: Any) -> None:
    """Replace or drop one value somewhere below the top level."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            if key in ("metadata", "module_call_graph"):
                continue
            places.append((node, key))
            if isinstance(value, dict | list):
                visit(value)

    visit(content)
    node, key = random.choice(places)
    replacement = random.choice(
        [None, -1, 0, 10**25, 1.5, True, "", "x", "conv2d", [], {}, [None], {"as_int": -7}, "drop"]
    )
    if replacement == "drop":
        del node[key]
    else:
        node[key] = replacement
