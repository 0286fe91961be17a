"""Notebook 05 in a real JupyterLab in headless Chromium: every cell runs, and moving each slider changes its picture."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from companion.running.paths import PROJECT

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.notebook,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (or Chrome) to try the sliders in JupyterLab"),
]


class Page:
    """A page of the browser over its DevTools protocol."""

    def __init__(self, port):
        import websocket

        targets = wait(lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5)), 60, "Chromium")
        address = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
        self.socket, self.number = websocket.create_connection(address, timeout=120, suppress_origin=True), 0

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")


def wait(ask, seconds, what):
    """The first true answer of `ask`; errors count as not yet."""
    limit, last = time.monotonic() + seconds, None
    while time.monotonic() < limit:
        try:
            if last := ask():
                return last
        except OSError as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"{what}: nothing after {seconds} s, last answer {last!r}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def lab(tmp_path):
    """A page of JupyterLab with a copy of notebook 05 open."""
    source = (PROJECT / "notebooks" / "05_gradient_estimators.ipynb").read_text()
    (tmp_path / "lesson.ipynb").write_text(source)
    port, debug = free_port(), free_port()
    # Without windowing every cell stays in the page, seen or not.
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = {**os.environ, **{name: str(tmp_path / folder) for name, folder in folders.items()}}
    server = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=",
              f"--ServerApp.root_dir={tmp_path}", "--expose-app-in-browser", "--ServerApp.disable_check_xsrf=True"]  # fmt: skip
    browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", "--window-size=1400,2000", f"--user-data-dir={tmp_path / 'chromium'}",
               f"--remote-debugging-port={debug}", "about:blank"]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(server, env=environment, **quiet), subprocess.Popen(browser, **quiet)]
    try:
        wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).status == 200, 90, "JupyterLab")
        page = Page(debug)
        page.call("Page.navigate", url=f"http://127.0.0.1:{port}/lab/tree/lesson.ipynb?reset")
        ready = "!!(window.jupyterapp && document.querySelector('.jp-Notebook .jp-CodeCell'))"
        wait(lambda: page.run(ready), 120, "the notebook in JupyterLab")
        yield page
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


KERNEL = """(() => { const w = [...jupyterapp.shell.widgets('main')].find(w => w.sessionContext);
  if (w) jupyterapp.shell.activateById(w.id); return w?.sessionContext?.session?.kernel?.status; })()"""
IMAGES = "[...document.querySelectorAll('.jp-OutputArea img.widget-image, .jp-OutputArea .widget-image')].map(i => i.src)"
SLIDERS = "document.querySelectorAll('.jp-OutputArea .noUi-handle').length"
PRESS = """(i => { const h = document.querySelectorAll('.jp-OutputArea .noUi-handle')[i]; h.scrollIntoView(); h.focus();
  for (let k = 0; k < 5; k++) h.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', keyCode: 39, bubbles: true}));
  h.dispatchEvent(new KeyboardEvent('keyup', {key: 'ArrowRight', keyCode: 39, bubbles: true})); h.blur(); })"""


def test_every_cell_runs_and_every_slider_changes_its_picture(lab):
    wait(lambda: lab.run(KERNEL) == "idle", 90, "the kernel")
    lab.run("jupyterapp.commands.execute('notebook:run-all-cells'); 1")
    last = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent)"
    ran = lambda: all(re.match(r"\[\d+\]", p) for p in lab.run(last))  # noqa: E731
    wait(ran, 180, "all cells of the lesson")
    errors = "[...document.querySelectorAll('[data-mime-type*=error], [data-mime-type*=stderr]')].map(e => e.innerText)"
    assert [text for text in lab.run(errors) if re.search("Error|Traceback", text)] == []
    count = lab.run(SLIDERS)
    assert count == 6, f"{count} sliders are shown"
    pictures = lab.run(IMAGES)
    assert len(pictures) == 5
    picture_of = [0, 1, 1, 2, 3, 4]
    for slider, picture in enumerate(picture_of):
        before = lab.run(IMAGES)[picture]
        lab.run(f"{PRESS}({slider}); 1")
        wait(lambda b=before, p=picture: lab.run(IMAGES)[p] != b, 60, f"slider {slider}: its picture to change")
