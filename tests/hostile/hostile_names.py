"""Networks whose every name is an attack on whatever shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from corpus_onnx import good_model
from corpus_pt2 import CONFIG, MODEL, archive, members
from onnx import helper

ATTACKS = (
    "\x1b[31mred\x1b]0;title\x07",  # terminal: colour, title
    "\x9b2J",  # the same by one C1 byte
    "<script>alert(1)</script><img src=x onerror=alert(1)>",  # HTML
    "]]>&lt;&#60;",  # XML
    "\n::error::forged",  # GitHub
    "\r\n##vso[task.complete]##[error]forged",  # Azure
    "../../outside",  # paths
    "|col|[link](https://evil.example)![img](https://evil.example/i)`*_~",  # Markdown
    "\u202egnp.exe\u2066\u200b\ufeff",  # direction, invisible
    "\0end",  # C strings
    "\"quoted'%0A{X}$(id)",  # quotes, templates, shells
)
EVERYTHING = "".join(ATTACKS)


def hostile(name: str) -> str:
    """The name with all attacks behind it; different names stay different."""
    return f"{name}{EVERYTHING}" if name else name


def onnx_bytes() -> bytes:
    """Nodes, tensors, weights, graph, producer and symbolic names."""
    model = good_model()
    graph = model.graph
    for node in graph.node:
        node.name = hostile(node.name)
        node.doc_string = EVERYTHING
        node.input[:] = map(hostile, node.input)
        node.output[:] = map(hostile, node.output)
    for named in (*graph.initializer, *graph.input, *graph.output):
        named.name = hostile(named.name)
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = EVERYTHING
    graph.name = graph.doc_string = model.producer_name = model.doc_string = EVERYTHING
    model.metadata_props.add(key=EVERYTHING, value=EVERYTHING)
    return bytes(model.SerializeToString())


def onnx_of_unknown_operators() -> bytes:
    """The same with an operator and a domain of hostile names: an incomplete audit."""
    model = onnx.ModelProto.FromString(onnx_bytes())
    model.graph.node[1].op_type = EVERYTHING
    model.graph.node[1].domain = EVERYTHING
    model.opset_import.append(helper.make_opsetid(EVERYTHING, 1))
    return bytes(model.SerializeToString())


def pt2_bytes() -> bytes:
    """Values, calls and weights."""
    parts = members()
    known: set[str] = set()
    program, config = json.loads(parts[MODEL]), json.loads(parts[CONFIG])
    known.update(program["graph_module"]["graph"]["tensor_values"])
    known.update(config["config"])
    known.update(node["name"] for node in program["graph_module"]["graph"]["nodes"])
    # Names of arguments belong to the operators.
    known -= {"self", "weight", "bias"}

    def renamed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            argument = "arg" in value and "kind" in value
            return {
                (hostile(k) if k in known and not (argument and k == "name") else k): (
                    v if argument and k == "name" else renamed(v, k)
                )
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [renamed(entry, key) for entry in value]
        return hostile(value) if isinstance(value, str) and value in known else value

    changed = {MODEL: renamed(program), CONFIG: renamed(config)}
    return archive({**parts, **{k: json.dumps(v).encode() for k, v in changed.items()}})


def write_all(folder: Path) -> list[Path]:
    """The three files, under names that are attacks as far as a file system takes them."""
    stem = "m\x1b[31m\n::error::forged<u>|`\u202e"
    files = {
        f"{stem}.onnx": onnx_bytes(),
        f"{stem}unknown.onnx": onnx_of_unknown_operators(),
        f"{stem}.pt2": pt2_bytes(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]
