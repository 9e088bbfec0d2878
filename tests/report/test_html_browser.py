"""The HTML report in headless Chromium: it shows, it logs no error, it asks for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from report_samples import poisoned

from leakaudit.findings import AuditReport, ImageReport
from leakaudit.report import RenderOptions
from leakaudit.report.html.report import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


class Visit:
    """What a browser made of a page: standard error, screenshot, addresses asked for."""

    def __init__(self, page: Path, folder: Path, *options: str, width: int = 1000) -> None:
        folder.mkdir()
        self.screenshot = folder / "page.png"
        log = folder / "net.json"
        self.ran = subprocess.run(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={folder / 'profile'}",
                f"--log-net-log={log}",
                f"--window-size={width},2400",
                *(options or (f"--screenshot={self.screenshot}",)),
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.console = [line for line in self.ran.stderr.splitlines() if ":CONSOLE" in line]
        events = json.loads(log.read_text(encoding="utf-8"))["events"]
        requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
        # The browser's own traffic, which the resolver rule stops, comes from no origin.
        self.asked = [
            request["url"]
            for request in requests
            if request["initiator"] != "not an origin"
            and not request["url"].startswith(("data:", "file:"))
        ]


@pytest.fixture
def page(ci_report: AuditReport, tmp_path: Path) -> Path:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (200, 30, 90)).save(picture)
    images = (ImageReport(*([str(picture)] * 3)),)
    models = (replace(ci_report.models[0], images=images), *ci_report.models[1:])
    path = tmp_path / "report.html"
    text = render(replace(ci_report, models=models), RenderOptions())
    path.write_text(text, encoding="utf-8")
    return path


def test_it_shows_logs_nothing_and_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    visit = Visit(page, tmp_path / "visit")
    assert visit.console == []
    assert visit.asked == []
    shown = Image.open(visit.screenshot).convert("RGB")
    colors = {color: count for count, color in shown.getcolors(1 << 24) or []}
    assert shown.size == (1000, 2400)
    assert len(colors) > 200
    ground, covered = max(colors, key=lambda color: colors[color]), max(colors.values())
    assert min(ground) > 230  # light
    assert covered < 0.98 * 1000 * 2400
    assert colors.get((200, 30, 90), 0) > 3 * 100 * 100  # the embedded pictures


def test_dark_is_dark(page: Path, tmp_path: Path) -> None:
    options = (f"--screenshot={tmp_path / 'dark.png'}", "--blink-settings=preferredColorScheme=0")
    Visit(page, tmp_path / "visit", *options)
    colors = Image.open(tmp_path / "dark.png").convert("RGB").getcolors(1 << 24) or []
    assert max(max(colors)[1]) < 60


def test_a_phone_need_not_scroll_sideways(ci_report: AuditReport, tmp_path: Path) -> None:
    """Measured in frames as wide as a phone, since a window cannot be; long names included."""
    names = ("", "x" * 150, "encoder.block_" * 12)
    for number, name in enumerate(names):
        text = render(poisoned(ci_report, name), RenderOptions())
        (tmp_path / f"{number}.html").write_text(text, encoding="utf-8")
    page = tmp_path / "frames.html"
    page.write_text(
        "".join(f'<iframe src="{n}.html" width="360" height="800"></iframe>' for n in range(3))
        + "<script>onload = () => { document.title = [...document.querySelectorAll('iframe')]"
        ".map(f => f.contentDocument.documentElement.scrollWidth).join(' '); }</script>"
    )
    options = ("--allow-file-access-from-files", "--dump-dom")
    visit = Visit(page, tmp_path / "visit", *options)
    assert "<title>360 360 360</title>" in visit.ran.stdout


def test_a_page_that_misbehaves_is_noticed(tmp_path: Path) -> None:
    """The checks above can fail: this page logs an error and asks for a picture."""
    bad = tmp_path / "bad.html"
    bad.write_text('<script>console.error("no")</script><img src="http://x.example/a.png">')
    visit = Visit(bad, tmp_path / "visit")
    assert visit.console != []
    assert visit.asked == ["http://x.example/a.png"]


def test_hostile_names_run_nothing(ci_report: AuditReport, tmp_path: Path) -> None:
    hostile = (
        "\"'><script>console.error(1)</script><img src=http://x.example/a onerror=console.error(2)>"
        "<style>@import 'http://x.example/b';</style>"
    )
    path = tmp_path / "hostile.html"
    text = render(poisoned(ci_report, hostile), RenderOptions())
    path.write_text(text, encoding="utf-8")
    # Without the policy, which would also keep it from running: escaping alone has to.
    path.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", text), encoding="utf-8")
    visit = Visit(path, tmp_path / "visit")
    assert visit.console == []
    assert visit.asked == []
