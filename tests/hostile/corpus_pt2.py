"""Export archives whose zip is sound and whose contents are not."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpus import Case, content

FILE = "model.pt2"
BASE = Path(__file__).parents[2] / "sample_models" / "tabular_mlp.pt2"
MODEL = "models/model.json"
CONFIG = "data/weights/model_weights_config.json"
Json = dict[str, Any]
HUGE = 2**62


def members() -> dict[str, bytes]:
    """A good archive, member by member, without the folder that holds them."""
    with zipfile.ZipFile(BASE) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archive(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An export archive of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        for name, data in parts.items():
            info = zipfile.ZipInfo(f"m/{name}")
            info.compress_type = compression
            made.writestr(info, data)
    return stream.getvalue()


def pt2_cases() -> list[Case]:
    """Good archives with one thing changed."""
    good = members()
    cases = [
        content(f"pt2: {name}", FILE, archive({**good, MODEL: data}))
        for name, data in _documents(good[MODEL]).items()
    ]
    program = json.loads(good[MODEL])
    for name, change in {**_programs(), **_sizes(), **_expressions()}.items():
        changed = copy.deepcopy(program)
        change(changed)
        data = json.dumps(changed).encode()
        cases.append(content(f"pt2: {name}", FILE, archive({**good, MODEL: data})))
    for name, data in _mistyped(program):
        cases.append(content(f"pt2: {name}", FILE, archive({**good, MODEL: data})))
    for name, change in _configs().items():
        changed = json.loads(good[CONFIG])
        change(changed)
        data = json.dumps(changed).encode()
        cases.append(content(f"pt2: {name}", FILE, archive({**good, CONFIG: data})))
    return cases


def _documents(model: bytes) -> dict[str, bytes]:
    return {
        "program of nothing": b"",
        "program of null": b"null",
        "program that is a list": b"[]",
        "program cut in half": model[: len(model) // 2],
        "program with trailing text": model + b"x",
        "program of 100000 open brackets": b"[" * 100_000,
        "program of 100000 nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "program with 3000 nested lists": model.replace(
            b'"outputs"', b'"deep": ' + b"[" * 3000 + b"]" * 3000 + b', "outputs"', 1
        ),
        "program that is not UTF-8": model.replace(b"linear", b"lin\xffar"),
        "program of another encoding": model.decode().encode("utf-16"),
        "program with a number of 10000 digits": model.replace(
            b": 64}", b": " + b"9" * 10_000 + b"}"
        ),
        "program with what is not a number": model.replace(b'{"as_int": 64}', b'{"as_int": NaN}'),
        "program with infinity": model.replace(b'{"as_int": 64}', b'{"as_int": Infinity}'),
        "program with a size in text": model.replace(b'{"as_int": 64}', b'{"as_int": "64"}'),
        "program with a fractional size": model.replace(b'{"as_int": 64}', b'{"as_int": 64.5}'),
        "program with a true size": model.replace(b'{"as_int": 1}', b'{"as_int": true}'),
        "program that is a zip": archive({"a": b"b"}),
    }


def _graph(program: Json) -> Json:
    graph: Json = program["graph_module"]["graph"]
    return graph


def _meta(program: Json, name: str) -> Json:
    meta: Json = _graph(program)["tensor_values"][name]
    return meta


def _argument(program: Json, node: int, index: int) -> Json:
    argument: Json = _graph(program)["nodes"][node]["inputs"][index]["arg"]
    return argument


def _programs() -> dict[str, Callable[[Json], object]]:
    def reads(node: int, index: int, name: str) -> Callable[[Json], object]:
        return lambda p: _argument(p, node, index)["as_tensor"].update(name=name)

    def nodes(change: Callable[[list[Json]], object]) -> Callable[[Json], object]:
        return lambda p: change(_graph(p)["nodes"])

    def target(name: str) -> Callable[[Json], object]:
        return nodes(lambda calls: calls[1].update(target=name))

    def specs(change: Callable[[list[Json]], object], kind: str) -> Callable[[Json], object]:
        return lambda p: change(p["graph_module"]["signature"][kind])

    return {
        "a cycle": reads(0, 0, "relu"),
        "a call that reads itself": reads(1, 0, "relu"),
        "a value that nothing computes": reads(2, 0, "nowhere"),
        "calls in the wrong order": nodes(lambda calls: calls.reverse()),
        "a call twice": nodes(lambda calls: calls.append(calls[0])),
        "a call left out": nodes(lambda calls: calls.pop(1)),
        "no calls": nodes(lambda calls: calls.clear()),
        "300000 calls": nodes(lambda calls: calls.extend([{}] * 300_000)),
        "a call that computes its input": nodes(
            lambda calls: calls[1].update(outputs=[{"as_tensor": {"name": "linear"}}])
        ),
        "a call without output": nodes(lambda calls: calls[1].update(outputs=[])),
        "an operator of no library": target("torch.ops.evil.rm.default"),
        "an operator with a path": target("../../bin/sh"),
        "an operator with an escape": target("\x1b]0;title\x07"),
        "an operator that is Python": target("__import__('os').system"),
        "no inputs": specs(lambda entries: entries.clear(), "input_specs"),
        "no outputs": specs(lambda entries: entries.clear(), "output_specs"),
        "the input twice": specs(lambda entries: entries.append(entries[-1]), "input_specs"),
        "a weight twice": specs(lambda entries: entries.append(entries[0]), "input_specs"),
        "a weight left out": specs(lambda entries: entries.pop(0), "input_specs"),
        "an output that nothing computes": lambda p: p["graph_module"]["signature"]["output_specs"][
            0
        ]["user_output"]["arg"]["as_tensor"].update(name="z"),
        "schema version 7": lambda p: p["schema_version"].update(major=7),
        "schema version -1": lambda p: p["schema_version"].update(major=-1),
        "schema version 2^62": lambda p: p["schema_version"].update(major=HUGE),
        "arguments nested 900 deep": lambda p: _argument(p, 0, 0).update(as_tensors=_nested(900)),
    }


def _nested(depth: int) -> Any:
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def _sizes() -> dict[str, Callable[[Json], object]]:
    def sized(name: str, *sizes: int) -> Callable[[Json], object]:
        return lambda p: _meta(p, name).update(sizes=[{"as_int": size} for size in sizes])

    def dtype(name: str, code: object) -> Callable[[Json], object]:
        return lambda p: _meta(p, name).update(dtype=code)

    return {
        "input of 2^62 by 2^62": sized("input", HUGE, HUGE),
        "input of 2^40 numbers": sized("input", 2**10, 2**30),
        "input of 10^400 numbers": sized("input", 10**200, 10**200),
        "input of negative size": sized("input", 1, -30),
        "input of the least number": sized("input", -(2**63), 30),
        "input of 100 axes": sized("input", *(1,) * 100),
        "input of another width": sized("input", 1, 31),
        "weight of 2^62 by 2^62": sized("p_fc1_weight", HUGE, HUGE),
        "weight of another shape": sized("p_fc1_weight", 30, 64),
        "weight of negative size": sized("p_fc1_weight", -64, -30),
        "hidden values of another size": sized("linear", 1, 63),
        "hidden values of 2^62": sized("linear", 1, HUGE),
        "hidden values of 100 axes": sized("relu", *(1,) * 100),
        "input of dtype 0": dtype("input", 0),
        "input of dtype 999": dtype("input", 999),
        "input of dtype -1": dtype("input", -1),
        "input of dtype text": dtype("input", "float32"),
        "weight of another dtype": dtype("p_fc1_weight", 8),
    }


def _expressions() -> dict[str, Callable[[Json], object]]:
    """Sizes as expressions, which are parsed and must never be run."""

    def symbolic(text: str) -> Callable[[Json], object]:
        size = {"as_expr": {"expr_str": text, "hint": {"as_int": 30}}}
        return lambda p: _meta(p, "linear").update(sizes=[{"as_int": 1}, size])

    texts = {
        "an import": "__import__('os').system('touch executed')",
        "an attribute": "().__class__.__bases__[0].__subclasses__()",
        "a power tower": "9**9**9**9**9",
        "a shift": "1 << (1 << 60)",
        "a list": "[0] * 10**12",
        "a lambda": "(lambda: 1)()",
        "a walrus": "(s0 := 5)",
        "a division by zero": "64 / 0",
        "a modulus by zero": "Mod(64, 0)",
        "an unknown symbol": "s99",
        "a fraction": "127 / 2",
        "a negative size": "-64",
        "nothing": "",
        "half an expression": "64 + (",
        "100000 brackets": "(" * 100_000 + "64" + ")" * 100_000,
        "5000 minus signs": "-" * 5000 + "64",
        "5000 additions": "+".join(["1"] * 5000),
        "a NUL": "64\0",
    }
    return {f"a size that is {name}": symbolic(text) for name, text in texts.items()}


def _mistyped(program: Json) -> Iterator[tuple[str, bytes]]:
    """Everything that the reader needs, left out and replaced by something else."""
    paths: list[tuple[str, ...]] = [
        ("schema_version",),
        ("schema_version", "major"),
        ("graph_module",),
        ("graph_module", "signature"),
        ("graph_module", "signature", "input_specs"),
        ("graph_module", "signature", "output_specs"),
        ("graph_module", "graph"),
        ("graph_module", "graph", "nodes"),
        ("graph_module", "graph", "tensor_values"),
        ("graph_module", "graph", "tensor_values", "linear"),
        ("graph_module", "graph", "tensor_values", "linear", "sizes"),
        ("graph_module", "graph", "tensor_values", "linear", "dtype"),
    ]
    for path in paths:
        for name, value in (("missing", None), ("null", None), ("a text", "x"), ("a list", [[1]])):
            changed = copy.deepcopy(program)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            if name == "missing":
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            yield f"{'.'.join(path)} {name}", json.dumps(changed).encode()


def _configs() -> dict[str, Callable[[Json], object]]:
    def first(config: Json) -> Json:
        entry: Json = next(iter(config["config"].values()))
        return entry

    def meta(**values: object) -> Callable[[Json], object]:
        return lambda config: first(config)["tensor_meta"].update(values)

    def ints(*values: int) -> list[Json]:
        return [{"as_int": value} for value in values]

    return {
        "weights without configuration": lambda config: config.pop("config"),
        "weights configured by a list": lambda config: config.update(config=[1, 2]),
        "a weight whose file is missing": lambda config: first(config).update(path_name="none"),
        "a weight at ../": lambda config: first(config).update(path_name="../../models/model.json"),
        "a weight at an absolute path": lambda config: first(config).update(
            path_name="/etc/passwd"
        ),
        "a weight at a number": lambda config: first(config).update(path_name=3),
        "stored sizes of 2^62": meta(sizes=ints(HUGE, HUGE)),
        "stored sizes below zero": meta(sizes=ints(-64, 30)),
        "stored sizes that overflow": meta(sizes=ints(2**32 + 64, 2**32 + 30)),
        "stored sizes beyond the data": meta(sizes=ints(64, 31)),
        "stored strides of 2^62": meta(strides=ints(HUGE, HUGE)),
        "stored strides below zero": meta(strides=ints(-30, 1)),
        "stored strides beyond the data": meta(strides=ints(31, 1)),
        "one stored stride": meta(strides=ints(1)),
        "a storage offset of 2^62": meta(storage_offset={"as_int": HUGE}),
        "a storage offset below zero": meta(storage_offset={"as_int": -1}),
        "a storage offset beyond the data": meta(storage_offset={"as_int": 1}),
        "a stored dtype that is none": meta(dtype=999),
    }
