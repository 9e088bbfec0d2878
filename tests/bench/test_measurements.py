"""Memory, machine, result files, and the small runs of `bench scale`, `solve` and `audit`."""

from __future__ import annotations

import getpass
import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from places import SAMPLES as MODELS

torch = pytest.importorskip("torch")

from click.testing import CliRunner

from leakaudit.bench import audit_time, scale, solve_time
from leakaudit.bench.layers import first_layer
from leakaudit.bench.machine import environment, measure
from leakaudit.bench.results_io import ResultFile, finite, read_rows
from leakaudit.cli.bench import bench
from leakaudit.errors import UsageError

RESULTS = Path(scale.__file__).parent / "results"


def test_memory_of_a_call_is_what_it_touches_at_its_highest() -> None:
    size = 96 << 20
    _, measured = measure(lambda: (torch.ones(size, dtype=torch.uint8), None)[1])
    if measured.peak_bytes is None:
        pytest.skip("this system does not tell")
    assert 0.9 * size < measured.peak_bytes < 1.5 * size
    # Given back before: a second, smaller call is not charged for it.
    _, after = measure(lambda: (torch.ones(size // 8, dtype=torch.uint8), None)[1])
    assert after.peak_bytes is not None
    assert after.peak_bytes < size // 2


def test_the_environment_names_no_machine_and_no_folder() -> None:
    text = json.dumps(environment())
    assert torch.__version__.split("+")[0] in text
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert getpass.getuser() not in text or len(getpass.getuser()) < 5


def test_rows_are_on_disk_as_soon_as_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results = ResultFile(path, "table", {}, {})
    assert read_rows(path) == []
    results.add({"a": 1.23456789, "b": math.inf})
    assert read_rows(path) == [{"a": 1.235, "b": None}]
    results.finish({"c": math.nan})
    content = json.loads(path.read_text("utf-8"))
    assert (content["complete"], content["summary"]) == (True, {"c": None})


def test_small_numbers_keep_their_digits() -> None:
    assert finite({"mse": 1.23456e-27, "n": 123456789}) == {"mse": 1.235e-27, "n": 123456789}


@pytest.mark.parametrize("power", [0.7, 1.0, 1.3])
def test_the_exponent_of_a_power_law_is_found(power: float) -> None:
    rows = [
        {"series": name, "sweep": "size", "unknowns": n, "seconds": 3e-6 * n**power}
        for name in scale.SERIES
        for n in (12_000, 40_000, 150_000)
    ]
    # Below the range of the fit: overhead, which must not enter.
    rows += [
        {"series": name, "sweep": "size", "unknowns": 100, "seconds": 1.0} for name in scale.SERIES
    ]
    assert scale.exponents(rows) == pytest.approx(dict.fromkeys(scale.SERIES, power))


def test_no_exponent_from_one_point() -> None:
    assert scale.slope([(1.0, 2.0), (1.0, 3.0)]) is None


def test_the_layers_equations_hold_for_its_input() -> None:
    system, x = first_layer(20, 5, 3, 2, seed=1)
    w = system.w.clone().requires_grad_(True)
    o = torch.nn.functional.conv2d(x, w, stride=2, padding=1)
    assert system.G is not None
    assert system.mask is not None
    (dw,) = torch.autograd.grad(o, w, system.G)
    torch.testing.assert_close(dw, system.dw)
    torch.testing.assert_close(o.detach().clamp_min(0), system.o)
    assert bool(((o > 0) == (system.mask > 0)).all())
    assert bool((system.G[o <= 0] == 0).all())


def test_scale_writes_rows_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output, plot = tmp_path / "s.json", tmp_path / "s.png"
    result = CliRunner().invoke(
        bench,
        ["scale", "--sizes", "12,16", "--filters", "16", "-o", str(output), "--plot", str(plot)],
    )
    assert result.exit_code == 0, result.output
    rows = read_rows(output)
    assert [(r["sweep"], r["size"], r["series"]) for r in rows][:2] == [
        ("size", 12, "as chosen"),
        ("size", 12, "matrix-free"),
    ]
    assert all(r["unknowns"] == 3 * r["size"] ** 2 for r in rows)
    assert all(r["mse"] < 1e-12 for r in rows if r["filters"] == 64)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "matrix-free" in result.stdout


def test_scale_refuses_what_is_no_size() -> None:
    from leakaudit.cli.main import main

    result = CliRunner().invoke(main, ["bench", "scale", "--sizes", "32,big"])
    assert result.exit_code == 2
    assert "positive integers" in result.stderr


def test_solve_compares_a_layer_with_a_pass_of_it() -> None:
    row = solve_time.one_layer(24, 32, 3, 1, "ReLU")
    assert row["mse"] < 1e-12
    assert row["ratio"] == pytest.approx(row["seconds"] / row["reference_seconds"])
    assert row["input_output_gradient_bytes"] == 8 * (3 + 2 * 32) * 24**2


def test_a_failing_command_is_not_timed() -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no luck')"]
    with pytest.raises(UsageError, match="no luck"):
        audit_time.timed(failing, (0,))


def test_timed_commands_are_those_of_the_command_line() -> None:
    model = MODELS / audit_time.MODEL
    arguments, imports = audit_time.cases(model)["check --no-confirm"]
    command = [sys.executable, "-m", "leakaudit", *arguments]
    assert audit_time.timed(command, (1,)) > 0
    assert "torch" not in imports


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; import leakaudit.cli.bench; "
        "assert 'torch' not in sys.modules and 'leakaudit.cli.bench' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_complete_and_name_no_place(path: Path) -> None:
    text = path.read_text("utf-8")
    content = json.loads(text)
    assert content["complete"]
    assert content["rows"]
    assert content["environment"]["date"]
    assert "/home/" not in text
    assert "/tmp/" not in text
    assert str(MODELS.parent) not in text
