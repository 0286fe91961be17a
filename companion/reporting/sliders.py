"""Pictures that a reader moves: one slider a number, drawn anew at each move."""

import functools
import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image
from matplotlib.figure import Figure

from companion.running.runs import single_thread


def picture(draw: Callable[..., Figure]) -> Callable[..., Image]:
    """Make a function that draws a figure return it as a PNG image, which Jupyter shows as a cell's value, and close the figure."""

    @functools.wraps(draw)
    def rendered(*arguments: object, **options: object) -> Image:
        with single_thread():
            figure = draw(*arguments, **options)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        return Image(buffer.getvalue())

    return rendered


def slider(draw: Callable[..., Image], **ranges: tuple[float, float, float]):
    """Make a widget: a slider a keyword of `draw`, and its picture below them.

    Args:
        draw: returns the picture for one number a keyword.
        ranges: (lowest, highest, value) of each keyword. Values are spread evenly in the logarithm when lowest > 0 is below a fiftieth of
            highest; integers give an integer slider; a value outside its range is moved to the nearer end.
    """
    import ipywidgets as widgets

    controls = {}
    for name, (low, high, value) in ranges.items():
        common = {"value": value, "description": name, "continuous_update": False}
        if all(isinstance(x, int) for x in (low, high, value)):
            controls[name] = widgets.IntSlider(min=low, max=high, **common)
        elif low > 0 and high / low > 50:
            controls[name] = widgets.FloatLogSlider(min=np.log10(low), max=np.log10(high), step=0.05, **common)
        else:
            controls[name] = widgets.FloatSlider(min=low, max=high, step=(high - low) / 50, **common)
    # An image that is replaced needs no capture of the cell's output, which headless execution does not always survive.
    shown = widgets.Image(format="png")

    def redraw(change: object = None) -> None:
        shown.value = draw(**{name: control.value for name, control in controls.items()}).data

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([*controls.values(), shown])
