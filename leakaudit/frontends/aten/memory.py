"""Which values of an export graph share memory, and which calls write into it.

`torch.export` keeps in-place calls (`relu_`). Reading a value, or a view of it, after such a call
gives what was written. The graph has no memory, so the reader must know whose content changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# ATen operators whose output is, or may be, a view of an input. `dropout` returns its input itself
# in evaluation mode.
_MAY_ALIAS = frozenset(
    (
        *("adjoint", "alias", "alpha_dropout", "as_strided", "atleast_1d", "atleast_2d"),
        *("atleast_3d", "broadcast_tensors", "broadcast_to", "chunk", "conj", "contiguous"),
        *("detach", "diagonal", "dropout", "dsplit", "expand", "expand_as", "feature_dropout"),
        *("flatten", "hsplit", "imag", "lift_fresh", "mH", "mT", "matrix_H", "meshgrid"),
        *("moveaxis", "movedim", "narrow", "numpy_T", "permute", "positive", "ravel", "real"),
        *("reshape", "reshape_as", "resolve_conj", "resolve_neg", "select", "slice", "split"),
        *("split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "to"),
        *("to_dense", "transpose", "type_as", "unbind", "unflatten", "unfold", "unsqueeze"),
        *("view", "view_as", "view_as_complex", "view_as_real", "vsplit"),
    )
)
# Operators of these libraries say by a trailing underscore that they write into an argument.
_HONEST = frozenset({"aten", "prims", "torchvision"})
_ONLY_AUTOGRAD = frozenset({"detach_", "requires_grad_"})


def may_alias(target: str) -> bool:
    """Whether an output of this operator can share memory with an input."""
    library, name = _split(target)
    return library not in _HONEST or name.rstrip("_") in _MAY_ALIAS or writes(target)


def writes(target: str) -> bool:
    """Whether the operator writes into its first argument (aten) or may write into any (others)."""
    library, name = _split(target)
    if library == "_operator":
        return False
    if library not in _HONEST:
        return True
    return name.endswith("_") and not name.endswith("__") and name not in _ONLY_AUTOGRAD


def writes_first_only(target: str) -> bool:
    """Whether the first argument is the only one written into."""
    return _split(target)[0] in _HONEST


def _split(target: str) -> tuple[str, str]:
    library, _, rest = target.partition(".")
    return library, rest.split(".")[0]


class SharedMemory:
    """Groups of value names that may share memory."""

    def __init__(self) -> None:
        self._groups: dict[str, set[str]] = {}

    def join(self, names: Iterable[str]) -> None:
        """State that all these may share memory."""
        merged: set[str] = set()
        for name in names:
            merged |= self._groups.get(name, {name})
        for name in merged:
            self._groups[name] = merged

    def others(self, names: Sequence[str]) -> set[str]:
        """Every value that may share memory with one of `names`, these included."""
        return set().union(*(self._groups.get(name, {name}) for name in names))
