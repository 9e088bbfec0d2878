"""Live `nn.Module` objects -> Graph, by name or as they are.

The module goes through `torch.export`, and from there the way of every `.pt2` file, except that
nothing is written: its weights are read where they lie.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from leakaudit.errors import AuditError, UsageError
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.aten.target import TARGET_REMEDY, call, find, imported, last_line
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph

if TYPE_CHECKING:
    import torch

_SHAPE_REMEDY = (
    "give `--input-shape 1,3,32,32` (several inputs: `name=shape`), "
    "or set `input_shape` or `example_inputs` on the module"
)
_SWITCHED = "the module was in training mode; audited in evaluation mode"

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def load(target: str, options: LoadOptions) -> Graph:
    """Import the user's code, export the module it gives in evaluation mode, and read the result.

    The attribute is an `nn.Module`, a subclass of it or a function (both called without arguments);
    a function may return `(module, example_inputs)`. Input shapes come from the options, else from
    the example inputs, else from an attribute `input_shape`; tensors made from shapes are float32.

    Raises:
        AuditError: torch is missing, the user's code or the export fails, or no shape is known.
    """
    _require_torch(target)
    location, separator, attribute = target.rpartition(":")
    if not separator or not location or not attribute:
        raise AuditError(target, "it names no callable", TARGET_REMEDY)
    # Results go to stdout, so what the user's code prints must not.
    with contextlib.redirect_stdout(sys.stderr), imported(target, location) as namespace:
        return _read(target, _subject(target, find(target, namespace, attribute)), options)


def load_module(model: torch.nn.Module, inputs: Any, options: LoadOptions, name: str = "") -> Graph:
    """Export a module in evaluation mode, and read the result; the module stays as it was.

    Args:
        model: The module. Its weights are not copied: the graph loads what they hold then.
        inputs: Example inputs of `forward`: a tensor, a tuple of tensors, a mapping of its
            keywords to tensors, or the shape of one float32 input as a tuple of integers. Only
            shapes and dtypes matter. None: the shapes of the options, else the module's attribute
            `example_inputs` or `input_shape`.
        options: As for files; its shapes and batch size override those of the inputs.
        name: What stands for the module in the graph and in messages; its class by default.

    Raises:
        AuditError: The export fails, no shape is known, or the module is above a limit.
        UsageError: `inputs` is something else.
    """
    target = name or type(model).__name__
    _require_torch(target)
    if inputs is not None and not _is_shape(inputs) and not _holds_tensor(inputs):
        raise UsageError(
            f"the inputs of {target} hold no tensor: give a tensor, a tuple of tensors, a mapping "
            "of keywords to tensors, or the shape of one input"
        )
    with contextlib.redirect_stdout(sys.stderr):
        return _read(target, _with_inputs(_holding(target, model, model), inputs), options)


def _require_torch(target: str) -> None:
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise AuditError(
            target,
            "a live module needs torch, which is not installed",
            "pip install 'leakaudit[confirm]'",
        ) from error


@dataclass(frozen=True, slots=True)
class _Subject:
    """The module, and what it or its factory says of its inputs."""

    module: torch.nn.Module
    example_inputs: tuple[Any, ...] = ()
    input_shape: tuple[int, ...] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)


def _read(target: str, subject: _Subject, options: LoadOptions) -> Graph:
    arguments = _arguments(target, subject, options)
    switched = _differs_in_training(subject.module)
    with _evaluating(subject.module), _silent():
        graph = _exported(target, subject.module, arguments, options)
    return replace(graph, notes=(*graph.notes, _SWITCHED)) if switched else graph


def _subject(target: str, found: Any) -> _Subject:
    import torch

    made = found if isinstance(found, torch.nn.Module) else call(target, found)
    example: Any = None
    if isinstance(made, tuple) and len(made) == 2:
        made, example = made
    if not isinstance(made, torch.nn.Module):
        raise AuditError(
            target,
            f"it returns a {type(made).__name__}, not an nn.Module",
            "return the module, or (module, example_inputs)",
        )
    return _with_inputs(_holding(target, made, found), example)


def _holding(target: str, module: torch.nn.Module, found: Any) -> _Subject:
    """The module with the inputs that it, or else what made it, states as attributes."""

    def stated(attribute: str) -> Any:
        values = (getattr(holder, attribute, None) for holder in (module, found))
        return next((value for value in values if value is not None), None)

    subject = _Subject(module, input_shape=_as_shape(target, stated("input_shape")))
    return _with_inputs(subject, stated("example_inputs"))


def _with_inputs(subject: _Subject, inputs: Any) -> _Subject:
    """The module with example inputs, in any of the forms in which they may be given."""
    if inputs is None:
        return subject
    given = replace(subject, example_inputs=(), keywords={})
    if isinstance(inputs, Mapping):
        return replace(given, keywords=dict(inputs))
    if _is_shape(inputs):
        return replace(given, input_shape=tuple(inputs))
    listed = isinstance(inputs, tuple | list)
    return replace(given, example_inputs=tuple(inputs) if listed else (inputs,))


def _is_shape(inputs: Any) -> bool:
    return isinstance(inputs, tuple | list) and bool(inputs) and {*map(type, inputs)} == {int}


def _holds_tensor(inputs: Any) -> bool:
    import torch

    if isinstance(inputs, Mapping):
        return _holds_tensor(tuple(inputs.values()))
    if isinstance(inputs, tuple | list):
        return any(map(_holds_tensor, inputs))
    return isinstance(inputs, torch.Tensor)


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


def _as_shape(target: str, shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        return tuple(int(size) for size in shape)
    except (TypeError, ValueError) as error:
        raise AuditError(target, "its input_shape is not a list of sizes", _SHAPE_REMEDY) from error


def _arguments(target: str, subject: _Subject, options: LoadOptions) -> _Arguments:
    """The arguments to export with: what came by keyword is passed by keyword."""
    signature = inspect.signature(subject.module.forward)
    try:
        bound = signature.bind_partial(*subject.example_inputs, **subject.keywords)
    except TypeError as error:
        raise AuditError(
            target, f"its example inputs do not fit its forward ({error})", _SHAPE_REMEDY
        ) from error
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    # Keywords that only a `**kwargs` takes count like those with a parameter of their own.
    arguments = dict(subject.keywords) or bound.arguments
    for name, shape in _shapes(target, names, subject, options, bool(arguments)).items():
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
    return ((), arguments) if subject.keywords else (bound.args, bound.kwargs)


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
        device = next((parameter.device for parameter in module.parameters()), None)
        return torch.zeros(shape, dtype=torch.float32, device=device)
    except (RuntimeError, TypeError) as error:
        raise AuditError(
            target, f"no tensor of shape {shape} can be made ({last_line(error)})", _SHAPE_REMEDY
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


def _exported(
    target: str, module: torch.nn.Module, arguments: _Arguments, options: LoadOptions
) -> Graph:
    import torch

    from leakaudit.frontends.aten.live import live_program

    try:
        program = torch.export.export(module, *arguments, strict=False)
        live = live_program(target, program, options.limits)
    except AuditError:
        raise
    # `forward` is the user's code, and torch.export raises whatever it meets there.
    except (Exception, SystemExit) as error:
        raise AuditError(
            target,
            f"torch.export failed ({last_line(error)})",
            "check the input shape, or export it yourself and audit the .pt2 file",
        ) from error
    # The shapes are decided; what remains for the reader is which parameters are frozen.
    return pt2_model.load_program(live, replace(options, input_shapes={}, batch_size=None))
