"""The sample models: current, clean, true to the published networks, and equal to PyTorch."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

SAMPLES = Path(__file__).parents[1] / "sample_models"
SIZE_LIMIT = 8_000_000  # bytes, all files together

NAMES = [
    "lenet",
    "lenet_main",
    "lenet_main_leakyrelu",
    "lenet_main_sigmoid",
    "lenet_main_tanh",
    "lenet_o",
    "cnn6_o",
    "lenet_4relu",
    "lenet_allrelu",
    "lenet_dlg",
    "cnn6",
    "cnn6_d",
    "lenet_underdetermined",
    "lenet_unread",
    "tabular_mlp",
    "mlp_nobias",
]
EXPORTED = ["lenet_main", "cnn6", "cnn6_d", "tabular_mlp"]

# Convolutions as "in-out kernel stride padding", then the activations' initials (L leaky with slope
# 0.2, R relu, S sigmoid, T tanh), then the dense layer.
R_CONV_FRONT = ["3-12 k5 s2 p2", "12-16 k5 s2 p2"]
R_CONV_MAIN = [*R_CONV_FRONT, "16-12 k5 s1 p2", "12-3 k5 s1 p2"]
R_CONV_NARROW = [*R_CONV_FRONT, "16-3 k5 s1 p2", "3-3 k5 s1 p2"]
R_GAP_BACK = ["36-36 k3 s1 p1", "36-64 k3 s2 p1", "64-128 k3 s1 p1"]
ARCHITECTURES = {
    "lenet": ([*R_CONV_FRONT, "16-12 k5 s1 p2", "12-12 k5 s1 p2"], "LLRR", "768-100"),
    "lenet_main": (R_CONV_MAIN, "LLRR", "192-100"),
    "lenet_main_leakyrelu": (R_CONV_MAIN, "LLLL", "192-100"),
    "lenet_main_sigmoid": (R_CONV_MAIN, "LLSS", "192-100"),
    "lenet_main_tanh": (R_CONV_MAIN, "LLTT", "192-100"),
    "lenet_o": (R_CONV_NARROW, "LLRR", "192-100"),
    "cnn6_o": ([*R_CONV_NARROW, *["3-3 k5 s1 p2"] * 2], "LLRRRR", "192-10"),
    "lenet_4relu": (
        ["3-12 k5 s2 p2", "12-22 k5 s2 p2", "22-3 k5 s1 p2", "3-3 k5 s1 p2"],
        "LRRR",
        "192-100",
    ),
    "lenet_allrelu": (
        ["3-77 k5 s2 p2", "77-22 k5 s2 p2", "22-3 k5 s1 p2", "3-3 k5 s1 p2"],
        "RRRR",
        "192-100",
    ),
    "lenet_dlg": (
        ["3-12 k5 s2 p2", "12-12 k5 s2 p2", "12-12 k5 s1 p2"],
        "SSS",
        "768-100",
    ),
    "cnn6": (
        ["3-12 k4 s2 p2", "12-36 k3 s2 p1", "36-36 k3 s1 p1", *R_GAP_BACK],
        "LLLLLL",
        "3200-1",
    ),
    "cnn6_d": (
        ["3-12 k4 s2 p2", "12-20 k3 s2 p1", "20-36 k3 s1 p1", *R_GAP_BACK],
        "LLLLLL",
        "3200-1",
    ),
}
INITIALS = {"LeakyReLU": "L", "ReLU": "R", "Sigmoid": "S", "Tanh": "T"}

# Per convolution: |X|, |A|, |B|.
COUNTS = {
    "lenet_main": [(3072, 900, 3072), (3072, 4800, 1024), (1024, 4800, 768), (768, 900, 192)],
    "cnn6_d": [
        (3072, 576, 3468),
        (3468, 2160, 1620),
        (1620, 6480, 2916),
        (2916, 11664, 2916),
        (2916, 20736, 1600),
        (1600, 73728, 3200),
    ],
    "lenet_underdetermined": [
        (3072, 300, 1024),
        (1024, 1200, 768),
        (768, 3600, 768),
        (768, 900, 192),
    ],
    "lenet_unread": [(3072, 36, 3072), (3072, 4800, 1024), (1024, 4800, 768), (768, 900, 192)],
}

SHORT_TRACE = re.compile(rb'\.py\b|/[\w.-]+/|[A-Z]:\\|File \\*"|stack_trace|__main__')
LONG_TRACES = (b"/home/", b"/root/", b"/usr/", b"site-packages", b'File "', b"stack_trace")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Loaded by path alone, as leakaudit loads `sample_models/networks.py:lenet_main`.
networks = _module(SAMPLES / "networks.py")


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "networks", networks)
        yield _module(SAMPLES / "build.py")


def _network(name: str):
    return getattr(networks, name)()


def _probes(name: str) -> list[torch.Tensor]:
    """A noise image and a smooth, dark one; records of 30 features for the dense networks."""
    shape = _network(name).input_shape
    generator = torch.Generator().manual_seed(20)
    noise = torch.rand(shape, generator=generator)
    if len(shape) == 2:
        return [noise, 2 * noise - 1]
    coarse = 0.5 * torch.rand((1, 3, 4, 4), generator=generator)
    return [noise, torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")]


def _convolutions(name: str, image: torch.Tensor):
    """Layer, input, output and the loss gradient of the output of every convolution, in float64.

    The label is 0, the loss that of the network's kind.
    """
    network, seen = _network(name).double(), []

    def keep(layer, inputs, output):
        output.retain_grad()
        seen.append((layer, inputs[0].detach(), output))

    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(keep)
    _loss(network(image.double())).backward()
    return [(layer, inputs, output.detach(), output.grad) for layer, inputs, output in seen]


def _loss(output: torch.Tensor) -> torch.Tensor:
    if output.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(output, torch.zeros(1, 1))
    return torch.nn.functional.cross_entropy(output, torch.tensor([0]))


def _stacked_rank(layer, inputs, gradient) -> int:
    """Numerical rank of gradient and weight constraints together, got by differentiation."""

    def constraints(x: torch.Tensor) -> torch.Tensor:
        weight = layer.weight
        output = torch.nn.functional.conv2d(x, weight, None, layer.stride, layer.padding)
        (weight_gradient,) = torch.autograd.grad(
            (output * gradient).sum(), weight, create_graph=True
        )
        scale = gradient.abs().max()
        return torch.cat([weight_gradient.flatten() / scale, output.flatten()])

    # Both kinds are linear in the input, so unit inputs give the columns of the matrix.
    columns = []
    for index in range(inputs.numel()):
        unit = torch.zeros(inputs.numel(), dtype=torch.float64)
        unit[index] = 1
        columns.append(constraints(unit.reshape(inputs.shape)).detach())
    matrix = torch.stack(columns, dim=1)  # shape: (|A| + |B|, |X|)
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-10))


def _run_onnx(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": batch})
    return output


def _assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    # Logits reach several thousand; float32 sums differ by their order.
    assert np.abs(actual - expected).max() <= 2e-5 * np.abs(expected).max()


# --- the networks --------------------------------------------------------------------------------


def test_registry_names_every_builder() -> None:
    public = {
        name
        for name, value in vars(networks).items()
        if isinstance(value, Callable)
        and getattr(value, "__module__", "") == networks.__name__
        and not name.startswith("_")
        and not isinstance(value, type)
    }
    assert [builder.__name__ for builder in networks.NETWORKS] == NAMES
    assert public == set(NAMES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_is_the_published_one(name: str) -> None:
    layers = list(_network(name))
    convolutions = [
        f"{layer.in_channels}-{layer.out_channels} k{layer.kernel_size[0]} s{layer.stride[0]} "
        f"p{layer.padding[0]}"
        for layer in layers
        if isinstance(layer, torch.nn.Conv2d)
    ]
    activations = [layer for layer in layers if type(layer).__name__ in INITIALS]
    (dense,) = (layer for layer in layers if isinstance(layer, torch.nn.Linear))
    expected = ARCHITECTURES[name]
    assert convolutions == expected[0]
    assert "".join(INITIALS[type(layer).__name__] for layer in activations) == expected[1]
    assert f"{dense.in_features}-{dense.out_features}" == expected[2]
    assert {x.negative_slope for x in activations if hasattr(x, "negative_slope")} <= {0.2}
    assert len(layers) == len(convolutions) + len(activations) + 2  # flatten and the dense layer
    has_bias = any(parameter.endswith("bias") for parameter, _ in _network(name).named_parameters())
    assert has_bias == (name not in {"cnn6", "cnn6_d"})


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_uniform_and_the_same_in_every_run(name: str) -> None:
    before = torch.get_rng_state()
    first, second = _network(name).state_dict(), _network(name).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    values = torch.cat([value.flatten() for value in first.values()])
    assert values.dtype == torch.float32
    assert -0.5 <= values.min() < -0.49
    assert 0.49 < values.max() < 0.5
    assert abs(values.var() - 1 / 12) < 0.005


@pytest.mark.parametrize("name", COUNTS)
def test_constraint_counts(name: str) -> None:
    counts = [
        (inputs.numel(), layer.weight.numel(), output.numel())
        for layer, inputs, output, _ in _convolutions(name, _probes(name)[0])
    ]
    assert counts == COUNTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_label_zero_sends_a_gradient_for_every_layer(name: str) -> None:
    for probe in _probes(name):
        network = _network(name)
        _loss(network(probe)).backward()
        for parameter, value in network.named_parameters():
            assert torch.isfinite(value.grad).all(), parameter
            assert value.grad.abs().max() > 1e-3, parameter


@pytest.mark.parametrize("name", [*ARCHITECTURES, "lenet_underdetermined", "lenet_unread"])
def test_label_zero_is_never_the_prediction(name: str) -> None:
    generator = torch.Generator().manual_seed(21)
    coarse = torch.rand((200, 3, 5, 5), generator=generator)
    ranges = torch.rand((2, 200, 1, 1, 1), generator=generator).sort(dim=0).values
    images = ranges[0] + (ranges[1] - ranges[0]) * torch.nn.functional.interpolate(
        coarse, size=(32, 32), mode="bilinear"
    )
    with torch.no_grad():
        output = _network(name)(images)
    # A single logit predicts label 1 where it is positive.
    predicted = output[:, 0] > 0 if output.shape[1] == 1 else output.argmax(dim=1)
    assert (predicted != 0).all()


def test_second_convolution_of_cnn6_d() -> None:
    _, second, *_ = _convolutions("cnn6_d", _probes("cnn6_d")[0])
    _, inputs, output, _ = second
    assert tuple(inputs.shape) == (1, 12, 17, 17)
    assert tuple(output.shape) == (1, 20, 9, 9)


def test_underdetermined_sample_stops_at_its_first_layer_and_nowhere_else() -> None:
    first, *others = _convolutions("lenet_underdetermined", _probes("lenet_underdetermined")[0])
    layer, inputs, output, _ = first
    assert inputs.numel() > layer.weight.numel() + output.numel()
    for layer, inputs, _, gradient in others:
        assert _stacked_rank(layer, inputs, gradient) == inputs.numel()


def test_unread_sample_reads_one_pixel_of_four() -> None:
    network = _network("lenet_unread")
    image = _probes("lenet_unread")[0].requires_grad_()
    _loss(network(image)).backward()
    unread = image.grad == 0
    assert int(unread.sum()) == 2304
    assert not unread[..., ::2, ::2].any()
    # The source material's rule flags the layer all the same.
    (_, inputs, output, _), *_ = _convolutions("lenet_unread", image.detach())
    assert inputs.numel() <= network.conv1.weight.numel() + output.numel()


# --- the files -----------------------------------------------------------------------------------


def test_files_are_current() -> None:
    script = SAMPLES / "build.py"
    run = subprocess.run(
        [sys.executable, script, "--check"],
        capture_output=True,
        text=True,
        cwd=SAMPLES.parent,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("", 0)


def test_two_builds_are_identical_and_check_sees_every_difference(
    build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(["--output", str(tmp_path)]) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(written) == sorted(
        [f"{name}.onnx" for name in NAMES] + [f"{name}.pt2" for name in EXPORTED]
    )
    assert build.build() == written

    changed = bytearray(written["lenet.onnx"])
    changed[-100] ^= 1
    (tmp_path / "lenet.onnx").write_bytes(changed)
    members = build.read_archive(written["cnn6.pt2"])
    weights = bytearray(members["data/weights/weight_0"])
    weights[0] ^= 1
    (tmp_path / "cnn6.pt2").write_bytes(
        _archive(members | {"data/weights/weight_0": bytes(weights)})
    )
    (tmp_path / "tabular_mlp.onnx").unlink()
    (tmp_path / "stray.onnx").write_bytes(b"")
    capsys.readouterr()
    assert build.main(["--check", "--output", str(tmp_path)]) == 1
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "cnn6.pt2",
        "lenet.onnx",
        "tabular_mlp.onnx",
        "stray.onnx",
    ]


def test_another_pytorch_version_is_not_a_difference(build: ModuleType) -> None:
    committed = (SAMPLES / "tabular_mlp.pt2").read_bytes()
    members = build.read_archive(committed)
    program = members["models/model.json"]

    newer, versions = re.subn(rb'"torch_version": "[^"]+"', b'"torch_version": "9.9"', program)
    assert versions == 1
    assert build.same_model(
        committed, _archive(members | {"models/model.json": newer, "new_member": b"1"}), ".pt2"
    )
    other = program.replace(b"aten.relu", b"aten.tanh")
    assert other != program
    assert not build.same_model(committed, _archive(members | {"models/model.json": other}), ".pt2")


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    return buffer.getvalue()


def test_files_are_small_and_all_in_the_readme() -> None:
    files = [path for path in SAMPLES.iterdir() if path.suffix in {".onnx", ".pt2"}]
    assert len(files) == len(NAMES) + len(EXPORTED)
    assert sum(path.stat().st_size for path in files) < SIZE_LIMIT
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)
    assert rows == NAMES


def _parts(data: bytes, suffix: str) -> list[tuple[bytes, bool]]:
    """The parts of a file; the flag says whether a part is numbers, in which three characters of
    text occur by chance."""
    if suffix == ".pt2":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [
                (archive.read(name), "/data/weights/weight_" in name) for name in archive.namelist()
            ] + [(" ".join(archive.namelist()).encode(), True)]
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        tensor.raw_data = b""
    return [(model.SerializeToString(), False), (data, True)]


def _traces(data: bytes, suffix: str) -> set[bytes]:
    machine = (str(SAMPLES.parent).encode(), sys.prefix.encode())
    found = set()
    for part, is_numbers in _parts(data, suffix):
        found |= {trace for trace in (*LONG_TRACES, *machine) if trace in part}
        found |= set() if is_numbers else set(SHORT_TRACE.findall(part))
    return found


def test_no_file_says_anything_about_the_machine_that_wrote_it() -> None:
    for path in SAMPLES.iterdir():
        if path.suffix in {".onnx", ".pt2"}:
            assert _traces(path.read_bytes(), path.suffix) == set(), path.name


def test_the_search_finds_the_traces_that_pytorch_leaves() -> None:
    chain = torch.nn.Sequential(OrderedDict(_network("tabular_mlp").named_children()))
    saved = io.BytesIO()
    torch.export.save(torch.export.export(chain, (torch.zeros(1, 30),)), saved)
    assert {b".py", b"site-packages", b"stack_trace"} <= _traces(saved.getvalue(), ".pt2")


@pytest.mark.parametrize("name", EXPORTED)
def test_archives_hold_no_pickle_and_no_example(name: str) -> None:
    with zipfile.ZipFile(SAMPLES / f"{name}.pt2") as archive:
        assert archive.testzip() is None
        assert archive.read(f"{name}/data/sample_inputs/model.pt") == b""
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        members = [archive.read(member) for member in archive.namelist()]
    assert not any(data.startswith((b"PK\x03\x04", b"\x80\x02")) for data in members)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_computes_what_the_network_computes(name: str) -> None:
    batch = torch.cat(_probes(name))
    with torch.no_grad():
        expected = _network(name)(batch).numpy()
    _assert_close(_run_onnx(SAMPLES / f"{name}.onnx", batch.numpy()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_keeps_the_names_and_leaves_the_batch_open(name: str) -> None:
    model, network = onnx.load(SAMPLES / f"{name}.onnx"), _network(name)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert [node.name for node in model.graph.node] == [key for key, _ in network.named_children()]
    assert [value.name for value in model.graph.initializer] == list(network.state_dict())
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", EXPORTED)
def test_archives_load_and_compute_what_the_network_computes(name: str) -> None:
    path = SAMPLES / f"{name}.pt2"
    program = torch.export.load(path)  # noqa: TID251 our own file
    network = _network(name)
    assert list(program.state_dict) == list(network.state_dict())
    for probe in _probes(name):
        with torch.no_grad():
            _assert_close(program.module()(probe).numpy(), network(probe).numpy())
