"""Write the sample model files, or check that the committed ones are current.

    python sample_models/build.py            write them beside this file
    python sample_models/build.py --check    exit 1 and name the files that differ

ONNX files are assembled node by node and come out byte for byte the same everywhere. `.pt2`
archives are what torch.export saves, less everything about the machine that saved them, and the
same bytes with the same PyTorch. Another PyTorch version states other versions of itself and of its
formats, and may add members, so the check compares an archive's JSON without these versions, and
the bytes of its weights.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from branching import BRANCHING
from networks import (
    NETWORKS,
    SampleNetwork,
    cnn6,
    cnn6_d,
    lenet_main,
    tabular_mlp,
)
from onnx import TensorProto, helper, numpy_helper
from torch import nn

# What the ONNX writer cannot walk, because it is no chain of layers, comes as `.pt2` alone.
EXPORTED = (lenet_main, cnn6, cnn6_d, tabular_mlp, *BRANCHING)
OPSET, IR_VERSION = 17, 8

# Members of an archive that describe the file or the machine rather than the model. The checksum of
# the original members would no longer be true, and the example input is no part of a model.
DROPPED_MEMBERS = (".data/serialization_id",)
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
PROGRAM = "models/model.json"
KEPT_NODE_METADATA = ("nn_module_stack",)
VERSION_FIELDS = ("torch_version", "schema_version", "opset_version")


def onnx_bytes(name: str, network: SampleNetwork) -> bytes:
    """Serialise a chain of layers as ONNX: nodes are named after modules, initializers after
    parameters, and the batch axis of input `input` and output `output` is symbolic.

    Raises:
        TypeError: A layer of the network has no ONNX operator here.
    """
    layers = list(network.named_children())
    tensor = "input"
    nodes = []
    for index, (layer_name, layer) in enumerate(layers):
        output = "output" if index == len(layers) - 1 else layer_name
        operator, attributes = _onnx_operator(layer)
        parameters = [f"{layer_name}.{role}" for role, _ in layer.named_parameters()]
        nodes.append(
            helper.make_node(
                operator, [tensor, *parameters], [output], name=layer_name, **attributes
            )
        )
        tensor = output
    initializers = [
        numpy_helper.from_array(value.numpy(), parameter)
        for parameter, value in network.state_dict().items()
    ]
    with torch.no_grad():
        output_shape = network(torch.zeros(network.input_shape)).shape
    graph = helper.make_graph(
        nodes,
        name,
        [_onnx_value("input", network.input_shape)],
        [_onnx_value("output", output_shape)],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="leakaudit-sample-models",
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def pt2_bytes(name: str, network: nn.Module) -> bytes:
    """Export a network with torch.export and return the archive without stack traces, source paths
    and example inputs, its members in a fixed order with fixed times."""
    example = (torch.zeros(network.input_shape),)
    if isinstance(network, SampleNetwork):
        # A plain Sequential: the class of the exported module is written into the file.
        network = nn.Sequential(OrderedDict(network.named_children()))
    program = torch.export.export(network.eval(), example)
    saved = io.BytesIO()
    torch.export.save(program, saved)
    members = read_archive(saved.getvalue())
    members[SAMPLE_INPUTS] = b""  # must exist for torch.export.load; empty means none
    members[PROGRAM] = _without_traces(members[PROGRAM])
    for member in DROPPED_MEMBERS:
        members.pop(member, None)
    return _write_archive(name, members)


def read_archive(data: bytes) -> dict[str, bytes]:
    """Return the members of a `.pt2` archive by name, without the archive's top folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def same_model(committed: bytes, built: bytes, suffix: str) -> bool:
    """Whether two files hold the same model: equal bytes (ONNX), or equal JSON but for the versions
    of PyTorch and its formats, and equal weights (`.pt2`)."""
    if suffix == ".pt2":
        return _comparable(committed) == _comparable(built)
    return committed == built


def build() -> dict[str, bytes]:
    """Return every sample file by its name."""
    files = {
        f"{builder.__name__}.onnx": onnx_bytes(builder.__name__, builder()) for builder in NETWORKS
    }
    files |= {
        f"{builder.__name__}.pt2": pt2_bytes(builder.__name__, builder()) for builder in EXPORTED
    }
    return files


def outdated(files: Mapping[str, bytes], folder: Path) -> list[str]:
    """Return a line per file of `folder` that is missing, differs from `files` or is in excess."""
    problems = []
    for name, built in sorted(files.items()):
        path = folder / name
        if not path.exists():
            problems.append(f"{name}: missing")
        elif not same_model(path.read_bytes(), built, path.suffix):
            problems.append(f"{name}: differs from what its builder gives")
    present = {path.name for path in folder.iterdir() if path.suffix in {".onnx", ".pt2"}}
    problems += [f"{name}: no network builds it" for name in sorted(present - set(files))]
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the sample files, by command-line arguments; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the sample model files.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if not current")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder (default: this script's)"
    )
    arguments = parser.parse_args(argv)
    files = build()
    if arguments.check:
        problems = outdated(files, arguments.output)
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
        return 1 if problems else 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (arguments.output / name).write_bytes(data)
    return 0


def _onnx_operator(layer: nn.Module) -> tuple[str, dict[str, object]]:
    match layer:
        case nn.Conv2d():
            begin_and_end = [int(size) for size in layer.padding] * 2
            return "Conv", {
                "kernel_shape": list(layer.kernel_size),
                "strides": list(layer.stride),
                "pads": begin_and_end,
                "dilations": list(layer.dilation),
                "group": layer.groups,
            }
        case nn.Linear():
            return "Gemm", {"transB": 1}
        case nn.LeakyReLU():
            return "LeakyRelu", {"alpha": layer.negative_slope}
        case nn.ReLU():
            return "Relu", {}
        case nn.Sigmoid():
            return "Sigmoid", {}
        case nn.Tanh():
            return "Tanh", {}
        case nn.Flatten():
            return "Flatten", {"axis": layer.start_dim}
    raise TypeError(f"no ONNX operator for {type(layer).__name__}")


def _onnx_value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape[1:]])


def _without_traces(program: bytes) -> bytes:
    content = json.loads(program)
    for node in content["graph_module"]["graph"]["nodes"]:
        metadata = node["metadata"]
        node["metadata"] = {key: metadata[key] for key in KEPT_NODE_METADATA if key in metadata}
    return json.dumps(content).encode()


def _write_archive(name: str, members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member, data in sorted(members.items()):
            entry = zipfile.ZipInfo(f"{name}/{member}", (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # otherwise it names the operating system that wrote the file
            archive.writestr(entry, data)
    return buffer.getvalue()


def _comparable(archive: bytes) -> dict[str, object]:
    """The JSON members, parsed, without version fields, and the other data members as bytes."""
    content: dict[str, object] = {}
    for member, data in read_archive(archive).items():
        if member.endswith(".json"):
            parsed = json.loads(data)
            content[member] = {
                key: value for key, value in parsed.items() if key not in VERSION_FIELDS
            }
        elif member.startswith("data/"):
            content[member] = data
    return content


if __name__ == "__main__":
    sys.exit(main())
