"""Executed notebooks as pages: what stays, what is left out, links and pictures; and the pages that are kept here."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageColor

from companion.paper.pages import IN_A_BROWSER, PAGES, write_page
from companion.reporting.colours import METHODS
from companion.running.paths import PROJECT
from pwmlib.errors import ExplainedError


def picture(seed=0):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(data, "png")
    return base64.b64encode(data.getvalue()).decode()


def executed(
    path,
    *outputs,
    count=1,
    text="See [errata](../docs/errata.md), [data](../data/published/README.md), [next](05_gradient_estimators.ipynb).",
):
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("work()", outputs=list(outputs), execution_count=count)])
    nbformat.write(notebook, path)
    return path


def shown(**data):
    return new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})


def test_a_page_has_text_tables_and_pictures(tmp_path):
    styled = '<style type="text/css">#T_1 td {color: red}</style><table id="T_1" class="x"><tr><td id="T_1_a">7</td></tr></table>'
    outputs = [
        new_output("stream", name="stdout", text=f"cost: 3 min, {tmp_path.parent}/runs/a.csv\n"),
        new_output("stream", name="stderr", text="12%|#   | 3/25"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "runs:  0%|     | 0/4"}),
        shown(text_html=styled, text_plain="a table"),
        shown(image_png=picture(), text_plain="<Figure>"),
        shown(text_html="<div></div><script>run()</script>", text_plain="x"),
    ]
    page = write_page(executed(tmp_path / "07_small.ipynb", *outputs), tmp_path / "pages").read_text()
    assert "cost: 3 min, runs/a.csv" in page and "<table><tr><td>7</td></tr></table>" in page and IN_A_BROWSER in page and "work()" in page
    assert "12%" not in page and "0/4" not in page and page.count(IN_A_BROWSER) == 1 and "T_1" not in page and "<script" not in page
    (file,) = re.findall(r"!\[png\]\((.*?)\)", page)
    with Image.open(tmp_path / "pages" / file) as small:
        assert small.size == (80, 60) and small.mode == "P"
    assert "](../errata.md)" in page and "](../../data/published/README.md)" in page and "](05_gradient_estimators.md)" in page


def test_a_moving_picture_stays_one(tmp_path):
    data, frames = io.BytesIO(), [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(data, "gif", save_all=True, append_images=frames[1:], duration=100)
    outputs = [shown(image_gif=base64.b64encode(data.getvalue()).decode(), text_plain="<Image>"), shown(image_png=picture())]
    page = write_page(executed(tmp_path / "07_small.ipynb", *outputs), tmp_path / "pages")
    (name,) = re.findall(r"!\[gif\]\((.*\.gif)\)", page.read_text())
    assert (page.parent / name).read_bytes() == data.getvalue() and len(list((page.parent / "07_small").iterdir())) == 2


def test_rare_colours_of_a_picture_stay_apart(tmp_path):
    rgb = np.array([ImageColor.getrgb(METHODS[name]) for name in ("SAC", "TD-MPC2")], dtype=np.uint8)
    shades = np.linspace(255, 0, 300)[:, None, None] * np.ones((1, 400, 3))
    shades[:, :, :2] *= np.linspace(1, 0, 400)[None, :, None]
    pixels = shades.astype(np.uint8)
    pixels[100, 50:90], pixels[200, 50:90] = rgb
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "png")
    write_page(executed(tmp_path / "07_small.ipynb", shown(image_png=base64.b64encode(data.getvalue()).decode())), tmp_path)
    (file,) = (tmp_path / "07_small").iterdir()
    with Image.open(file) as small:
        kept = np.asarray(small.convert("RGB"))[[100, 200], 60].astype(int)
    assert np.abs(kept - rgb).max() <= 32, kept


def test_what_has_not_changed_is_not_written_again(tmp_path):
    path = executed(tmp_path / "07_small.ipynb", shown(image_png=picture()), shown(image_png=picture(1)))
    write_page(path, tmp_path / "pages")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "pages" / "07_small").iterdir()}
    assert len(before) == 2
    write_page(executed(path, shown(image_png=picture())), tmp_path / "pages")
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "pages" / "07_small").iterdir()}
    assert len(after) == 1 and after.items() <= before.items()


def test_a_notebook_that_did_not_finish_is_refused(tmp_path):
    for path in (
        executed(tmp_path / "a.ipynb", count=None),
        executed(tmp_path / "b.ipynb", new_output("error", ename="E", evalue="", traceback=[])),
    ):
        with pytest.raises(ExplainedError, match="not executed to its end; run make reproduce"):
            write_page(path, tmp_path / "pages")
        assert not (tmp_path / "pages").exists()


def test_every_notebook_has_its_page():
    assert {p.stem for p in PAGES.glob("*.md")} == {p.stem for p in (PROJECT / "notebooks").glob("*.ipynb")}, "run make pages"
    for page in PAGES.glob("*.md"):
        text = page.read_text()
        assert "Traceback" not in text and not re.search(r"/(root|home|work|tmp)/\w", text), page
        title = nbformat.read(PROJECT / "notebooks" / f"{page.stem}.ipynb", 4).cells[0].source.splitlines()[0]
        assert title in text, f"{page.name} is of another notebook: run make pages"


@pytest.mark.parametrize("folder", sorted(p for p in PAGES.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_every_picture_of_a_page_is_on_it(folder):
    page = folder.with_suffix(".md").read_text()
    assert not [file.name for file in folder.iterdir() if f"]({folder.name}/{file.name})" not in page]
