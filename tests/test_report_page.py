"""The report in a browser: headless Chromium, at desktop and phone width, light and dark, with everything unfolded.

The pages are the committed ones. Without Chromium on the path the tests that need it are skipped.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

REPORTS = Path(__file__).resolve().parents[1] / "reports"
INDEX = REPORTS / "index.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")
DESKTOP, PHONE = 1280, 390
THEMES = ("light", "dark")

# How wide the page is with everything unfolded, and what reaches beyond the window without a box that scrolls.
MEASURE = """(() => {
  document.querySelectorAll("details").forEach(part => part.open = true);
  const boxed = part => part && part != document.body &&
    (getComputedStyle(part).overflowX != "visible" || boxed(part.parentElement));
  const beyond = [...document.body.querySelectorAll("*")].filter(part =>
    part.getBoundingClientRect().right > innerWidth + 1 && !boxed(part.parentElement));
  return {width: document.documentElement.scrollWidth, beyond: beyond.slice(0, 3).map(part => part.outerHTML)};
})()"""


class Browser:
    """One headless Chromium, spoken to by the DevTools protocol over a pipe: JSON, a zero byte after each."""

    def __init__(self, folder: Path) -> None:
        (theirs, self.to), (self.back, answers) = os.pipe(), os.pipe()
        quiet = (
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
        )
        call = [str(CHROMIUM), "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", *quiet]

        def connect() -> None:  # Chromium reads from 3 and writes to 4; copies, as one of ours may have that number
            high = os.dup(theirs), os.dup(answers)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(call, preexec_fn=connect, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(answers)
        self.last, self.kept, self.requests, self.session = 0, b"", [], ""  # type: ignore[var-annotated]
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what was requested meanwhile is kept."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.last:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.kept:
            part = os.read(self.back, 1 << 20)
            assert part, "Chromium has ended"
            self.kept += part
        text, _, self.kept = self.kept.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(found["params"]["request"]["url"])
        return found

    def open(self, page: Path, width: int, theme: str = "light") -> dict[str, Any]:
        """Show a page; what it requests besides itself and its own data, and what ``MEASURE`` finds."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=1600, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.requests.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass
        found: dict[str, Any] = self.ask("Runtime.evaluate", expression=MEASURE, returnByValue=True)["result"]["value"]
        own = (page.as_uri(), "data:")
        return found | {"loads": [address for address in self.requests if not address.startswith(own)]}

    def picture(self) -> np.ndarray:
        """The window as grey values."""
        data = base64.b64decode(self.ask("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)

    def close(self) -> None:
        """End the browser."""
        os.close(self.to)
        self.process.kill()
        self.process.wait()
        os.close(self.back)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


class Loads(HTMLParser):
    """What a browser would fetch: every address of an element that loads, and of a style sheet, that is not data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = re.findall(r"""@import\s*(?:url\()?["']?([^"');]+)""", text)
        self.found += [address for address in re.findall(r"url\(([^)#]+)\)", text) if not address.startswith("data:")]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loading = name in {"src", "srcset", "poster", "data"} or (
                tag in {"link", "image", "use"} and "href" in name
            )
            if loading and value and not value.startswith(("data:", "#")):
                self.found.append(value)


@pytest.fixture(scope="module")
def index() -> str:
    return INDEX.read_text(encoding="utf-8")


def every_page() -> list[Path]:
    return sorted(REPORTS.rglob("*.html"))


@pytest.mark.parametrize("page", every_page(), ids=lambda page: page.stem)
def test_no_page_asks_for_anything_outside_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert Loads(text).found == []
    assert "Content-Security-Policy" in text and "default-src 'none'" in text


def test_an_address_that_would_be_fetched_is_found() -> None:
    for fault in (
        '<script src="https://cdn.example/x.js"></script>', '<link rel="stylesheet" href="x.css">',
        "<style>@import url(http://a.example/b.css);</style>", "<p style='background: url(x.png)'>",
        "<img src='x.png'>",
    ):  # fmt: skip
        assert Loads(fault).found, fault
    assert not Loads("<a href='https://example.org'>text</a><img src='data:image/png;base64,AA'>").found


@pytest.fixture(scope="module", params=[DESKTOP, PHONE])
def seen(request: pytest.FixtureRequest, browser: Browser) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """What is found in the index at one width, and how it looks, by theme."""
    return {theme: (browser.open(INDEX, request.param, theme), browser.picture()) for theme in THEMES}


@in_browser
def test_nothing_is_fetched_and_nothing_reaches_beyond_the_window(seen: Any) -> None:
    for found, picture in seen.values():
        assert found == {"width": picture.shape[1], "beyond": [], "loads": []}


@in_browser
def test_light_and_dark_are_drawn_and_differ(seen: Any) -> None:
    (_, light), (_, dark) = seen["light"], seen["dark"]
    assert light.shape == dark.shape and light.shape in {(1600, DESKTOP), (1600, PHONE)}
    assert np.median(light) > 220 and np.median(dark) < 50
    for picture in (light, dark):  # text and figures: not one colour, and not only at the top
        assert all(part.std() > 8 for part in np.array_split(picture, 3))


@in_browser
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in every_page() if page != INDEX], ids=lambda page: page.stem)
def test_so_it_is_on_every_other_page_on_a_phone(browser: Browser, page: Path) -> None:
    assert browser.open(page, PHONE) == {"width": PHONE, "beyond": [], "loads": []}


@in_browser
def test_planted_faults_are_seen(browser: Browser, tmp_path: Path) -> None:
    """A script from elsewhere, which nobody answers at that port; and a table too wide for a phone."""
    page = tmp_path / "fault.html"
    for fault, loads in (
        ('<script src="http://127.0.0.1:9/x.js"></script>', 1),
        (f"<table><td>{'x' * 400}</table>", 0),
    ):
        page.write_text(f"<!doctype html><html><body>{fault}</body></html>", encoding="utf-8")
        found = browser.open(page, PHONE)
        assert len(found["loads"]) == loads
        assert (found["width"] > PHONE) == bool(found["beyond"]) == (not loads)


@in_browser
def test_a_page_that_knows_one_theme_only_would_be_seen(browser: Browser, index: str, tmp_path: Path) -> None:
    page = tmp_path / "light.html"
    page.write_text(index.replace("prefers-color-scheme: dark", "prefers-color-scheme: none"), encoding="utf-8")
    browser.open(page, PHONE, "dark")
    assert np.median(browser.picture()) > 220


def test_no_drawing_has_a_colour_of_its_own_for_ink(index: str) -> None:
    """Black and near-black literals would vanish on the dark page, white ones be holes in it."""
    drawings = re.findall(r"<svg .*?</svg>", index, flags=re.S)
    assert len(drawings) > 10
    for drawing in drawings:
        assert not re.search(r"(?:fill|stroke): #(?:(?:[0-3][0-9a-f]){3}|ffffff)\b", drawing)


def test_every_link_within_the_reports_leads_somewhere(index: str) -> None:
    for page in every_page():
        for link in re.findall(r'<a href="([^"#]+)', page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).is_file(), f"{page.name} links {link}"
    inner = set(re.findall(r'<a href="#([^"]+)', index))
    assert len(inner) > 10 and inner <= set(re.findall(r' id="([^"]+)', index))


def test_every_study_and_every_notebook_has_its_page_and_is_linked(index: str) -> None:
    for data in (REPORTS / "studies").glob("*.json"):
        assert data.with_suffix(".html").is_file() and f'href="studies/{data.stem}.html"' in index
        made = json.loads(data.read_text(encoding="utf-8"))["provenance"]
        for part in (made["command"], made["commit"]):
            assert part in index, f"the index knows an older {data.stem}; run `specproof report`"
    for path in (REPORTS.parent / "notebooks").glob("*.ipynb"):
        page = REPORTS / "notebooks" / f"{path.stem}.html"
        assert page.is_file() and f'href="notebooks/{page.name}"' in index, "run `make render`, then `specproof report`"
        text = page.read_text(encoding="utf-8")
        cells = nbformat.read(path, as_version=4).cells
        sources = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for heading in re.findall(r"^#+ ([^`$*_'\"&\n]+)$", sources, flags=re.M):
            assert heading in text, f"{page.name} is not of today's {path.name}; run `make render`"
        images = [1 for cell in cells for part in cell.get("outputs", []) if "image/png" in part.get("data", {})]
        assert text.count("data:image/png;base64,") == len(images)


def test_the_reports_stay_small() -> None:
    """In bytes; the audit's own log of findings, which repeats verdicts.json, aside."""
    files = [path for path in REPORTS.rglob("*") if path.is_file() and path.name != "findings.jsonl"]
    assert sum(path.stat().st_size for path in files) < 12e6
