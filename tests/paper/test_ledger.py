"""The claims ledger is what its tables say: recomputed here, and sensitive to each table it rests on."""

import dataclasses
import io
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion import record as recorded
from companion.ablations.questions import ABLATIONS
from companion.paper.ledger import BADGES, CLAIMS, LEDGER, PAGE, ledger_table
from companion.paper.views import badges, claims_page, markdown_table, verdict_counts
from companion.reporting import published
from companion.reporting.cells import Cell, StatisticError, computed, iqm_cell, iqm_compared
from companion.reporting.claim import VERDICTS, Claim, read_claims
from companion.reporting.colours import VERDICT_COLOURS
from companion.running import results
from companion.running.paths import PROJECT
from companion.single_task.tables import OWN_BODIES
from pwmlib.baselines.tdmpc2 import TDMPC2Config
from pwmlib.baselines.tdmpc2_online import OnlineTDMPC2Config
from pwmlib.errors import ExplainedError
from pwmlib.model.training import WorldModelTraining
from pwmlib.model.world_model import WorldModelConfig
from pwmlib.optimizer.online_robots import OnlinePWMConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.optimizer.shac import SHACConfig


def as_stored(table):
    return pd.read_csv(io.StringIO(table.to_csv(index=False, float_format="%.6g")))


def test_the_stored_ledger_is_what_the_data_say():
    stored, now = pd.read_csv(CLAIMS), as_stored(ledger_table())
    assert list(stored["id"]) == list(now["id"]), "claims changed: run python -m companion.paper.ledger"
    for column in now.columns:
        different = [
            i
            for i in now.index
            if stored.at[i, column] != now.at[i, column] and not pd.isna([stored.at[i, column], now.at[i, column]]).all()
        ]
        assert not different, f"{column} of {list(now['id'][different])}: run python -m companion.paper.ledger"


def test_the_page_is_written_from_the_ledger():
    assert PAGE.read_text() == claims_page(ledger_table()), "run python -m companion.paper.ledger"


def test_badges_count_what_our_runs_say():
    table, readme = ledger_table(), (PROJECT / "README.md").read_text()
    pictures = badges(table)
    assert len(pictures) == len(LEDGER) == len(list(BADGES.glob("*.svg")))
    for name, picture in pictures.items():
        assert (BADGES / name).read_text() == picture, "run python -m companion.paper.ledger"
        assert ElementTree.fromstring(picture).tag.endswith("svg") and f"docs/badges/{name}" in readme
    ours = table[(table["basis"] == "ours") & table["section"].str.startswith("Sec. 3.1")]["verdict"]
    for verdict, word in (("holds", "hold"), ("contradicts", "contradicted"), ("not shown at this size", "not shown")):
        fields = re.findall(f'fill="(#[0-9A-F]+)"/><text [^>]*>{ours.str.startswith(verdict).sum()} {word}<', pictures["3.1.svg"])
        assert fields == [VERDICT_COLOURS[verdict]], "a word and a colour of its own for each"


def test_the_readme_counts_the_verdicts():
    table, readme = ledger_table(), (PROJECT / "README.md").read_text()
    assert markdown_table(verdict_counts(table)) in readme, markdown_table(verdict_counts(table))
    said = table["in_the_files"].value_counts()
    spoken_to = sum(said[verdict] for verdict in ("holds", "contradicts", "not shown at this size"))
    assert f"can check {spoken_to} statements, and confirm {said['holds']}." in readme


def test_a_robot_with_a_body_of_our_own_decides_nothing_about_the_papers():
    ours = pd.read_csv(CLAIMS).query("basis == 'ours' and id.str.startswith('table4_')")
    own = ours["id"].str.endswith(OWN_BODIES)
    assert own.sum() >= 2 and (ours["verdict"] == "cannot be checked").equals(own)


def test_there_are_enough_rows_and_each_can_be_read_alone():
    table = pd.read_csv(CLAIMS, keep_default_na=False)
    assert len(table) >= 40 and table["id"].is_unique and set(table["verdict"]) <= set(VERDICTS)
    assert (table["statement"].str.len() > 15).all() and table["where"].str.contains("Sec|Fig|Table|App|Abstract").all()
    ours = table[table["basis"] == "ours"]
    assert (ours[["scale", "seeds", "command"]] != "").all(axis=None) and (ours["ours"] != "").all()
    assert table.loc[table["note"].str.startswith("Not run yet."), "command"].str.startswith("python -m companion.record").all()
    commands = [c.removeprefix("python -m companion.record ") for c in table["command"] if c.startswith("python -m companion.record")]
    assert set(commands) <= set(recorded.EXPERIMENTS)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The tables of the project in a folder where they can be changed; and the names of those that the ledger reads."""
    read = set()

    def reading(path, *args, **kwargs):
        if isinstance(path, Path):
            read.add(path)
        return original(path, *args, **kwargs)

    for module, name in ((results, "RESULTS"), (published, "PUBLISHED")):
        shutil.copytree(getattr(module, name), tmp_path / name, ignore=shutil.ignore_patterns("*.md"))
        monkeypatch.setattr(module, name, tmp_path / name)
    original = pd.read_csv
    monkeypatch.setattr(pd, "read_csv", reading)
    ledger_table()
    monkeypatch.setattr(pd, "read_csv", original)
    return sorted(path for path in read if path.is_file())


def test_a_change_of_any_table_shows(copied):
    claims, unseen = [claim for claims in LEDGER.values() for claim in claims], []
    before = {claim.id: (claim.recomputed(), claim.measured()) for claim in claims}
    assert len(copied) > 12
    for path in copied:
        table, kept = pd.read_csv(path), path.read_bytes()
        numbers = [c for c in table.select_dtypes("number") if c not in ("stiffness", "train_seed", "model_updates", "updates", "seeds")]
        assert numbers, path
        # Not the same factor everywhere: ratios would not notice.
        factors = 1 + 0.3 * np.random.default_rng(0).random((len(table), 1))
        table[numbers] = table[numbers] * factors
        table.to_csv(path, index=False)
        resting = [claim for claim in claims if f"'{path.stem}'" in repr((claim.files, claim.ours))]
        if all((claim.recomputed(), claim.measured()) == before[claim.id] for claim in resting):
            unseen.append(path.name)
        path.write_bytes(kept)
    assert not unseen


def test_without_its_table_a_claim_says_that_it_was_not_run(copied):
    for path in results.results_paths("*"):
        path.unlink()
    table = ledger_table()
    assert (table["basis"] != "ours").all() and table["ours"].isna().all()
    assert table.set_index("id").loc["table4_pwm_hopper", "note"].startswith("Not run yet.")


def test_cells_against_closed_forms():
    cell = iqm_cell([1.0, 2.0, 3.0, 100.0])
    assert cell.value == 2.5 and cell.rests_on == "4 seeds" and 1 <= cell.low < 2.5 < cell.high <= 100
    assert iqm_cell([7.0]) == Cell(7.0, rests_on="1 seed")
    assert iqm_compared([2.0, 4.0], [3.0], np.divide).value == 1.0 and iqm_compared([2.0, 4.0], [3.0], np.divide).low is None
    ratio = iqm_compared([10.0] * 5, [5.0] * 3, np.divide)
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    gain = iqm_compared([1.0, 2.0, 3.0, 4.0], [-1.0, 0.0], np.subtract)
    assert gain.value == 3.0 and 1 <= gain.low < 3 < gain.high <= 5
    # Of means of many normal numbers the interval is known: mean +- 1.96 / sqrt(n).
    values = np.random.default_rng(0).normal(size=4000)
    middle = np.sort(values)[1000:3000]
    cell = iqm_cell(values)
    assert cell.value == pytest.approx(middle.mean())
    assert cell.high - cell.low == pytest.approx(2 * 1.96 * stats.mstats.trimmed_stde(values, (0.25, 0.25)), rel=0.1)


def test_named_statistics_against_numbers_worked_out_by_hand():
    tables = {
        "runs": pd.DataFrame({"of": list("aabbb"), "seed": [0, 1, 0, 1, 1], "score": [2.0, 4.0, 1.0, 5.0, 3.0], "cost": [1, 2, 3, 3, 3]}),
        "ends": pd.DataFrame({"of": ["a", "b"], "v": [0.5, 0.25], "lo": [0.4, 0.2], "hi": [0.7, 0.5], "n": [10, 20]}),
    }

    def cell(**call):
        return computed(call, tables.__getitem__)

    a, b = {"where": {"of": "a"}}, {"where": {"of": "b"}}
    runs, ends = {"table": "runs", "column": "score", **a, "against": b}, {"table": "ends", "column": "v", **a, "against": b}
    assert cell(statistic="iqm", table="runs", column="score / 2", **a).value == 1.5
    assert cell(statistic="iqm_ratio", **runs).value == cell(statistic="iqm_gain", **runs).value + 1 == 1.0
    assert cell(statistic="iqm_gain", **runs, by="seed", within="mean").value == 3.0 - 2.5
    assert cell(statistic="ratio", **runs, take="sum", rests_on="{unique[seed]} seeds, {sum[cost]:.0f}") == Cell(
        6 / 9, rests_on="2 seeds, 3"
    )
    assert cell(statistic="ratio", **ends, ends=["lo", "hi"], rests_on="{n} and {other[n]}") == Cell(2.0, 1.6, 2.8, "10 and 20")
    assert cell(statistic="value", table="runs", column="score > 2", take="mean", rests_on="").value == 0.6
    assert cell(statistic="share_above", **runs, by="seed", within="last", rests_on="").value == 1.0
    options = {**ends, "ends": ["lo", "hi"], "rests_on": ""}
    joined = {how: cell(statistic="difference", joined=how, **options) for how in ("ends", "newcombe")}
    assert (joined["ends"].low, joined["ends"].high) == pytest.approx((0.4 - 0.5, 0.7 - 0.2))
    assert joined["newcombe"].low == pytest.approx(0.25 - (0.1**2 + 0.25**2) ** 0.5)
    assert joined["newcombe"].high == pytest.approx(0.25 + (0.2**2 + 0.05**2) ** 0.5)
    with pytest.raises(StatisticError, match="a run of the first has more cost than one of the second"):
        cell(statistic="iqm_ratio", table="runs", column="score", **b, against=a, no_more="cost")
    tables["ends"].loc[0, "v"] = np.nan
    assert cell(statistic="value", table="ends", column="v", **a, rests_on="") is None, "nothing was released"


GOOD = """section = "Sec. 9: test"
[words]
robot = "Hopper"
[[claim]]
id = "one_$algorithm"
place = "Sec. 9"
statement = "PWM is ahead of $other on $robot."
published = "{:.0f}"
unit = "ratio"
printed = 2.0
command = "python -m companion.record hopper_pwm"
each = [[{ algorithm = "shac", other = "SHAC" }, { algorithm = "ppo", other = "PPO", bar = 0.5 }]]
[claim.files]
statistic = "ratio"
table = "single_task"
where = { algorithm = "pwm", task = "hopper" }
against = { where = { algorithm = "$algorithm" } }
column = "peak_iqm"
rests_on = "{n_runs:.0f} runs"
[claim.ours]
statistic = "iqm"
table = "single_task_hopper_pwm"
column = "last"
"""


def claims_of(folder, text):
    (folder / "claims.toml").write_text(text)
    section, claims = read_claims(folder / "claims.toml")
    return section, claims, [(claim.recomputed(), claim.measured()) for claim in claims]


def test_a_claim_is_read_for_each_of_its_entries(tmp_path):
    section, (shac, ppo), ((recomputed, measured), _) = claims_of(tmp_path, GOOD)
    assert section == "Sec. 9: test" and (shac.id, ppo.id) == ("one_shac", "one_ppo") and shac.published == "2"
    assert shac.statement == "PWM is ahead of SHAC on Hopper." and (shac.bar, ppo.bar) == (None, 0.5)
    table = published.published_table("single_task").query("task == 'hopper'").set_index("algorithm")["peak_iqm"]
    assert recomputed == Cell(table["pwm"] / table["shac"], rests_on="5 runs")
    assert measured == iqm_cell(results.results_table("single_task_hopper_pwm")["last"])
    not_yet = GOOD.replace("single_task_hopper_pwm", "single_task_moon_pwm").replace("record hopper", "record moon")
    assert [measured for _, measured in claims_of(tmp_path, not_yet)[2]] == [None, None]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('statistic = "iqm"', 'statistic = "iqmm"', "claim 'one_shac', ours: unknown statistic 'iqmm'; known: value, ratio"),
        ('statistic = "iqm"', "", "claim 'one_shac', ours: unknown statistic None"),
        ('"single_task"', '"single_tusk"', "claim 'one_shac', files: .*single_tusk.csv"),
        ('"single_task_hopper_pwm"', '"single_task_hoper_pwm"', "claim 'one_shac', ours: no table 'single_task_hoper_pwm' in data/results"),
        (
            'column = "peak_iqm"',
            'column = "peek_iqm"',
            "claim 'one_shac', files: table 'single_task', column 'peek_iqm': .* it has ",
        ),
        ('task = "hopper"', 'tusk = "hopper"', "claim 'one_shac', files: table 'single_task' has no column 'tusk'; it has algorithm"),
        (
            'column = "last"',
            'column = "last"\nends = ["lo", "high"]',
            "claim 'one_shac', ours: table 'single_task_hopper_pwm' has no column '",
        ),
        ('task = "hopper"', 'task = "moon"', "has task = 'moon', but .*'hopper', 'ant'"),
        ('column = "last"', 'column = "last"\ntake = "most"', "a number is taken as one of first, .* not as 'most'"),
        ('column = "last"', 'column = "last"\njoined = "ends"', "claim 'one_shac', ours: iqm: got an unexpected keyword argument 'joined'"),
        ('column = "last"', "", "claim 'one_shac', ours: iqm: missing a required argument: 'column'"),
        ("against = { where", "unlike = { where", "claim 'one_shac', files: ratio: missing a required argument: 'against'"),
        ("{n_runs:.0f}", "{n_rums}", "rests_on = '{n_rums} runs': 'n_rums' is no column"),
        ('unit = "ratio"', "", "claim 'one_shac': unit: "),
        ('unit = "ratio"', 'unit = "ratio"\nbarr = 1.0', "claim 'one_shac': barr: Unexpected keyword argument"),
        ("printed = 2.0", 'printed = "much"', "claim 'one_shac': printed: .*valid number"),
        ('published = "{:.0f}"', "", "claim 'one_shac': published: "),
        ("on $robot", "on $planet", "claim 'one_\\$algorithm': 'planet' is missing"),
        ('statement = "PWM', 'statement = "for 5 $ PWM', "claim 'one_.*': Invalid placeholder"),
        ('section = "Sec. 9: test"', "", "expected section, .words. and ..claim.., found words, claim"),
        ("[words]", "[words", "not a TOML file"),
    ],
)
def test_a_claim_that_is_wrong_is_named_with_its_file(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ExplainedError, match=f"claims.toml: .*{message}|claims.toml: {message}"):
        claims_of(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("options", "ours", "verdict"),
    [
        ({"bar": 1.0}, Cell(1.2, 1.1, 1.3), "holds at smaller scale"),
        ({"bar": 1.0, "full_scale": True}, Cell(1.2, 1.1, 1.3), "holds"),
        ({"bar": 1.0}, Cell(1.2, 0.9, 1.3), "not shown at this size"),
        ({"bar": 1.0}, Cell(0.5, 0.4, 0.6), "not shown at this size"),
        ({"bar": 1.0, "full_scale": True}, Cell(0.5, 0.4, 0.6), "contradicts"),
        ({"bar": 1.0, "full_scale": True}, Cell(0.9, 0.8, 1.1), "not shown at this size"),
        ({"printed": 100.0}, Cell(99.0, 96.0, 105.0), "holds at smaller scale"),
        ({"printed": 100.0}, Cell(99.0, 94.0, 105.0), "not shown at this size"),
        ({}, Cell(99.0), "cannot be checked"),
    ],
)
def test_a_verdict_follows_from_the_interval(options, ours, verdict):
    assert Claim("id", "Sec. 1", "A statement.", "", "unit", **options).verdict(ours) == verdict


@pytest.mark.parametrize(
    ("options", "cell", "verdict"),
    [
        ({"printed": 1.27}, Cell(1.269), "holds"),
        ({"printed": 1.27}, Cell(1.30), "contradicts"),
        ({"bar": 1.0}, Cell(1.2, 0.9, 1.4), "not shown at this size"),
        ({"bar": 1.0}, Cell(0.7, 0.6, 0.9), "contradicts"),
        ({"bar": 1.0}, Cell(0.9), "contradicts"),
        ({"bar": 1.0}, Cell(1.2), "holds"),
        ({}, Cell(1.2), "cannot be checked"),
    ],
)
def test_what_the_files_say(options, cell, verdict):
    assert Claim("id", "Sec. 1", "A statement.", "", "unit", **options).in_the_files(cell) == verdict


def test_known_numbers_of_the_released_files():
    table = ledger_table().set_index("id")["recomputed"]
    expected = {
        "mt30_pwm": 0.864,
        "mt30_tdmpc2": 0.681,
        "mt80_pwm": 0.913,
        "mt80_tdmpc2": 0.847,
        "mt30_gain": 1.27,
        "table4_pwm_hopper": 5680,
    }
    for name, value in expected.items():
        assert table[name] == pytest.approx(value, rel=0.005), name
    assert sum(map(len, LEDGER.values())) == len(table)


def test_the_errata_page_names_rows_ablations_and_switches_of_tdmpc2_that_exist():
    text = (PROJECT / "docs" / "errata.md").read_text()
    ids = {claim.id for claims in LEDGER.values() for claim in claims}
    for group in re.findall(r"ledger ((?:`\w+\*?`(?:, )?)+)", text):
        for name in re.findall(r"`(\w+\*?)`", group):
            assert name in ids or (name.endswith("*") and any(i.startswith(name[:-1]) for i in ids)), name
    for name in re.findall(r"ablation `(\w+)`", text):
        assert name in ABLATIONS, name
    classes = (PWMConfig, WorldModelConfig, WorldModelTraining, SHACConfig, OnlinePWMConfig, TDMPC2Config, OnlineTDMPC2Config)
    fields = {f.name for c in classes for f in dataclasses.fields(c)}
    switches = text.split("## TD-MPC2")[1].split("\n## ")[0].split("|\n")[2:]
    named = {name.rpartition(".")[2] for line in switches for name in re.findall(r"`([\w.]+)`", line.split("|")[-1])}
    assert len(named) > 8 and named <= fields | set(ABLATIONS), named - fields


def test_the_errata_pages_numbers_are_those_of_the_tables():
    text, table = " ".join((PROJECT / "docs" / "errata.md").read_text().split()), ledger_table().set_index("id")["recomputed"]
    minutes = pd.read_csv(PROJECT / "data" / "published" / "multitask_per_task.csv")["pwm_total_time_s"] / 60
    assert f"the files give {minutes.min():.0f} to {minutes.max():.0f} minutes a task" in text
    assert table["stiff_shac"] < 1 / 3 and "more than two thirds" in text
    assert 1 / 9 < 1 - 1 / table["single_peak_final"] < 1 / 7 and "an eighth lower at the end" in text
    assert table["stiff_pwm_runs"] == 0
    printed = pd.read_csv(PROJECT / "data" / "published" / "single_task.csv")
    times = (printed["paper_t4_std"] / printed["peak_std"])[printed["algorithm"] == "pwm"]
    assert f"PWM's are {times.min():.0f} to {times.max():.0f} times those of its runs" in text
