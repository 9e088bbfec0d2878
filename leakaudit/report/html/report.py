"""The HTML report: one file that needs nothing else, no script, no network."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

from leakaudit.findings import (
    AuditReport,
    Confirmation,
    Finding,
    LeakPathReport,
    ModelReport,
    PathStep,
    PathStop,
    RuleText,
)
from leakaudit.report import prose, wording
from leakaudit.report.html import svg
from leakaudit.report.html.findings import findings
from leakaudit.report.html.layers import formulas, layer_table
from leakaudit.report.html.pictures import pictures
from leakaudit.report.html.text import Column, listed, name, severity_badge, table, text
from leakaudit.report.interface import RenderOptions
from leakaudit.report.summary import Summary, summarise

_FRAME_HEIGHT = 640  # pixels


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return one page: summary, then per model pictures, layers, leak path, findings, formulas.

    Pictures are read from where `--save-images` wrote them.
    """
    summary = summarise(report)
    rules = {rule.id: rule for rule in prose.rules_of(report)}
    models = [
        _model(model, f"model-{number}", rules, prose.path_finding(report, model), options)
        for number, model in enumerate(report.models, start=1)
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        _head(summary),
        "<body>",
        '<a class="skip" href="#content">Skip to the content</a>',
        '<header><p class="kicker">leakaudit</p><h1>What the gradients give away</h1></header>',
        '<main id="content">',
        '<section aria-label="Summary">',
        _tally(summary),
        f"<p>{text(wording.totals(summary))}.</p>",
        "</section>",
        _contents(report.models) if len(report.models) > 1 else "",
        *models,
        "</main>",
        f"<footer><p>leakaudit {text(report.tool_version)}. “Confirmed” means that the "
        "reconstruction ran and came back with the error stated. What could not be reproduced "
        "is not thereby private.</p></footer>",
        "</body>",
        "</html>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def framed(page: str) -> str:
    """Return a frame that shows a whole page within another, a notebook's say.

    Neither's styles reach the other. The sandbox forbids scripts, forms and access to the page
    around it; the report needs none.
    """
    return (
        f'<iframe title="leakaudit report" sandbox="" srcdoc="{html.escape(page)}" '
        f'style="width: 100%; height: {_FRAME_HEIGHT}px; border: 0"></iframe>'
    )


@cache
def style() -> str:
    """The style sheet: light and dark, wide and narrow, screen and print."""
    return "\n" + files("leakaudit.report.html").joinpath("style.css").read_text(encoding="utf-8")


def _head(summary: Summary) -> str:
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    found = wording.quantity(sum(summary.findings.values()), "finding")
    models = wording.quantity(summary.models, "model")
    return "\n".join(
        [
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>leakaudit: {models}, {found}</title>",
            f"<style>{style()}</style>",
            "</head>",
        ]
    )


def _tally(summary: Summary) -> str:
    entries = [(severity.value, number) for severity, number in summary.findings.items()]
    entries.append(("confirmed", summary.confirmed))
    items = "".join(
        f'<li class="{label}{"" if number else " zero"}"><b>{wording.count(number)}</b>'
        f"<span>{label}</span></li>"
        for label, number in entries
    )
    return f'<ul class="tally">{items}</ul>'


def _contents(models: Iterable[ModelReport]) -> str:
    columns = [Column(label, label) for label in ("model", "layers", "findings", "leak path")]
    rows = []
    for number, model in enumerate(models, start=1):
        link = f'<a href="#model-{number}">{name(model.target)}</a>'
        if model.error is not None:
            rows.append([link, "–", '<span class="warning">not audited</span>', "–"])
            continue
        worst = prose.worst_first(model.findings)
        found = f"{severity_badge(worst[0].severity)} {len(worst)}" if worst else "none"
        if not model.complete:
            found += ' <span class="warning">incomplete</span>'
        reach = text(wording.reach(model.leak_path)) if model.leak_path else "–"
        rows.append([link, str(len(model.layers)), found, reach])
    models_table = table("The models audited", columns, rows)
    return f'<nav class="card" aria-label="Models">{models_table}</nav>'


def _model(
    model: ModelReport,
    identity: str,
    rules: Mapping[str, RuleText],
    about_path: Finding | None,
    options: RenderOptions,
) -> str:
    head = [
        f'<article id="{identity}" aria-labelledby="{identity}-name">',
        f'<h2 id="{identity}-name">{name(model.target)}</h2>',
    ]
    if model.error is not None:
        error = f'<p class="lead medium"><b>Not audited</b> {text(model.error.strip())}</p>'
        return "\n".join([*head, error, "</article>"])
    facts = wording.facts(model)
    if model.sha256:
        facts += f", sha256 {model.sha256[:16]}…"
    shown = pictures(model, _picture_evidence(model, about_path))
    path = model.leak_path
    sections = [
        ("What came back", shown),
        ("Layers", layer_table(model.layers) if model.layers else "<p>No layer with weights.</p>"),
        ("Leak path", _leak_path(path, model, identity) if path else ""),
        ("Findings", findings(model, rules, options)),
        ("Formulas", formulas(model.layers)),
        ("Skipped", listed(f"{name(e.what)}: {text(e.reason.strip())}" for e in model.skipped)),
        ("Notes", listed(text(note.strip()) for note in model.notes)),
    ]
    parts = [*head, f'<p class="facts">{text(facts)}</p>', _lead(model, about_path)]
    parts += [
        f'<section aria-label="{title}"><h3>{title}</h3>\n{content}\n</section>'
        for title, content in sections
        if content
    ]
    return "\n".join(filter(None, [*parts, "</article>"]))


def _lead(model: ModelReport, finding: Finding | None) -> str:
    """The most important sentence on the model: how far the gradients carry, and the evidence."""
    path = model.leak_path
    if path is None:
        return ""
    kind = "critical" if path.reaches_input else "medium" if path.furthest is not None else ""
    reach = text(wording.reach(path))
    lines = [f"<b>{reach[:1].upper()}{reach[1:]}.</b>"]
    if finding is not None and finding.confirmation is not None:
        claim = wording.evidence_claim(finding.confirmation)
        lines.append(f"{text(claim[:1].upper() + claim[1:])}.")
    lines += [f"S{_stop(stop)[1:]}." for stop in path.stopped]
    return f'<p class="lead {kind}">{" ".join(lines)}</p>'


def _picture_evidence(model: ModelReport, about_path: Finding | None) -> Confirmation | None:
    """The run that the pictures show: that of the leak path, or the first with a PSNR."""
    first = [about_path] if about_path is not None else []
    runs = (finding.confirmation for finding in (*first, *model.findings))
    return next((run for run in runs if run is not None and run.psnr is not None), None)


def _leak_path(path: LeakPathReport, model: ModelReport, identity: str) -> str:
    if not path.steps and not path.stopped:
        return ""
    picture = svg.leak_path(path, [given.name for given in model.inputs], f"{identity}-path")
    steps = "\n".join(f"<li>{_step(step)}</li>" for step in path.steps)
    stops = "".join(f"<li>{_stop(stop)}</li>" for stop in path.stopped)
    listed = f'<ol class="steps-list">\n{steps}\n</ol>' if steps else ""
    if stops:
        listed += f'<ul class="stops">{stops}</ul>'
    return f'<div class="flow"><div>{picture}</div>\n<div>{listed}</div></div>'


def _stop(stop: PathStop) -> str:
    where = f"stops at {name(stop.at)} ({wording.stop_kind(stop)})"
    return f"{where}: {text(stop.reason.strip())}"


def _step(step: PathStep) -> str:
    where = f"{name(step.layer)}: " if step.layer else ""
    fact = f'<code class="fact">{text(step.fact)}</code>'
    return f"{where}{text(step.derivation.strip())} ⇒ {fact}"
