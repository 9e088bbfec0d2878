"""Live `nn.Module` objects, named as `package.module:callable` or `path/file.py:callable` -> Graph.

The only frontend that runs the user's code, and only because the user named it. The module goes
through `torch.export` into an archive in memory, and from there the way of every `.pt2` file.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph

if TYPE_CHECKING:
    import torch

_TARGET_REMEDY = "name it as package.module:callable or path/file.py:callable"
_SHAPE_REMEDY = (
    "give `--input-shape 1,3,32,32` (several inputs: `name=shape`), "
    "or set `input_shape` or `example_inputs` on the module"
)
_SWITCHED = "the module was in training mode; audited in evaluation mode"
_MAX_REASON = 300


def load(target: str, options: LoadOptions) -> Graph:
    """Import the user's code, export the module it gives in evaluation mode, and read the result.

    The attribute is an `nn.Module`, a subclass of it or a function (both called without arguments);
    a function may return `(module, example_inputs)`. Input shapes come from the options, else from
    the example inputs, else from an attribute `input_shape`; tensors made from shapes are float32.

    Raises:
        AuditError: torch is missing, the user's code or the export fails, or no shape is known.
    """
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise AuditError(
            target,
            "a live module needs torch, which is not installed",
            "pip install 'leakaudit[confirm]'",
        ) from error
    location, separator, attribute = target.rpartition(":")
    if not separator or not location or not attribute:
        raise AuditError(target, "it names no callable", _TARGET_REMEDY)
    # Results go to stdout, so what the user's code prints must not.
    with contextlib.redirect_stdout(sys.stderr), _imported(target, location) as namespace:
        found = _found(target, namespace, attribute)
        subject = _subject(target, found)
        arguments = _arguments(target, subject, options)
        switched = _differs_in_training(subject.module)
        with _evaluating(subject.module), _silent():
            data = _export(target, subject.module, arguments)
    # The shapes are decided; what remains for the reader is which parameters are frozen.
    graph = pt2_model.load_bytes(
        data, target, replace(options, input_shapes={}, batch_size=None), file_format="module"
    )
    return replace(graph, notes=(*graph.notes, _SWITCHED)) if switched else graph


def load_module(model: torch.nn.Module, inputs: Any, options: LoadOptions, name: str = "") -> Graph:
    """Export a module in evaluation mode, and read the result; the module stays as it was.

    Args:
        model: The module.
        inputs: Example inputs of `forward`: a tensor, a tuple of tensors, or a mapping of its
            keywords to tensors. None: the shapes of the options, else the module's attribute
            `example_inputs` or `input_shape`.
        options: As for files; its shapes and batch size override those of the inputs.
        name: What stands for the module in the graph and in messages; its class by default.

    Raises:
        AuditError: The export fails, or no shape is known.
    """
    target = name or type(model).__name__
    subject = _subject(target, model)
    if isinstance(inputs, Mapping):
        subject = replace(subject, example_inputs=None, keywords=dict(inputs))
    elif inputs is not None:
        subject = replace(subject, example_inputs=_as_inputs(inputs))
    arguments = _arguments(target, subject, options)
    switched = _differs_in_training(model)
    with _evaluating(model), _silent():
        data = _export(target, model, arguments)
    graph = pt2_model.load_bytes(
        data, target, replace(options, input_shapes={}, batch_size=None), file_format="module"
    )
    return replace(graph, notes=(*graph.notes, _SWITCHED)) if switched else graph


@dataclass(frozen=True, slots=True)
class _Subject:
    """The module, and what it or its factory says of its inputs."""

    module: torch.nn.Module
    example_inputs: tuple[Any, ...] | None
    input_shape: tuple[int, ...] | None
    keywords: Mapping[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what torch.export prints, warns and logs: an error it raises says enough."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _imported(target: str, location: str) -> Iterator[ModuleType]:
    """Import a file or a module; its folder stays importable as long as its code runs."""
    is_file = location.endswith(".py")
    if is_file and not Path(location).is_file():
        raise AuditError(target, "there is no such file", "check the path")
    folder = str(Path(location).resolve().parent if is_file else Path.cwd())
    before = set(sys.modules)
    sys.path.insert(0, folder)
    # A module may have been written since this process last looked.
    importlib.invalidate_caches()
    try:
        try:
            namespace = _execute(location) if is_file else importlib.import_module(location)
        # The user's code is arbitrary: whatever it raises, SystemExit included, is about the
        # target and not about this tool.
        except (Exception, SystemExit) as error:
            raise AuditError(
                target, f"importing it failed ({_last_line(error)})", "check that it imports"
            ) from error
        yield namespace
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
        if is_file:
            # Two targets may each have a neighbour `model.py`; the second must find its own.
            for name in set(sys.modules) - before:
                origin = getattr(sys.modules[name], "__file__", None)
                if origin and Path(origin).resolve().is_relative_to(folder):
                    del sys.modules[name]


def _execute(location: str) -> ModuleType:
    path = Path(location).resolve()
    name = f"_leakaudit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    namespace = importlib.util.module_from_spec(spec)
    # Dataclasses and torch look a class's module up by name while it is being defined.
    sys.modules[name] = namespace
    spec.loader.exec_module(namespace)
    return namespace


def _found(target: str, namespace: ModuleType, attribute: str) -> Any:
    found: Any = namespace
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise AuditError(
                target, f"it has no attribute {attribute!r}", _TARGET_REMEDY
            ) from error
    return found


def _subject(target: str, found: Any) -> _Subject:
    import torch

    made = found
    if not isinstance(found, torch.nn.Module):
        if not callable(found):
            raise AuditError(
                target,
                f"it is a {type(found).__name__}, not an nn.Module or a callable that returns one",
                _TARGET_REMEDY,
            )
        try:
            made = found()
        # User code again: see `_imported`.
        except (Exception, SystemExit) as error:
            raise AuditError(
                target,
                f"calling it without arguments failed ({_last_line(error)})",
                "name a function without parameters that returns the module",
            ) from error
    example: Any = None
    if isinstance(made, tuple) and len(made) == 2:
        made, example = made
    if not isinstance(made, torch.nn.Module):
        raise AuditError(
            target,
            f"it returns a {type(made).__name__}, not an nn.Module",
            "return the module, or (module, example_inputs)",
        )
    for holder in (made, found):
        if example is None:
            example = getattr(holder, "example_inputs", None)
    shape = next(
        (
            value
            for holder in (made, found)
            if (value := getattr(holder, "input_shape", None)) is not None
        ),
        None,
    )
    return _Subject(made, _as_inputs(example), _as_shape(target, shape))


def _as_inputs(example: Any) -> tuple[Any, ...] | None:
    if example is None:
        return None
    return tuple(example) if isinstance(example, tuple | list) else (example,)


def _as_shape(target: str, shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        return tuple(int(size) for size in shape)
    except (TypeError, ValueError) as error:
        raise AuditError(target, "its input_shape is not a list of sizes", _SHAPE_REMEDY) from error


def _arguments(target: str, subject: _Subject, options: LoadOptions) -> inspect.BoundArguments:
    """The tensors to export with, bound to the parameters of `forward`."""
    signature = inspect.signature(subject.module.forward)
    try:
        bound = signature.bind_partial(*(subject.example_inputs or ()), **subject.keywords)
    except TypeError as error:
        raise AuditError(
            target, f"its example inputs do not fit its forward ({error})", _SHAPE_REMEDY
        ) from error
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    shapes = _shapes(target, names, subject, options, bool(bound.arguments))
    arguments = bound.arguments
    for name, shape in shapes.items():
        arguments[name] = _zeros(target, subject.module, shape, arguments.get(name))
    missing = [
        name
        for name in names
        if name not in arguments and signature.parameters[name].default is inspect.Parameter.empty
    ]
    if missing or not arguments:
        listed = ", ".join(missing) or "its input"
        raise AuditError(target, f"no input shape is known for {listed}", _SHAPE_REMEDY)
    _set_batch(arguments, options.batch_size)
    return bound


def _shapes(
    target: str, names: list[str], subject: _Subject, options: LoadOptions, has_example: bool
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if not has_example and subject.input_shape is not None and names:
        shapes[names[0]] = subject.input_shape
    for key, shape in options.input_shapes.items():
        name = names[0] if key == "" and names else key
        if name not in names:
            raise AuditError(
                target,
                f"its forward has no parameter {key!r}, it has: {', '.join(names)}",
                "use these names in `--input-shape name=shape`",
            )
        shapes[name] = shape
    return shapes


def _zeros(target: str, module: torch.nn.Module, shape: tuple[int, ...], like: Any) -> torch.Tensor:
    import torch

    try:
        if isinstance(like, torch.Tensor):
            return like.new_zeros(shape)
        first = next(module.parameters(), None)
        return torch.zeros(
            shape, dtype=torch.float32, device=None if first is None else first.device
        )
    except (RuntimeError, TypeError) as error:
        raise AuditError(
            target, f"no tensor of shape {shape} can be made ({_last_line(error)})", _SHAPE_REMEDY
        ) from error


def _set_batch(arguments: dict[str, Any], batch_size: int | None) -> None:
    """Give every tensor that carries the batch of the first one a new batch size."""
    import torch

    tensors = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.dim() > 0
    }
    if batch_size is None or not tensors:
        return
    batch = next(iter(tensors.values())).shape[0]
    for name, value in tensors.items():
        if value.shape[0] == batch:
            arguments[name] = value.new_zeros((batch_size, *value.shape[1:]))


def _differs_in_training(module: torch.nn.Module) -> bool:
    """Whether a part of it is in training mode and computes something else there."""
    from torch import nn
    from torch.nn.modules import batchnorm, dropout, instancenorm

    def differs(child: torch.nn.Module) -> bool:
        match child:
            case instancenorm._InstanceNorm():
                return bool(child.track_running_stats)
            case batchnorm._NormBase():
                return child.running_mean is not None
            case dropout._DropoutNd():
                return child.p > 0
            case nn.MultiheadAttention():
                return bool(child.dropout > 0)
            case nn.RNNBase():
                return child.dropout > 0 and child.num_layers > 1
            case nn.RReLU():
                return child.lower < child.upper
        return False

    return any(child.training and differs(child) for child in module.modules())


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put the module and its children in evaluation mode, and back as each of them was."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training


def _export(target: str, module: torch.nn.Module, arguments: inspect.BoundArguments) -> bytes:
    import torch

    try:
        program = torch.export.export(module, arguments.args, arguments.kwargs, strict=False)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    # `forward` is the user's code, and torch.export raises whatever it meets there.
    except (Exception, SystemExit) as error:
        raise AuditError(
            target,
            f"torch.export failed ({_last_line(error)})",
            "check the input shape, or export it yourself and audit the .pt2 file",
        ) from error
    return buffer.getvalue()


def _last_line(error: BaseException) -> str:
    """The line of a traceback that names the exception, cut to a readable length."""
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    # A message of several lines says most in its first; a SyntaxError says it in its last.
    chosen = lines[-1] if isinstance(error, SyntaxError) else lines[0]
    text = " ".join(chosen.split())
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
