"""Fuzz target: export archives, mutated value by value from good ones, through the whole audit.

python tests/fuzz/fuzz_pt2.py [-max_total_time=600] [CORPUS]
"""

from __future__ import annotations

import copy
import io
import json
import tempfile
import zipfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from choices import Choices
from running import audited, fuzz

SAMPLES = Path(__file__).parents[2] / "sample_models"
MODEL = "models/model.json"
CONFIG = "data/weights/model_weights_config.json"
MUTATIONS = 6
MAX_DEPTH = 16
TARGETS = tuple(
    f"torch.ops.aten.{name}.default"
    for name in (
        *("relu_", "add_.Tensor", "view", "permute", "slice.Tensor", "select.int", "conv2d"),
        *("linear", "addmm", "flatten.using_ints", "max_pool2d", "avg_pool2d", "softmax.int"),
        *("layer_norm", "cat", "split.Tensor", "pad", "einsum", "expand", "arange", "gelu"),
    )
)


@cache
def _seeds() -> tuple[dict[str, bytes], ...]:
    found = []
    for name in ("tabular_mlp", "resnet_gap", "lenet_main", "vit"):
        with zipfile.ZipFile(SAMPLES / f"{name}.pt2") as archive:
            found.append({n.partition("/")[2]: archive.read(n) for n in archive.namelist()})
    return tuple(found)


@cache
def _documents(seed: int) -> tuple[Any, Any]:
    members = _seeds()[seed]
    return json.loads(members[MODEL]), json.loads(members[CONFIG])


def mutated(data: bytes) -> bytes:
    """The archive that these decisions lead to."""
    choices = Choices(data)
    seed = choices.one_of((0, 0, 0, 1, 1, 2, 3))
    members = dict(_seeds()[seed])
    program, config = copy.deepcopy(_documents(seed))
    names = list(program["graph_module"]["graph"]["tensor_values"])
    for _ in range(1 + choices.below(MUTATIONS)):
        if choices.left:
            _mutate(config if choices.below(8) == 0 else program, choices, names)
    members[MODEL], members[CONFIG] = json.dumps(program).encode(), json.dumps(config).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"m/{name}", content)
    made = bytearray(stream.getvalue())
    if choices.below(8) == 0:
        for _ in range(1 + choices.below(4)):  # the directory stands at the end
            place = len(made) - 1 - choices.below(min(2000, len(made)))
            made[place : place + 1] = choices.raw(1)
    return bytes(made)


def _mutate(parent: Any, choices: Choices, names: list[str]) -> None:
    """Walk down from an object to one value, and change that."""
    for _ in range(MAX_DEPTH):
        keys: list[Any] = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            return
        key = choices.one_of(keys)
        value = parent[key]
        if isinstance(value, dict | list) and value and choices.below(24):
            parent = value
            continue
        match choices.below(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(value))
            case 2 if isinstance(parent, dict):
                parent[key] = copy.deepcopy(parent[choices.one_of(keys)])
            case _:
                parent[key] = _value(key, value, choices, names)
        return


def _value(key: object, value: Any, choices: Choices, names: list[str]) -> Any:
    if choices.below(10) == 0:
        return choices.one_of([None, True, [], {}, "", 1.5, [[1]], {"as_int": 3}, -1])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return choices.integer()
    if isinstance(value, float):
        return choices.one_of([0.0, -1.0, 1e300, float("nan"), float("inf")])
    if isinstance(value, str):
        return choices.one_of(TARGETS) if key == "target" else choices.text(names)
    return choices.one_of([None, 0, "s0", {"as_expr": {"expr_str": choices.text(["s0 + 1"])}}])


def one_input(data: bytes) -> None:
    """Audit the archive that the bytes stand for; whatever escapes is a crash."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        path.write_bytes(mutated(data))
        audited(path)


if __name__ == "__main__":
    import_module("leakaudit.frontends.aten.reader")  # before it is watched
    fuzz(one_input)
