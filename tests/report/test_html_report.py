"""The HTML report: golden, self-contained, accessible, and text that stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from report_samples import HOSTILE, poisoned

from leakaudit.findings import AuditReport, ImageReport, PathStep, PathStop
from leakaudit.report import RenderOptions
from leakaudit.report.escape import plain
from leakaudit.report.html.layers import pretty
from leakaudit.report.html.report import render as html, style

VOID = {"meta", "img", "br", "wbr", "link", "input", "base"}
SVG = {"svg", "title", "desc", "rect", "path", "text"}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """Elements with their attributes and text, and whether all are closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.drawn: set[str] = set()
        self.words: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" in self.open:
            self.drawn.add(tag)
        elif tag not in ("wbr", "code"):  # a name is parted, prose has code, as its text is
            self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self) -> str:
        return "".join(self.words)


def text_of(report: AuditReport, **options: Any) -> str:
    return html(report, RenderOptions(**options))


def page_of(report: AuditReport) -> Page:
    return Page(text_of(report))


def test_golden(ci_report: AuditReport, golden: Callable[[str, str], None]) -> None:
    golden("report.html", text_of(ci_report))


def test_nothing_is_loaded_or_run(ci_report: AuditReport) -> None:
    page = page_of(ci_report)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {
        t for t, _ in page.elements
    }
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not {"src", "srcset", "action"} & set(attributes)
        href = attributes.get("href")
        assert href is None or href.startswith(("#", "https://leakaudit.example/"))
    assert not re.search(r"url\(|@import", style())


def test_the_policy_allows_this_style_sheet_and_embedded_pictures_alone(
    ci_report: AuditReport,
) -> None:
    text = text_of(ci_report)
    (policy,) = [
        attributes["content"]
        for attributes in Page(text).tags("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert directives == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_landmarks_headings_and_table_headers(ci_report: AuditReport) -> None:
    page = page_of(ci_report)
    assert page.tags("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer", "h1", "title"):
        assert len(page.tags(landmark)) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.tags("caption")) == len(page.tags("table")) > 3
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.tags("th"))
    assert all(attributes.get("alt") for attributes in page.tags("img"))
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(identities)) == len(identities)
    for attributes in page.tags("a"):
        target = attributes["href"] or ""
        assert not target.startswith("#") or target[1:] in identities
    labelled = [a for a in page.tags("svg") if a.get("role") == "img"]
    assert len(labelled) == 2
    assert all(a.get("aria-labelledby") for a in labelled)


def test_each_scheme_has_contrast() -> None:
    """WCAG 2, level AA: 4.5 to 1 for text on every ground that it stands on."""
    schemes = re.findall(r":root \{(.*?)\}", style(), re.S)
    assert len(schemes) == 3  # light, dark, print
    kinds = ("critical", "high", "medium", "low", "note", "value")
    pairs = [(kind, f"{kind}-soft") for kind in kinds]
    pairs += [(kind, ground) for kind in (*kinds, "good") for ground in ("card",)]
    pairs += [(ink, g) for ink in ("text", "muted") for g in ("page", "card", "sunk")]
    pairs += [("text", f"{kind}-soft") for kind in kinds]
    pairs += [("accent", "card"), ("value", "sunk"), ("muted", "medium-soft")]
    for scheme in schemes:
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", scheme))
        for ink, ground in pairs:
            assert _contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)


def test_the_bar_is_as_long_as_the_determined_fraction(ci_report: AuditReport) -> None:
    text = text_of(ci_report)
    assert text.count('<rect class="all" width="100.00"') == 5
    (width,) = re.findall(r'<rect class="part" width="([\d.]+)"', text)
    assert float(width) == pytest.approx(100 * 2250 / 3072, abs=0.01)


def test_the_path_goes_from_the_gradients_to_the_input(ci_report: AuditReport) -> None:
    drawing = _svg_texts(text_of(ci_report))[0]
    assert drawing[0] == "the shared gradients"
    assert drawing[-2:] == ["the input", "x: 3072 values computed back"]
    layers = [name for name in drawing if name in ("fc", "conv4", "conv3", "conv2", "conv1")]
    assert layers == ["fc", "conv4", "conv3", "conv2", "conv1"]
    assert "3072 unknowns, 900 gradient + 3072 weight equations," in drawing


def test_a_path_that_stops_says_where_and_why(ci_report: AuditReport) -> None:
    drawing = _svg_texts(text_of(ci_report))[1]
    assert "stops at pool" in drawing
    assert "max pooling hides which position held the maximum" in drawing
    assert drawing[-2:] == ["the input", "image, mask: not reached"]


def test_a_very_long_path_is_drawn_in_part(ci_report: AuditReport) -> None:
    model = ci_report.models[1]
    assert model.leak_path is not None
    steps = tuple(PathStep("k", "d", f"t{n}", f"value(t{n})", (), f"layer{n}") for n in range(400))
    path = replace(model.leak_path, steps=steps, stopped=(PathStop("p", "why"),) * 2)
    text = text_of(replace(ci_report, models=(replace(model, leak_path=path),)))
    drawing = _svg_texts(text)[0]
    assert "350 more layers, in the list of steps" in drawing
    assert "layer0" in drawing
    assert "layer399" in drawing
    assert text.count("<li><code>layer") == 400


def test_formulas_carry_the_numbers(ci_report: AuditReport) -> None:
    model = ci_report.models[0]
    layer = model.layers[0]
    assert layer.counts is not None
    symbolic = replace(layer.counts.symbolic, values={"F": 12, "K": 5, "N": 3})
    layer = replace(layer, counts=replace(layer.counts, formulas=lambda: symbolic))
    page = page_of(replace(ci_report, models=(replace(model, layers=(layer,)),)))
    words = " ".join(page.text.split())
    assert "with F = 12, K = 5, N = 3" in words
    assert "F·K²·N" in words
    assert "12·5²·3" in words
    assert pretty("F*(floor((H - K + 2*P)/S) + 1)**2") == "F·(floor((H − K + 2·P)/S) + 1)²"


def test_pictures_are_embedded_if_they_exist(ci_report: AuditReport, tmp_path: Path) -> None:
    assert page_of(ci_report).tags("img") == []
    paths = [tmp_path / f"{kind}.png" for kind in ("a", "b", "c")]
    paths[0].write_bytes(PNG)
    paths[1].write_bytes(PNG)
    paths[2].write_bytes(b"<svg onload=alert(1)>")  # no PNG
    model = replace(ci_report.models[0], images=(ImageReport(*map(str, paths)),))
    page = page_of(replace(ci_report, models=(model,)))
    images = page.tags("img")
    assert [image["alt"] for image in images] == [
        "Original: the example that was put in",
        "Reconstruction: what the gradients gave back",
    ]
    encoded = base64.b64encode(PNG).decode()
    assert {image["src"] for image in images} == {f"data:image/png;base64,{encoded}"}
    # The run that the pictures show is that of the finding on the path.
    assert "PSNR104.7 dB" in page.text.replace("\n", "")


def test_only_a_plain_https_address_is_a_link(ci_report: AuditReport) -> None:
    model = ci_report.models[0]
    for url in ("javascript:alert(1)", 'https://x" onclick="alert(1)', "http://x", "https://a\nb"):
        findings = (replace(model.findings[0], url=url),)
        page = page_of(replace(ci_report, models=(replace(model, findings=findings),)))
        links = [a["href"] for a in page.tags("a") if not (a["href"] or "").startswith("#")]
        assert links == []
    page = page_of(replace(ci_report, models=(replace(model, findings=model.findings[:1]),)))
    assert "https://leakaudit.example/rules/LA020" in [a["href"] for a in page.tags("a")]


def test_times_can_be_left_out(ci_report: AuditReport) -> None:
    assert ", 0.41 s;" in text_of(ci_report)
    assert "0.41" not in text_of(ci_report, show_seconds=False)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_inert(hostile: str, ci_report: AuditReport) -> None:
    text = text_of(poisoned(ci_report, hostile))
    clean, dirty = page_of(ci_report), Page(text)

    def structure(page: Page) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in page.elements]

    assert structure(dirty) == structure(clean)
    assert dirty.drawn <= SVG
    assert plain(f"{hostile} conv4 {hostile}") in dirty.text
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]


def _svg_texts(text: str) -> list[list[str]]:
    """The texts of each drawn path, from top to bottom."""
    drawings = re.findall(r'<svg class="path".*?</svg>', text, re.S)
    return [re.findall(r"<text [^>]*>(.*?)</text>", drawing) for drawing in drawings]


def _contrast(first: str, second: str) -> float:
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
