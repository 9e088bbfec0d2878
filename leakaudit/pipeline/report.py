"""What an audit gives in Python: the report, and what a gate, a notebook or a file makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.errors import UsageError
from leakaudit.findings import AuditReport, Finding, ModelReport, Severity
from leakaudit.pipeline.choices import require_choice
from leakaudit.pipeline.gate import Evidence, exit_code
from leakaudit.report.html.report import framed
from leakaudit.report.interface import RenderOptions
from leakaudit.report.json_report import as_json
from leakaudit.report.json_text import Json
from leakaudit.report.registry import reporter
from leakaudit.report.summary import Summary, summarise


@dataclass(frozen=True, slots=True)
class Report:
    """One audit. In a notebook it shows itself as the HTML report, printed as the table.

    Attributes:
        audit: Everything that was found, as frozen data.

    Example:
        >>> import leakaudit
        >>> report = leakaudit.audit("sample_models/lenet_main.onnx", confirm=False)
        >>> report.exit_code(fail_on="critical")
        1
        >>> [finding.rule for finding in report.findings if finding.severity == "critical"]
        ['LA004']
        >>> report.models[0].leak_path.reaches_input
        True
    """

    audit: AuditReport

    @property
    def models(self) -> tuple[ModelReport, ...]:
        """What was found of each model: its layers with their counts, its leak path, findings."""
        return self.audit.models

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all models, those about a model after those about its layers."""
        return tuple(finding for model in self.models for finding in model.findings)

    @property
    def summary(self) -> Summary:
        """The totals: models, layers, findings by severity, what was confirmed, what failed."""
        return summarise(self.audit)

    def exit_code(self, fail_on: str = "medium", evidence: str = "flagged") -> int:
        """What `leakaudit check` would exit with.

        Args:
            fail_on: Findings of at least this severity count: `critical`, `high`, `medium`,
                `low` or `note`.
            evidence: `flagged`: all of them; `confirmed`: those whose reconstruction came back.

        Returns:
            0 where nothing counts, 1 where something does, 3 where the audit is incomplete.

        Raises:
            UsageError: There is no such severity or evidence.
        """
        require_choice("fail_on", fail_on, tuple(Severity))
        require_choice("evidence", evidence, tuple(Evidence))
        tested = any(finding.confirmation for finding in self.findings)
        if evidence == Evidence.CONFIRMED and self.findings and not tested:
            raise UsageError("nothing was confirmed: audit with confirm=True to judge by it")
        return exit_code(self.audit, Severity(fail_on), Evidence(evidence))

    def render(self, file_format: str = "table", *, width: int = 100, verbosity: int = 0) -> str:
        """The report as text.

        Args:
            file_format: `table`, `json`, `sarif`, `junit`, `github`, `gitlab`, `markdown`, `html`.
            width: Columns of a table for people.
            verbosity: -2 the totals alone, -1 without tables, 0, or 1 with all that was tried.

        Raises:
            UsageError: There is no such format.
        """
        return reporter(file_format)(self.audit, RenderOptions(width=width, verbosity=verbosity))

    def to_dict(self) -> dict[str, Json]:
        """The JSON report as plain values; its schema ships beside the package's `report`."""
        return as_json(self.audit)

    def __str__(self) -> str:
        """The table."""
        return self.render()

    def _repr_html_(self) -> str:
        """The HTML report in a frame of its own, for notebooks."""
        return framed(self.render("html"))
