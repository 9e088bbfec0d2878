"""What the CI tests share: models to gate, and a runner's view of a script and of its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from places import ROOT

LEAKY = ROOT / "sample_models" / "lenet_main.onnx"
LFS_POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)


def save_safe_model(path: Path) -> None:
    """A model that passes: 108 + 256 equations for 3072 unknowns, which is proven to stop a path.

    No sample model would do: every one of them shows a leak.
    """
    weight = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "conv.weight"], ["output"], "conv", strides=[4, 4])],
        "safe",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    opsets = [helper.make_opsetid("", 17)]
    # Not onnx.save: the name may end in something that onnx takes for another format.
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    onnx.checker.check_model(str(path))


def install_stub(folder: Path, name: str, command: str) -> None:
    """Put an executable of this name into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{command}\n", encoding="utf-8")
    path.chmod(0o755)


def install_this_checkout(folder: Path) -> None:
    """Put this checkout's leakaudit, and its Python, where a script expects the installed ones."""
    install_stub(folder, "python", f"exec '{sys.executable}' \"$@\"")
    install_stub(folder, "leakaudit", f"exec '{sys.executable}' -P -m leakaudit \"$@\"")


BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")


def run_script(
    script: str, cwd: Path, variables: dict[str, str], shell: Sequence[str] = BASH
) -> Ran:
    """Run a script as CI runners do: it stops on errors, and sees only the runner's environment."""
    keep = ("HOME", "PATH", "TMPDIR", "LANG")
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key in keep or key.startswith(("PIP_", "OMP_", "SSL_"))
    }
    done = subprocess.run(
        [*shell, "-c", script],
        cwd=cwd,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended and what it wrote."""

    code: int
    stdout: str
    stderr: str


def workflow_commands(log: str) -> list[tuple[str, str]]:
    """The commands (name, rest of the line) that GitHub's runner takes from a log.

    `::name ...::` counts at the start of a line, `##[name]` anywhere in it, and neither between
    `::stop-commands::TOKEN` and `::TOKEN::`.
    """
    found: list[tuple[str, str]] = []
    token: str | None = None
    for line in log.splitlines():
        match = re.match(r"\s*::([\w-]+)((?: .*?)?::.*)", line) or re.search(
            r"##\[([\w-]+)(.*)", line
        )
        if match is None:
            continue
        name, rest = match[1], match[2]
        if token is not None:
            token = None if name == token else token
        elif name == "stop-commands":
            token = rest.removeprefix("::")
        else:
            found.append((name, rest))
    return found
