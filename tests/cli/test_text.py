"""How durations and counts are put into words."""

import pytest

from nodebench.cli.inspect import packing_text, plan_text, recording_text
from nodebench.cli.measure import timed_text
from nodebench.cli.text import duration, forecast_text
from nodebench.errors import counted
from nodebench.execution.launch import Timed
from nodebench.execution.publishing import Published
from nodebench.planning.estimate import Forecast
from nodebench.planning.plan import entries
from nodebench.store import Store
from tests.support.tiny_sweeps import TINY, options, tiny


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25 s"),
        (45, "45 s"),
        (110, "110 s"),
        (125, "2.1 min"),
        (6600, "110 min"),
        (9000, "2.5 h"),
        (170_000, "47 h"),
        (4 * 86400, "4 days"),
        (4321 * 86400, "4300 days"),
    ],
)
def test_durations_have_two_digits_and_no_exponent(seconds, text):
    assert duration(seconds) == text


def test_a_plan_names_its_store_and_tells_of_packs_only_if_there_are_seeds_to_pack(
    tmp_path, monkeypatch
):
    store, base = Store(tmp_path / "runs"), TINY | {"solver": "dopri5"}
    texts = []
    for seeds in ([0], [0, 1]):
        sweep = tiny(tmp_path, base=base, seeds=seeds, resources={"pack_seeds": 2})
        texts.append(plan_text(sweep, entries(sweep, store, options(sweep, tmp_path)), {}, store))
    assert [text.splitlines()[-2] for text in texts] == [
        f"compared with the store `{store.root}`"
    ] * 2
    monkeypatch.chdir(tmp_path)
    assert plan_text(sweep, [], {}, store).splitlines()[0] == "compared with the store `runs`"
    assert "packed" not in texts[0]
    assert "no seeds are packed (2 because `dopri5` takes different steps" in texts[1]


def test_one_of_something_is_singular(tmp_path):
    assert [counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    sweep = tiny(tmp_path, seeds=[0, 1], resources={"pack_seeds": 2})
    (first, second) = sweep.trials
    told = packing_text([first, second], options(sweep, tmp_path))
    assert told == "2 trials are packed into 1 run of up to 2 seeds"
    assert recording_text([first]) == "CUDA graphs on a GPU: 1 of 1 trial"
    left = Forecast(60.0, 60.0, 60.0, known=1, unknown=1, grows=False)
    assert forecast_text(left, is_running=False).endswith(
        "(1 trial of unknown cost assumed to be like the others)"
    )
    times = {"step_s": 1.0, "step_s_least": 1.0, "step_s_most": 1.0, "timed_epoch_s": 1.0}
    row = {"rounds": 1, "steps": 1, "threads": 1, "hardware": "AMD EPYC", "load_before": 0.0}
    lines = timed_text(sweep, Timed({first.id: row | times}, {}, 1, Published())).splitlines()
    assert lines[0] == "tiny: 1 round of 1 step on AMD EPYC, 1 thread"
    assert lines[-1] == "1 configuration without a finished trial that has a checkpoint"


def test_a_plan_lists_a_few_removed_trials_and_counts_many(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    left = {f"{number:012}": f"euler {number} · s0" for number in range(4)}
    few, many = (
        plan_text(sweep, [], dict(list(left.items())[:count]), store).splitlines()
        for count in (3, 4)
    )
    assert few[:3] == [f"{id_}  removed      {left[id_]}" for id_ in list(left)[:3]]
    assert many[0] == "4 trials of earlier versions of this file stay in the store (`--json`)"
