"""What an audit says: frozen data, shared by the rules, the confirmation and every reporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is, in falling order."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for note up to 4 for critical."""
        return list(reversed(Severity)).index(self)

    def at_least(self, other: Severity) -> bool:
        """Whether this severity is as bad as `other` or worse."""
        return self.rank >= other.rank


def is_flagged(rank_bound: int, read: int) -> bool:
    """Whether the equations may fix all that a layer reads: what "flagged" means everywhere.

    Unread unknowns do not matter: a stride that skips pixels leaves those open, and gives every
    other pixel away.

    Args:
        rank_bound: Upper bound on the rank of the layer's equations.
        read: Unknowns of its input that some output depends on.
    """
    return rank_bound >= read > 0


class Verdict(StrEnum):
    """What counting alone says of one layer's whole input. There is no "safe"."""

    FLAGGED = "flagged"  # the layer is flagged, and there are no unknowns that it does not read
    UNDERDETERMINED = "underdetermined"  # proven: they cannot fix all of it
    UNDETERMINED = "undetermined"  # not understood, or nothing of the input flows in


class Status(StrEnum):
    """What confirmation found."""

    CONFIRMED = "confirmed"  # by solving the linear equations of the leak path
    BY_SEARCH = "recovered by search"  # behind the path's end, by nonlinear least squares
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not run"

    @property
    def recovered(self) -> bool:
        """Whether a reconstruction ran and came back."""
        return self in (Status.CONFIRMED, Status.BY_SEARCH)


class Scope(StrEnum):
    """From what the reconstruction started."""

    END_TO_END = "end to end"  # the shared gradients alone
    LOCAL = "local"  # conditional: this layer given its true output gradient
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SymbolicCounts:
    """The counts as formulas in the layer's design parameters (text of sympy expressions).

    `values` says which number each symbol in them stands for in this layer.
    """

    unknowns: str
    gradient_constraints: str
    weight_constraints: str
    margin: str
    values: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """Unknowns and equations of one layer.

    Attributes:
        unknowns: |X|.
        unread: Unknowns that no output depends on.
        gradient_constraints: |A|.
        weight_constraints: |B|, an upper bound where the activation is not invertible.
        redundant: |A| + |B| minus what they can contribute to the rank at most (>= 0).
        rank_bound: Upper bound on the rank of both sets of equations together.
        gradient_rank_bound: The same for the gradient constraints alone.
        formulas: Derives `symbolic`; a value, equal where the formulas are, that can be pickled.
    """

    unknowns: int
    unread: int
    gradient_constraints: int
    weight_constraints: int
    redundant: int
    rank_bound: int
    gradient_rank_bound: int
    formulas: Callable[[], SymbolicCounts] = field(repr=False)

    @property
    def symbolic(self) -> SymbolicCounts:
        """The same as formulas. Derived when asked for: most readers want the numbers only."""
        return self.formulas()

    @property
    def fixes_input(self) -> bool:
        """Whether the equations may fix the whole input, which has no unread unknowns then."""
        return is_flagged(self.rank_bound, self.unknowns - self.unread) and not self.unread

    @property
    def determined_fraction(self) -> float:
        """rho = rank_bound / |X|, between 0 and 1."""
        return self.rank_bound / self.unknowns


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer with weights, counted. Shapes are per batch, `parameters` are plain JSON values."""

    name: str
    op: str
    origin: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: dict[str, object]
    counts: Counts | None
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, slots=True)
class PathStep:
    """One derivation on the way: `premises` (facts) give the fact about `tensor`.

    `kind` is the machine's name of the derivation, `derivation` the sentence for a reader, `fact`
    what is then known ("value(x)", "gradient(conv1.out)"), `counts` the equations solved, if any.
    """

    kind: str
    derivation: str
    tensor: str
    fact: str
    premises: tuple[str, ...]
    layer: str
    counts: dict[str, int] = field(default_factory=dict)


class StopKind(StrEnum):
    """What a stop of the leak path is worth."""

    PROVEN = "proven"  # counting shows that the layer's equations leave its input open
    NOT_FOLLOWED = "not-followed"  # this version knows no derivation: that protects nobody


@dataclass(frozen=True, slots=True)
class PathStop:
    """Where the path ends (a layer or tensor name), why, and whether that is proven."""

    at: str
    reason: str
    kind: StopKind = StopKind.NOT_FOLLOWED


@dataclass(frozen=True, slots=True)
class LeakPathReport:
    """The way by which the input, or the features nearest to it, follow from the gradients.

    `furthest` names the tensor nearest to the input whose value follows (None: none does).
    """

    reaches_input: bool
    furthest: str | None
    furthest_size: int
    steps: tuple[PathStep, ...]
    stopped: tuple[PathStop, ...]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Evidence for one finding. Numbers are None where they do not apply.

    `mse` is against the probe (values in [0, 1] for images), `psnr` = 10·log10(1/mse) in dB,
    `residual` is relative, `rank`, `condition` and `singular_values` (largest, smallest kept) are
    those of the system that decides (the last one solved), `predicted_error` is what they let
    expect before comparing with the truth (relative to the norm of what is recovered), `attempts`
    lists everything that was tried.
    """

    status: Status
    scope: Scope
    reason: str
    device: str | None = None
    gradient_dtype: str | None = None
    solver: str | None = None
    rank: int | None = None
    unknowns: int | None = None
    condition: float | None = None
    singular_values: tuple[float, float] | None = None
    residual: float | None = None
    predicted_error: float | None = None
    mse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    seconds: float | None = None
    seed: int | None = None
    probe: str | None = None
    attempts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule met by one layer (or, where `layer` is None, by the model)."""

    rule: str
    title: str
    severity: Severity
    layer: str | None
    message: str
    fingerprint: str
    remedy: str
    url: str
    confirmation: Confirmation | None = None
    downgraded_because: str = ""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A finding that the configuration says to leave out of the count, and the reason it gives."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Which findings to suppress: those of `rule` on targets and layers that match.

    `target` and `layer` are patterns, None matches all. A pattern for layers matches no finding
    on the model.
    """

    rule: str
    reason: str
    target: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class IgnoreUse:
    """How many findings of a run an `Ignore` matched.

    `unused` is set only where the run could have shown a match: its rule was applied, and a target
    that it is for was audited.
    """

    ignore: Ignore
    matched: int
    unused: bool


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """A known finding: its target as seen from the baseline's folder, and its fingerprint.

    Rule, layer and severity tell readers what it is, and what a changed layer was known for.
    """

    target: str
    rule: str
    layer: str | None
    severity: Severity
    fingerprint: str


@dataclass(frozen=True, slots=True)
class BaselineUse:
    """What a run was compared with. `fixed` holds the known findings that it no longer has."""

    file: str
    fixed: tuple[BaselineEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something not audited, with the reason: an operator, a file, a confirmation."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class InputReport:
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """Paths of the pictures written for one probe by `--save-images`."""

    original: str
    reconstruction: str
    difference: str


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Everything said about one target. `error` is set, and the rest empty, where it failed.

    `findings` are those that count; `suppressed` by the configuration and `known` from the
    baseline stand apart.
    """

    target: str
    format: str
    sha256: str | None
    inputs: tuple[InputReport, ...] = ()
    complete: bool = False
    layers: tuple[LayerReport, ...] = ()
    leak_path: LeakPathReport | None = None
    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    images: tuple[ImageReport, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    suppressed: tuple[Suppressed, ...] = ()
    known: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleText:
    """What a rule says of itself, for formats that describe rules apart from findings.

    `severity` is that of its findings where nothing lowers it, `precision` how rarely it is wrong
    (SARIF's scale), `why` has its paragraphs parted by blank lines. `about_path` marks the rules
    whose finding is the leak path itself.
    """

    id: str
    slug: str
    title: str
    severity: Severity
    precision: str
    why: str
    remedy: str
    references: tuple[str, ...]
    url: str
    about_path: bool = False


@dataclass(frozen=True, slots=True)
class AuditReport:
    """One run over all targets. `rules` are those applied, whether they found anything or not.

    `baseline` is None where the run was compared with none.
    """

    tool_version: str
    models: tuple[ModelReport, ...]
    rules: tuple[RuleText, ...] = ()
    ignores: tuple[IgnoreUse, ...] = ()
    baseline: BaselineUse | None = None
