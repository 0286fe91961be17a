"""Executed notebooks as Markdown pages with pictures, which can be read wherever the repository is shown.

    python -m companion.paper.pages     # executed/*.ipynb -> docs/pages/

Notebooks are kept without outputs. Pages leave out what changes with every run or needs a browser: progress bars, styles, scripts, widgets;
and cells that install the project. Pictures have at most 256 colours; one that has not changed is not written again.
"""

import base64
import io
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor
from PIL import Image
from tqdm import tqdm

from companion.running.paths import PROJECT
from pwmlib.data.checkpoints import write_atomic
from pwmlib.errors import ExplainedError

PAGES = PROJECT / "docs" / "pages"
IN_A_BROWSER = "*Interactive: run the notebook to use it.*"
_STYLE = re.compile(r"<(style|script)\b.*?</\1>", re.DOTALL)
_ATTRIBUTES = re.compile(r"<(table|thead|tbody|tr|th|td|caption)\b[^>]*>")


class _Readable(Preprocessor):
    """Keeps of every cell what can be read without running it."""

    def preprocess_cell(self, cell, resources, index):
        """Tables without styles; no progress bars, no scripts."""
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_readable, cell.outputs) if output is not None]
            for number, output in enumerate(cell.outputs):
                if "image/gif" in output.get("data", {}):  # which nbconvert would not write
                    path = f"{resources['unique_key']}/{resources['unique_key']}_{index}_{number}.gif"
                    files = resources["outputs"] if isinstance(resources["outputs"], dict) else {}
                    resources["outputs"] = {**files, path: base64.b64decode(output.data["image/gif"])}
                    output.data = nbformat.from_dict({"text/markdown": f"![gif]({path})"})
        return cell, resources


def _readable(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    if output.output_type == "stream":
        return None if output.name == "stderr" else output
    if "data" not in output:
        return output
    if "%|" in output.data.get("text/plain", ""):
        return None  # a progress bar
    html = output.data.get("text/html", "")
    needs_browser = "application/vnd.jupyter.widget-view+json" in output.data or "<script" in html or "text/javascript" in output.data
    if needs_browser and "image/png" not in output.data:
        output.data = nbformat.from_dict({"text/markdown": IN_A_BROWSER})
    elif html:
        output.data["text/html"] = _ATTRIBUTES.sub(r"<\1>", _STYLE.sub("", html)).strip()
    return output


def write_page(notebook: Path, folder: Path) -> Path:
    """Write folder/<name>.md and its pictures in folder/<name>/. Raises ExplainedError if the notebook was not executed to its end."""
    name = notebook.stem
    content = nbformat.read(notebook, as_version=4)
    content.cells = [cell for cell in content.cells if "install" not in cell.metadata.get("tags", [])]
    code = [cell for cell in content.cells if cell.cell_type == "code" and cell.source.strip()]
    failed = any(output.output_type == "error" for cell in code for output in cell.outputs)
    if failed or not code or any(cell.execution_count is None for cell in code):
        raise ExplainedError(f"{notebook}: not executed to its end; run make reproduce")
    exporter = MarkdownExporter(preprocessors=[_Readable])
    text, resources = exporter.from_notebook_node(content, {"unique_key": name, "output_files_dir": name})
    text = text.replace(f"{notebook.resolve().parent.parent}/", "")  # paths as seen from the repository
    pictures = folder / name
    pictures.mkdir(parents=True, exist_ok=True)
    found = resources.get("outputs", {}).items()
    wanted = {Path(path).name: data if path.endswith(".gif") else _small(data) for path, data in found}
    for path in pictures.iterdir():
        if path.name not in wanted:
            path.unlink()
    for file, data in wanted.items():
        if not (pictures / file).is_file() or (pictures / file).read_bytes() != data:
            (pictures / file).write_bytes(data)
    if not wanted:
        pictures.rmdir()
    page = folder / f"{name}.md"
    source = f"*Executed from [notebooks/{name}.ipynb](../../notebooks/{name}.ipynb); code and results below.*\n\n"
    write_atomic(page, source + _from_here(re.sub(r"\n{3,}", "\n\n", text).strip()) + "\n")
    return page


def _from_here(text: str) -> str:
    """Links as they must be in docs/pages: those of a notebook start in notebooks/."""
    text = re.sub(r"\]\(\.\./(?!docs/)", "](../../", text)
    text = text.replace("](../docs/", "](../").replace("](solutions/", "](../../notebooks/solutions/")
    return re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.md", text)


def _small(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        small = io.BytesIO()
        # The usual method, median cut, makes one colour of two thin lines that are both rare.
        of_256 = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        of_256.save(small, "png", optimize=True)
    return small.getvalue()


def main() -> None:
    """Render every executed notebook."""
    notebooks = sorted(p for p in (PROJECT / "executed").glob("[0-9]*.ipynb") if ".part" not in p.name)
    if not notebooks:
        raise SystemExit(f"No executed notebooks in {PROJECT / 'executed'}: run make reproduce first.")
    for notebook in tqdm(notebooks, desc="pages"):
        write_page(notebook, PAGES)


if __name__ == "__main__":
    main()
