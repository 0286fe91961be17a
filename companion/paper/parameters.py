"""Parameters of notebook 06."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from companion.reporting.claim import VERDICTS, Verdict
from companion.running.notebook import Folder, all_of, names_of
from companion.running.parameters import NotebookParameters, parse_list
from companion.running.paths import resolve, writable_folder

from .figures import PAPER_FIGURES
from .inputs import SOURCES, Source

# A figure's number may come as one.
Numbers = Annotated[list[str], BeforeValidator(lambda value: [str(number) for number in parse_list(value) or PAPER_FIGURES])]
Figures = Annotated[Numbers, AfterValidator(lambda numbers: all_of(numbers, list(PAPER_FIGURES), "figure"))]
Sources, Verdicts = names_of(SOURCES, "source"), names_of(VERDICTS, "verdict")


class FiguresParameters(NotebookParameters):
    """notebooks/06_figures_and_claims.ipynb."""

    numbers: Figures = Field([], description='figures of the paper, e.g. ["5", "8a"]; empty means all')
    sources: Sources = Field([], description="whose numbers: any of published, released, ours; empty means all that are at hand")
    released_dir: Folder = Field("", description="the folder with the authors' result files; empty means there is none")
    verdicts: Verdicts = Field([], description=f"verdicts of the ledger to show: any of {', '.join(VERDICTS)}; empty means all")
    words: str = Field("", description="show only claims that contain this text")
    figures_dir: Folder | None = Field(None, description="the folder of figures; None means figures/paper")

    @field_validator("released_dir")
    @classmethod
    def _released(cls, value: str) -> str:
        if value and not resolve(value).is_dir():
            raise ValueError("it is not a folder; the README's 'The released files' says how to get it")
        return value

    def released_folder(self) -> Path | None:
        """The folder with the authors' result files, if there is one."""
        return resolve(self.released_dir) if self.released_dir else None

    def chosen_sources(self) -> tuple[Source, ...]:
        """The sources that are drawn, in the order of `SOURCES`."""
        at_hand = [s for s in SOURCES if s != "released" or self.released_dir]
        return tuple(s for s in SOURCES if s in (self.sources or at_hand))

    def chosen_verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts that are shown, in the order of `VERDICTS`."""
        return tuple(v for v in VERDICTS if v in (self.verdicts or VERDICTS))

    def figures_folder(self) -> Path:
        """The folder of figures, created. Raises ExplainedError."""
        return writable_folder(self.figures_dir or "figures/paper", "figures_dir")
