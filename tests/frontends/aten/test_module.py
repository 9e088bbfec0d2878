"""Live modules: found, shaped, exported and left as they were."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import module
from leakaudit.frontends.interface import LoadOptions
from leakaudit.operators import Conv, Identity, Linear, Mul, Relu, Reshape

torch = pytest.importorskip("torch")

SOURCE = """
    from __future__ import annotations
    import torch
    from torch import nn
    from neighbour import CLASSES

    print("a line on stdout")

    class Net(nn.Module):
        input_shape = (1, 3, 6, 6)

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.act = nn.ReLU(inplace=True)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(64, CLASSES)
            self.head.bias.requires_grad_(False)

        def forward(self, x):
            print("forward")
            return self.head(self.drop(self.act(self.conv(x))).flatten(1))

    net = Net()
    net.train()
    net.conv.eval()

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, ids, mask=None):
            out = self.head(ids.float())
            return out if mask is None else out * mask

    def with_inputs():
        return Pair(), (torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 2))

    def sequential():
        return nn.Sequential(nn.Linear(4, 2))

    class Holder:
        make = staticmethod(sequential)

    def fails():
        raise ValueError("the first line\\nand a second")

    def exits():
        raise SystemExit("bye")

    def needs(argument):
        return Net()

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    number = 3

    def wrong():
        return 3
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "neighbour.py").write_text("CLASSES = 5\n")
    path = tmp_path / "models.py"
    path.write_text(textwrap.dedent(SOURCE))
    return str(path)


def refused(target: str, options: LoadOptions | None = None) -> str:
    with pytest.raises(AuditError) as caught:
        module.load(target, options or LoadOptions())
    assert "\n" not in str(caught.value)
    assert caught.value.target == target
    return f"{caught.value.reason} | {caught.value.remedy}"


def test_class_instance_and_factory(source):
    for name in ("Net", "net"):
        graph = module.load(f"{source}:{name}", LoadOptions())
        assert graph.format == "module"
        assert graph.inputs == ("x",)
        assert [type(node.op) for node in graph.nodes] == [Conv, Relu, Identity, Reshape, Linear]
        assert [node.name for node in graph.nodes if node.parameters] == ["conv", "head"]
        assert graph.tensors[graph.outputs[0]].shape == (1, 5)
        assert not graph.parameters["head.bias"].trainable
    options = LoadOptions(input_shapes={"": (3, 4)})
    for name in ("sequential", "Holder.make"):
        graph = module.load(f"{source}:{name}", options)
        assert graph.tensors[graph.outputs[0]].shape == (3, 2)


def test_weights_are_those_of_the_instance(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = module.load("models:net", LoadOptions(frozen=("conv.*",)))
    net = sys.modules["models"].net
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(graph.weights.load(name), tensor.numpy())
    assert not graph.parameters["conv.weight"].trainable
    # Evaluation mode was for the export alone, child by child.
    assert (net.training, net.conv.training, net.drop.training) == (True, False, True)
    del sys.modules["models"], sys.modules["neighbour"]


@pytest.mark.parametrize(
    ("part", "differs"),
    [
        ("nn.BatchNorm1d(4)", True),
        ("nn.BatchNorm1d(4, track_running_stats=False)", False),
        ("nn.InstanceNorm1d(4, track_running_stats=True)", True),
        ("nn.InstanceNorm1d(4)", False),
        ("nn.Dropout(0.5)", True),
        ("nn.Dropout(0.0)", False),
        ("nn.Dropout(0.5).eval()", False),
        ("nn.LayerNorm(4)", False),
    ],
)
def test_training_mode_is_left_with_a_note_where_it_matters(tmp_path, part, differs):
    path = tmp_path / "models.py"
    path.write_text(
        "from torch import nn\n"
        f"def net(): return nn.Sequential(nn.Conv1d(4, 4, 1), {part})\n"
        "def evaluated(): return net().eval()\n"
    )
    options = LoadOptions(input_shapes={"": (2, 4, 4)})
    said = ("the module was in training mode; audited in evaluation mode",)
    assert module.load(f"{path}:net", options).notes == (said if differs else ())
    assert module.load(f"{path}:evaluated", options).notes == ()


def test_results_have_stdout_for_themselves(source, capsys):
    module.load(f"{source}:Net", LoadOptions())
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a line on stdout\n"


def test_two_files_with_a_neighbour_of_one_name(source, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "neighbour.py").write_text("CLASSES = 9\n")
    (other / "models.py").write_text(Path(source).read_text())
    path = list(sys.path)
    first = module.load(f"{source}:Net", LoadOptions())
    second = module.load(f"{other / 'models.py'}:Net", LoadOptions())
    assert first.parameters["head.weight"].shape == (5, 64)
    assert second.parameters["head.weight"].shape == (9, 64)
    assert sys.path == path
    assert "neighbour" not in sys.modules


def test_input_shapes(source):
    net = f"{source}:Net"
    assert module.load(net, LoadOptions(batch_size=7)).tensors["x"].shape == (7, 3, 6, 6)
    options = LoadOptions(input_shapes={"x": (2, 3, 6, 6)})
    assert module.load(net, options).tensors["x"].shape == (2, 3, 6, 6)
    pair = f"{source}:with_inputs"
    graph = module.load(pair, LoadOptions())
    assert graph.inputs == ("ids", "mask")
    assert graph.tensors["ids"].dtype == "int64"
    assert isinstance(graph.nodes[-1].op, Mul)
    graph = module.load(pair, LoadOptions(batch_size=5))
    assert [graph.tensors[name].shape for name in graph.inputs] == [(5, 4), (5, 2)]
    graph = module.load(pair, LoadOptions(input_shapes={"ids": (3, 4), "mask": (3, 2)}))
    assert [graph.tensors[name].shape for name in graph.inputs] == [(3, 4), (3, 2)]
    graph = module.load(f"{source}:Pair", LoadOptions(input_shapes={"ids": (1, 4)}))
    assert graph.inputs == ("ids",)
    assert graph.tensors["ids"].dtype == "float32"


@pytest.mark.parametrize(
    ("attribute", "shapes", "expected"),
    [
        ("Nothing", {}, "no attribute 'Nothing'"),
        ("number", {}, "it is a int"),
        ("wrong", {}, "returns a int"),
        ("fails", {}, "(ValueError: the first line)"),
        ("exits", {}, "SystemExit: bye"),
        ("needs", {}, "missing 1 required positional argument"),
        ("sequential", {}, "--input-shape 1,3,32,32"),
        ("Pair", {}, "no input shape is known for ids"),
        ("Net", {"y": (1, 3, 6, 6)}, "no parameter 'y', it has: x"),
        ("Net", {"": (1, 3, 9, 9)}, "torch.export failed (RuntimeError"),
        ("Net", {"": (-1, 3, 9, 9)}, "no tensor of shape"),
        ("Branches", {"": (1, 4)}, "torch.export failed"),
    ],
)
def test_refusals(attribute, shapes, expected, source, capfd):
    assert expected in refused(f"{source}:{attribute}", LoadOptions(input_shapes=shapes))
    assert capfd.readouterr().out == ""


def test_targets_that_cannot_be_imported(source, tmp_path):
    assert "package.module:callable" in refused(source)
    assert "no such file" in refused(f"{tmp_path / 'absent.py'}:net")
    assert "ModuleNotFoundError" in refused("no_such_package_at_all:net")
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    assert "SyntaxError" in refused(f"{broken}:f")
    broken.write_text("raise SystemExit(1)\n")
    assert "SystemExit" in refused(f"{broken}:f")


def test_without_torch(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'leakaudit[confirm]'" in refused(f"{source}:Net")
