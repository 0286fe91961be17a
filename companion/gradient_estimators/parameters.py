"""Parameters of notebook 05."""

from pydantic import Field

from companion.running.notebook import OnTheCPU


class LessonParameters(OnTheCPU):
    """notebooks/05_gradient_estimators.ipynb."""

    notebook = "05_gradient_estimators"
    samples: int | None = Field(
        None, ge=2, le=100_000, description="N, samples of an estimate in the last table, at least 2 for a variance; None means the scale's"
    )

    def sizes(self) -> tuple[int, int]:
        """(N, pool of samples that they are drawn from)."""
        return self.samples or 100, {"quick": 2000, "laptop": 20_000, "paper": 100_000}[self.scale]
