"""The site as a browser has it: built without warnings, no broken link, nothing from the network, formulas, tables that fit, dark mode."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from test_lesson_in_browser import CHROMIUM, Page, free_port

from companion.running.paths import PROJECT

TOOLS = PROJECT / ".venv" / "site-tools"
pytestmark = [pytest.mark.long, pytest.mark.skipif(not TOOLS.exists(), reason="needs the site's tools: make site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, and what was said while it was built."""
    made = subprocess.run(["make", "site"], cwd=PROJECT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    folder = tmp_path_factory.mktemp("site") / "site"
    shutil.copytree(PROJECT / "executed" / "site", folder)
    return folder, made.stderr


class _Read(HTMLParser):
    """Links, loaded files, anchors and formulas of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors, self.formulas = [], [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.formulas += tag == "math"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in ("img", "script", "source") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(given["href"])


def test_the_build_has_nothing_to_say(site):
    said = [line for line in site[1].splitlines() if "WARNING" in line or "ERROR" in line]
    assert not said, said


def test_every_link_leads_somewhere_and_nothing_comes_from_the_network(site):
    folder, _ = site
    pages = {path: _Read(path.read_text()) for path in folder.rglob("*.html")}
    assert len(pages) > 100 and pages[folder / "pages" / "05_gradient_estimators.html"].formulas > 20
    wrong = []
    for path, page in pages.items():
        for target in page.loaded:
            if urlsplit(target).scheme not in ("", "data") or not (path.parent / unquote(urlsplit(target).path)).exists():
                wrong.append((path.name, target))
        for target in page.links:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.exists() or (parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors):
                wrong.append((path.name, target))
    assert not wrong, wrong[:20]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (or Chrome)")
def test_pages_fit_a_thousand_pixels_and_can_be_read_in_the_dark(site, tmp_path):
    folder, port = site[0], free_port()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--remote-debugging-port={port}", f"--user-data-dir={tmp_path}"]
    browser = subprocess.Popen([CHROMIUM, *flags, "--window-size=1000,900", "about:blank"], stderr=subprocess.DEVNULL)
    try:
        page = Page(port)
        for name in ("index", "claims", "results", "tables", "errata", "glossary", "use/own_data", "pages/02_single_task", "pages/03_mt80"):
            page.call("Page.navigate", url=(folder / f"{name}.html").as_uri())
            page.run("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")
            assert page.run("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is wider than the window"
            wide = "[...document.querySelectorAll('article table')].filter(t => t.clientWidth > 1000).length"
            assert page.run(wide) == 0, f"{name}: tables wider than the page"
            page.run("document.body.dataset.theme = 'dark'")
            dark = page.run(CONTRAST)
            assert dark >= 4.5, f"{name}: contrast of the text {dark:.1f} in dark mode"
    finally:
        browser.kill()
        browser.wait()


CONTRAST = """
(() => {
  const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const below = e => { while (e) { const c = getComputedStyle(e).backgroundColor;
    if (!/rgba\\(0, 0, 0, 0\\)|transparent/.test(c)) return c; e = e.parentElement; } return 'rgb(255, 255, 255)'; };
  return Math.min(...[...document.querySelectorAll('article p, article li, article td, article th, article h1, article h2')]
    .filter(e => e.innerText.trim()).map(e => { const [a, b] = [light(getComputedStyle(e).color), light(below(e))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
})()
"""


def test_every_page_of_docs_is_on_the_site():
    listed = set(re.findall(r"^((?:pages|use)/\w+|\w+)$", (PROJECT / "docs" / "index.md").read_text(), re.MULTILINE))
    docs = PROJECT / "docs"
    there = {str(path.relative_to(docs).with_suffix("")) for path in docs.rglob("*.md")} - {"index", "use/README"}
    assert there == listed
