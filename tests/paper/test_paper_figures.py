"""Every figure of the paper from every source, drawn from the tables it names or a panel that says why not; the ledger's views."""

import colorsys
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb, to_rgba_array

from companion.ball_wall.parameters import BallWallParameters
from companion.paper.figures import PAPER_FIGURES, paper_figure
from companion.paper.inputs import SOURCES
from companion.paper.ledger import ledger_table
from companion.paper.parameters import FiguresParameters
from companion.paper.released_aggregates import released_aggregates
from companion.paper.views import in_words, matching, verdict_bars
from companion.reporting.claim import VERDICTS
from companion.reporting.colours import METHODS, colours_of
from companion.reporting.drawings import bars_figure, message_panel
from companion.reporting.published import ReleasedFilesError
from companion.reporting.style import save_figure
from companion.running import results
from companion.running.parameters import ParameterError
from companion.running.paths import PROJECT

RELEASED = PROJECT.parent / "shared" / "released"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def words_of(figure):
    figure.canvas.draw()
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def coloured(figure):
    """(name, colour) of what stands for a method: its artists with a label, and its entries in legends."""
    for artist in figure.findobj(lambda a: hasattr(a, "get_label") and not isinstance(a, plt.Axes)):
        name = re.sub(r" \(\d+\)$", "", str(artist.get_label()).replace("\n", " ")).removesuffix(", published")
        if name not in METHODS:
            continue
        for ask in ("get_color", "get_edgecolor"):
            if hasattr(artist, ask):
                found = to_rgba_array(getattr(artist, ask)())
                shades = {to_hex(c).upper() for c in found if to_hex(c) != "#ffffff"}
                yield from ((name, shade) for shade in shades)
                break


def test_every_figure_that_the_project_promises():
    wanted = {"2", "3", "5", "6", "7a", "7b", "8a", "8b", "9", "10", "11", "13", "14", "15", "16", "17", "18", "19"}
    assert set(PAPER_FIGURES) == wanted


@pytest.mark.parametrize("source", ["published", "ours"])
@pytest.mark.parametrize("number", PAPER_FIGURES)
def test_each_figure_is_drawn_or_says_why_not(number, source):
    drawn = paper_figure(number, source)
    text = words_of(drawn.figure)
    if drawn.missing:
        assert len(drawn.missing) > 20 and " ".join(drawn.missing.split()[:4]) in " ".join(text.split())
    else:
        assert drawn.paths and all(path.is_file() for path in drawn.paths)
        assert any(ax.lines or ax.patches or ax.collections for ax in drawn.figure.axes)
    for name, colour in coloured(drawn.figure):
        assert colour == METHODS[name], f"{name} is drawn in {colour}"


def test_without_the_released_files_each_figure_says_how_to_get_them():
    for number in PAPER_FIGURES:
        missing = paper_figure(number, "released").missing
        reasons = ("released_dir is not given", "No numbers of this figure", "numbers in the authors' notebook")
        assert any(reason in missing for reason in reasons), number


def test_a_missing_table_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    drawn = paper_figure("3", "ours")
    assert "double_pendulum.csv is missing" in drawn.missing and "papermill notebooks/01_double_pendulum.ipynb" in drawn.missing
    assert "python -m companion.record hopper_shac" in paper_figure("5", "ours").missing


def test_bars_are_the_numbers_of_the_table():
    drawn = paper_figure("6", "published")
    table = pd.read_csv(PROJECT / "data" / "published" / "multitask_aggregate.csv")
    heights = [bar.get_height() for ax in drawn.figure.axes for bar in ax.patches]
    wanted = table[table["set"].isin([f"MT{n} {m}" for n in (30, 80) for m in ("PWM", "TD-MPC2")])]
    assert heights == pytest.approx(wanted[wanted["variant"] != "as in the notebooks"]["iqm"].tolist())


def test_the_errata_say_what_resampling_tasks_anew_in_every_run_gives():
    many, robots = (pd.read_csv(PROJECT / "data" / "published" / f"{name}_aggregate.csv") for name in ("multitask", "single_task"))
    robots = robots[robots["point"] == "peak"].rename(columns={"resampled": "variant"})
    text = (PROJECT / "docs" / "errata.md").read_text()
    ends = {
        kind: [
            "{lo:.2f} to {hi:.2f}".format(**rows[rows["variant"] == kind].iloc[0])
            for rows in (many[many["set"] == "MT30 TD-MPC2"], robots[robots["method"] == "TD-MPC2"])
        ]
        for kind in ("as in the notebooks", "tasks")
    }
    for said in ("(TD-MPC2 on MT30: {}; at its peak over the robots: {})", "whole tasks resampled: {}, and {};"):
        assert said.format(*ends.pop(next(iter(ends)))) in text


def test_lines_with_one_tick_stand_side_by_side_in_the_colour_of_their_method():
    lines = [("PWM", "PWM (5)", 1.0, False), ("PWM", "PWM (5)", 2.0, True), ("SHAC", "SHAC (3)", 3.0, False)]
    table = pd.DataFrame(lines, columns=["label", "tick", "value", "hollow"]).assign(low=[0.5, np.nan, 2.5], high=[1.5, np.nan, 3.5])
    (ax,) = bars_figure({"hopper": table}, "return").axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["PWM (5)", "SHAC (3)"]
    left, right, other = ax.patches
    assert left.get_x() + left.get_width() < right.get_x() and right.get_x() + right.get_width() < other.get_x()
    assert [round(255 * c) for c in left.get_facecolor()[:3]] == [0, 0x72, 0xB2] and right.get_facecolor()[3] == 0
    assert len(ax.containers) == 3 + 2, "an interval only where there is one"


def test_no_two_labels_share_a_colour():
    first = colours_of([*METHODS][:9])
    assert len(set(first.values())) == 7, "two are of one method: PWM and its recorded kind, TD-MPC2 and what it does without planning"
    assert first["PWM"] == first["PWM, SHAC replay"] and first["TD-MPC2"] == first["TD-MPC2 without planning"]
    assert len(set(colours_of(["PWM", "TD-MPC2", "a", "b", "c"]).values())) == 5
    assert colours_of(["PWM, published"]) == {"PWM, published": METHODS["PWM"]}
    beside_shac = colours_of(["SHAC", "PWM, SimNorm", "PWM, LayerNorm + Mish"])
    assert len(set(beside_shac.values())) == 3 and beside_shac["PWM, LayerNorm + Mish"] == METHODS["LayerNorm + Mish"]


def test_variations_of_a_method_are_shades_of_its_colour():
    found = colours_of(["SHAC, contacts 1x", "SHAC, contacts 4x", "PWM, contacts 1x", "PWM, contacts 4x", "nothing known"])
    assert len(set(found.values())) == 5 and found["SHAC, contacts 1x"] == METHODS["SHAC"] and found["PWM, contacts 1x"] == METHODS["PWM"]
    for method in ("SHAC", "PWM"):
        full, dark = (colorsys.rgb_to_hls(*to_rgb(found[f"{method}, contacts {n}x"])) for n in (1, 4))
        assert dark[0] == pytest.approx(full[0], abs=0.02) and dark[1] < full[1] - 0.1


def test_a_message_fits_into_its_panel():
    figure = message_panel("Fig. 7a, ours", "word " * 80)
    figure.canvas.draw()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= -1 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height + 1


def test_a_saved_figure_says_whose_numbers_it_shows(tmp_path):
    drawn = paper_figure("8b", "published")
    save_figure(drawn.figure, tmp_path, "fig08b", paper="Fig. 8b", inputs=drawn.paths, source="published", command="make figures")
    entry = json.loads((tmp_path / "index.json").read_text())["fig08b"]
    assert entry["source"] == "published" and entry["paper"] == "Fig. 8b" and entry["command"] == "make figures"
    assert set(entry["inputs"]) == {"extraction.csv", "literals.csv"} and entry["commit"]
    assert (tmp_path / "fig08b.pdf").stat().st_size > 1000


def test_a_picture_of_changed_parameters_replaces_none_of_the_usual_ones(tmp_path):
    def save(**parameters):
        usual = BallWallParameters(scale="laptop", **parameters)
        return save_figure(plt.figure(), tmp_path, "fig02", paper="Fig. 2", **usual.provenance())

    usual, changed = save(runs_dir="elsewhere"), save(height=2.0, wall=7.0)
    assert (usual.name, changed.name) == ("fig02.png", "fig02--wall-7.0-height-2.0.png")
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["fig02"]["command"] == "papermill notebooks/00_ball_wall.ipynb out.ipynb -p scale laptop"
    assert index[changed.stem]["command"].endswith("-p scale laptop -p wall 7.0 -p height 2.0")
    (title,) = plt.gcf().texts
    assert title.get_text() == "changed: wall = 7.0, height = 2.0"
    assert save(start=-1.0).name != save(start=1.0).name
    assert len(save(overrides={"epochs": list(range(1, 60))}).stem) < 100, "no name that a file system refuses"
    assert BallWallParameters(scale="paper").provenance()["changed"] == {"scale": "paper"}


def test_wrong_figures_and_sources_are_named():
    with pytest.raises(ValueError, match="no figure '4'; known: 2, 3"):
        paper_figure("4", "ours")
    with pytest.raises(ValueError, match="source must be one of published, released, ours, got 'theirs'"):
        paper_figure("5", "theirs")


DEFAULTS = {"numbers": [], "sources": [], "released_dir": "", "verdicts": [], "words": "", "figures_dir": ""}


def test_parameters_of_the_notebook(tmp_path):
    everything = FiguresParameters.validate_cell(DEFAULTS)
    assert everything.chosen_sources() == ("published", "ours") and everything.chosen_verdicts() == VERDICTS
    assert everything.numbers == list(PAPER_FIGURES)
    assert FiguresParameters.validate_cell({**DEFAULTS, "released_dir": str(tmp_path)}).chosen_sources() == SOURCES
    some = FiguresParameters.validate_cell({**DEFAULTS, "numbers": "[5, 8]".replace("8", '"8a"'), "verdicts": "contradicts"})
    assert some.numbers == ["5", "8a"] and some.chosen_verdicts() == ("contradicts",)
    for change, message in (
        ({"numbers": ["4"]}, "no figure '4'; known: 2"),
        ({"sources": ["theirs"]}, "no source 'theirs'; known: published"),
        ({"verdicts": ["true"]}, "no verdict 'true'; known: holds"),
        ({"released_dir": "nowhere/at/all"}, "is not a folder"),
    ):
        with pytest.raises(ParameterError, match=message):
            FiguresParameters.validate_cell({**DEFAULTS, **change})


def test_the_ledger_is_filtered_by_verdict_and_by_word():
    table = ledger_table()
    differing = matching(table, ["contradicts"])
    said = differing[["verdict", "in_the_files"]] == "contradicts"
    assert said.any(axis=1).all() and 0 < len(differing) < len(table)
    assert len(matching(table, VERDICTS)) == len(table)
    hopper = matching(table, VERDICTS, "hOPPer")
    assert 0 < len(hopper) < len(table) and "table4_pwm_hopper" in set(hopper["id"])
    assert len(matching(table, VERDICTS, "no claim says this")) == 0


def test_rows_in_words_have_their_numbers():
    table = ledger_table()
    row = in_words(table).set_index("id").loc["table4_pwm_hopper"]
    numbers = table.set_index("id").loc["table4_pwm_hopper"]
    assert row["released files"].startswith(f"{numbers['recomputed']:.0f} [") and row["released files say"] == "holds"
    assert row["ours"].startswith(f"{numbers['ours']:.0f} [") and row["ours"].endswith("5 seeds")


def test_verdicts_are_counted():
    table = ledger_table()
    left, right = verdict_bars(table).axes
    assert sum(bar.get_width() for bar in left.patches) == table["in_the_files"].notna().sum()
    assert sum(bar.get_width() for bar in right.patches) == (table["basis"] == "ours").sum()


def test_a_folder_without_released_files_is_named(tmp_path):
    with pytest.raises(ReleasedFilesError, match="none of the authors' result files is here"):
        released_aggregates(tmp_path)


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the authors' result files are not here")
def test_aggregates_and_figures_of_the_released_files():
    table = released_aggregates(RELEASED).set_index("quantity")
    known = {
        "MT30, PWM, IQM of scores": 0.864,
        "MT30, TD-MPC2, IQM of scores": 0.681,
        "MT80, PWM, IQM of scores": 0.913,
        "MT80, TD-MPC2, IQM of scores": 0.847,
        "MT30, PWM / TD-MPC2": 1.27,
        "hopper, PWM, IQM of returns at the peak": 5680,
    }
    for quantity, value in known.items():
        assert np.allclose(table.loc[quantity, "computed"], value, rtol=0.005), quantity
    assert set(table.loc["MT30, TD-MPC2, IQM of scores", "interval"]) == {"over tasks", "over evaluation episodes of one model"}
    assert table.loc["hopper, PWM, IQM of returns at the peak", "interval"] == "over 5 runs"
    stored = pd.read_csv(PROJECT / "data" / "published" / "multitask_aggregate.csv").query("variant == 'tasks'").set_index("set")
    for name in ("MT30 PWM", "MT30 TD-MPC2", "MT80 PWM", "MT80 TD-MPC2"):
        line = table.loc[["{}, {}, IQM of scores".format(*name.split())]].iloc[0]
        assert (line["low"], line["high"]) == pytest.approx(tuple(stored.loc[name, ["lo", "hi"]]), rel=1e-5)
    for number in ("5", "6", "7a", "8a", "13", "14", "15", "16", "17"):
        assert not paper_figure(number, "released", RELEASED).missing
