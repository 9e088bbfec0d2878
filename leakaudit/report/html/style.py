"""The style sheet of the HTML report: light and dark, wide and narrow, screen and print."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f7f7f4; --card: #ffffff; --sunk: #f2f2ee; --line: #dfdfd9;
  --text: #1d1f24; --muted: #595d66; --accent: #2f5d8a;
  --critical: #a3123a; --critical-soft: #fbe9ed;
  --high: #a8380f; --high-soft: #fcece4;
  --medium: #7a5600; --medium-soft: #f9f0d8;
  --low: #14606e; --low-soft: #e3f1f3;
  --note: #565b66; --note-soft: #eeeeea;
  --value: #1f5b8f; --value-soft: #e3eef8;
  --good: #2c6a44;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131418; --card: #1b1d22; --sunk: #23262c; --line: #353941;
    --text: #e6e7ea; --muted: #a3a8b3; --accent: #8fbbe6;
    --critical: #ff93a8; --critical-soft: #3b1a24;
    --high: #ffab80; --high-soft: #38221a;
    --medium: #efc763; --medium-soft: #332a14;
    --low: #7ccfdb; --low-soft: #16303a;
    --note: #b0b5bf; --note-soft: #2a2d34;
    --value: #93c4f0; --value-soft: #1b2f43;
    --good: #84cfa0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 var(--sans); overflow-wrap: anywhere;
}
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem 1rem; z-index: 1; }
header, nav, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
footer { padding-bottom: 3rem; color: var(--muted); font-size: .875rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -.015em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0; }
h3 { font-size: 1.0625rem; margin: 2rem 0 .75rem; }
h4 { font-size: 1rem; margin: 0; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 4px; }
code { font-family: var(--mono); font-size: .9em; }
.muted, .facts { color: var(--muted); }
.kicker { margin: 0 0 .25rem; color: var(--muted); font-size: .875rem; }

.tally { display: flex; flex-wrap: wrap; gap: .625rem; list-style: none; padding: 0; }
.tally { margin: 1.5rem 0; }
.tally li {
  flex: 1 1 6.5rem; padding: .75rem 1rem; border-radius: 10px;
  background: var(--card); border: 1px solid var(--line);
}
.tally b { display: block; font-size: 1.625rem; line-height: 1.2; }
.tally span { font-size: .875rem; color: var(--muted); }
.tally .zero b { color: var(--muted); font-weight: 400; }
.tally .critical:not(.zero) b { color: var(--critical); }
.tally .high:not(.zero) b { color: var(--high); }
.tally .medium:not(.zero) b { color: var(--medium); }
.tally .low:not(.zero) b { color: var(--low); }

article, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 1.5rem; margin: 1.5rem 0;
}
article > h2 code { font-size: 1em; }
.lead {
  margin: 1rem 0; padding: .875rem 1.125rem; border-radius: 10px; max-width: none;
  background: var(--note-soft); border-left: 4px solid var(--note);
}
.lead b { display: block; }
.lead.critical { background: var(--critical-soft); border-color: var(--critical); }
.lead.medium { background: var(--medium-soft); border-color: var(--medium); }

.warning { color: var(--medium); }
td .warning { white-space: nowrap; }
.badge, .verdict, .claim {
  display: inline-block; padding: 0 .5em; border-radius: 1em; font-size: .8125rem;
  font-weight: 600; line-height: 1.6; white-space: nowrap;
}
.badge.critical { color: var(--critical); background: var(--critical-soft); }
.badge.high { color: var(--high); background: var(--high-soft); }
.badge.medium { color: var(--medium); background: var(--medium-soft); }
.badge.low { color: var(--low); background: var(--low-soft); }
.badge.note { color: var(--note); background: var(--note-soft); }
.verdict { padding: 0; font-weight: 500; }
.verdict.flagged { color: var(--critical); }
.verdict.undetermined { color: var(--medium); }
.claim { padding: 0; white-space: normal; }
.claim.confirmed { color: var(--critical); }

table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; color: var(--muted); font-size: .875rem; padding-bottom: .5rem; }
th, td { padding: .5rem .625rem; text-align: left; vertical-align: top; font-weight: 400; }
th, td { overflow-wrap: break-word; }
th code { overflow-wrap: anywhere; }
thead th { color: var(--muted); font-size: .8125rem; border-bottom: 1px solid var(--line); }
thead th, .number { white-space: nowrap; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tbody th code { font-weight: 600; }
.under { display: block; color: var(--muted); font-size: .8125rem; }
.share { display: flex; align-items: center; gap: .625rem; min-width: 10rem; }
.share span { font-variant-numeric: tabular-nums; white-space: nowrap; min-width: 3.75rem; }
.bar { width: 100%; min-width: 4rem; height: 8px; border-radius: 4px; flex: 1; }
.bar .track { fill: var(--line); }
.bar .all { fill: var(--critical); }
.bar .part { fill: var(--medium); }
.bar .unread { fill: var(--muted); opacity: .45; }

.pictures { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 1rem; }
.pictures { max-width: 48rem; }
figure { margin: 0; }
figure img {
  width: 100%; display: block; border-radius: 8px; image-rendering: pixelated;
  border: 1px solid var(--line); background: var(--sunk);
}
figcaption { font-size: .8125rem; color: var(--muted); padding-top: .375rem; line-height: 1.4; }
figcaption b { color: var(--text); display: block; font-size: .875rem; }
.numbers { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .75rem 0 0; }
.numbers dt { font-size: .8125rem; color: var(--muted); }
.numbers dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }

.flow { display: grid; grid-template-columns: 22.5rem minmax(0, 1fr); gap: 2rem; }
.flow { align-items: start; }
.path { display: block; max-width: 100%; height: auto; }
.path text { font: 12px var(--sans); fill: var(--text); }
.path .pill { fill: var(--note-soft); stroke: var(--note); }
.path .pill.reached { fill: var(--critical-soft); stroke: var(--critical); }
.path .pill.unreached { fill: none; stroke-dasharray: 4 4; }
.path .pill-title, .path .pill-more, .path .middle { text-anchor: middle; }
.path .pill-title { font-weight: 600; font-size: 13px; }
.path .pill-more, .path .steps, .path .equations { fill: var(--muted); font-size: 11.5px; }
.path .pill-title.reached { fill: var(--critical); }
.path .pill-title.unreached { fill: var(--muted); }
.path .steps { text-anchor: end; }
.path .arrow { fill: none; stroke: var(--muted); stroke-width: 1.5; }
.path .broken { stroke-dasharray: 3 3; }
.path .box { fill: var(--sunk); stroke: var(--line); }
.path .box.stop { fill: var(--medium-soft); stroke: var(--medium); }
.path .layer { font: 600 13px var(--mono); }
.path .chip { fill: none; stroke: var(--muted); stroke-opacity: .6; }
.path .chip.value { fill: var(--value-soft); stroke: var(--value); }
.path .fact { font: 11px var(--mono); fill: var(--muted); }
.path .fact.value { fill: var(--value); }
.steps-list { padding-left: 2.25rem; font-size: .9375rem; margin: 0; }
.steps-list li { padding: .3rem 0; }
.steps-list li::marker { color: var(--muted); font-variant-numeric: tabular-nums; }
.steps-list .fact { color: var(--value); white-space: normal; }
.stops { padding: 0; list-style: none; margin: .75rem 0 0; }
.stops li { padding-left: .75rem; border-left: 3px solid var(--medium); margin: .5rem 0; }

.rule { border-top: 1px solid var(--line); padding: 1.125rem 0; }
.rule:last-child { padding-bottom: 0; }
.found { list-style: none; padding: 0; margin: .5rem 0; }
.found > li { display: grid; grid-template-columns: 5.5rem minmax(0, 1fr); padding: .5rem 0; }
.found p { margin: .125rem 0; }
.evidence { font-size: .875rem; color: var(--muted); }
.remedy { border-left: 3px solid var(--good); padding-left: .75rem; font-size: .9375rem; }
.remedy b { color: var(--good); }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--accent); }
details details { margin-left: 1rem; }
.formulas table { max-width: 56rem; margin: .5rem 0 1rem; font-size: .875rem; }
.formulas td, .formulas th { font-family: var(--mono); }
.plain-list { padding-left: 1.25rem; }

@media (max-width: 60rem) { .flow { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 46rem) {
  header, nav, main, footer { padding-left: .875rem; padding-right: .875rem; }
  header { padding-top: 1.5rem; }
  article, .card { padding: 1rem; border-radius: 12px; }
  .tally li { flex-basis: 28%; padding: .5rem .75rem; }
  table, tbody, tr, td, tbody th, caption { display: block; width: 100%; }
  thead { position: absolute; left: -999rem; }
  tbody tr { padding: .75rem 0; }
  tbody tr + tr { border-top: 1px solid var(--line); }
  tbody tr + tr > * { border: 0; }
  th, td, th:first-child, td:first-child { padding: .125rem 0; }
  td { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr); text-align: left; }
  .number { text-align: left; }
  .share { min-width: 0; }
  td::before { content: attr(data-label); color: var(--muted); font-size: .8125rem; }
  .found > li { grid-template-columns: minmax(0, 1fr); }
  .pictures { gap: .5rem; }
  figcaption { font-size: .75rem; }
  figcaption b { font-size: .75rem; overflow-wrap: normal; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --sunk: #f4f4f2; --line: #bbb; --text: #000; --muted: #444;
    --accent: #000; --critical: #8d0d30; --critical-soft: #fff; --high: #8a2c0a;
    --high-soft: #fff; --medium: #5f4300; --medium-soft: #fff; --low: #0e4955; --low-soft: #fff;
    --note: #444; --note-soft: #fff; --value: #17466f; --value-soft: #fff; --good: #1f5032;
  }
  body { font-size: 10.5pt; }
  header, nav, main, footer { max-width: none; padding-left: 0; padding-right: 0; }
  nav, .skip { display: none; }
  article, .card { border: 0; padding: 0; border-radius: 0; }
  article + article { break-before: page; }
  .badge { border: 1px solid; }
  .bar, .path { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr, figure, .found > li, .tally li { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
  caption { break-after: avoid; }
  .flow { grid-template-columns: 17rem minmax(0, 1fr); }
  .path { max-height: 23cm; }
  .formulas details::details-content { content-visibility: visible; height: auto; }
  .rule details:not([open]) { display: none; }
  summary { color: var(--text); list-style: none; font-weight: 600; }
}
"""
