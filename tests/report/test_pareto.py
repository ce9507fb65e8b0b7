import pytest

from nodebench.report.analysis.pareto import pareto_table
from nodebench.report.answer import answer, listed
from nodebench.report.figures import pareto
from nodebench.report.html import charts
from nodebench.report.html.data import Explored
from tests.support.fake_results import made, steady


def test_front_holds_the_unsurpassed_configurations(tmp_path):
    _, found = made(tmp_path, steady)
    front = found.frontier.set_index("cell")["front_nfe"]
    assert front.to_dict() == {
        "relu steps 2": False,
        "relu steps 8": False,
        "tanh steps 2": True,
        "tanh steps 8": True,
    }


def test_seconds_of_trainings_have_no_front(tmp_path):
    _, found = made(tmp_path, steady)
    assert found.frontier["seconds"].notna().all()
    assert not found.frontier["front_seconds"].any()


def test_timed_seconds_have_one(tmp_path):
    sweep, found = made(tmp_path, steady)
    timed = found.results.assign(timed_epoch_s=found.results["solver.steps"].astype(float))
    front = pareto_table(sweep, timed).set_index("cell")["front_seconds"]
    assert front.to_dict() == {
        "relu steps 2": False,
        "relu steps 8": False,
        "tanh steps 2": True,
        "tanh steps 8": True,
    }


def test_seconds_timed_on_a_busy_machine_have_none(tmp_path):
    sweep, found = made(tmp_path, steady)
    timed = found.results.assign(timed_epoch_s=found.results["solver.steps"].astype(float))
    table = pareto_table(sweep, timed, is_busy=True)
    assert not table["front_seconds"].any()
    assert table["front_nfe"].any()
    assert set(table["measured"]) == {"on a busy machine"}


@pytest.mark.parametrize(
    ("easy", "front"),
    [
        (
            ["tanh steps 2", "tanh steps 8"],
            ["relu steps 2", "relu steps 8", "tanh steps 2", "tanh steps 8"],
        ),
        (["tanh steps 8"], ["tanh steps 2"]),  # a configuration alone on its data has no front
    ],
)
def test_each_data_set_has_a_front_of_its_own(tmp_path, easy, front):
    sweep, found = made(tmp_path, steady)
    data = found.results["cell"].isin(easy).map({True: "easy", False: "hard"})
    table = pareto_table(sweep, found.results.assign(**{"data.name": data}))
    assert list(table.loc[table["front_nfe"], "cell"]) == front


def on_two_data_sets(folder):
    """A timed sweep of two configurations on each of two data sets."""
    grid = {"data": ["spheres", "three-minima"], "solver.steps": [2, 8]}
    sweep, found = made(folder, lambda _activation, steps, seed: steps / 10, grid=grid)
    timed = found.results.assign(timed_epoch_s=found.results["solver.steps"].astype(float))
    found.frontier = pareto_table(sweep, timed)
    return sweep, found


def test_each_data_set_has_panels_of_its_own(tmp_path, monkeypatch):
    sweep, found = on_two_data_sets(tmp_path)
    saved = []
    monkeypatch.setattr(pareto, "save", lambda figure, _path: saved.append(figure))
    [drawn] = pareto.pareto_figure(sweep, found.frontier, tmp_path)
    assert drawn.names == ["frontier"]
    panels = saved[0].axes
    assert [axes.get_title() for axes in panels] == ["spheres"] * 2 + ["three-minima"] * 2
    assert [len(axes.collections[-1].get_offsets()) for axes in panels] == [2, 2, 2, 2]


def test_an_interval_beside_a_cost_ends_where_accuracies_do(tmp_path):
    _, found = made(tmp_path, lambda _activation, _steps, seed: 0.9 + 0.05 * seed)
    row = found.frontier.iloc[0]  # 0.95 ± 0.124
    assert (row["value"], row["low"], row["high"]) == (
        pytest.approx(0.95), pytest.approx(0.8258, abs=1e-4), 1.0
    )  # fmt: skip


def test_the_answer_names_the_front_of_each_data_set(tmp_path):
    _, found = on_two_data_sets(tmp_path)
    text = listed(answer(found))
    for name in ("spheres", "three-minima"):
        front = f"`{name} steps 2` and `{name} steps 8`"
        assert f"**Pareto-optimal by time per epoch on `{name}`:** {front}." in text


def test_the_interactive_page_shows_the_best_of_each_data_set_and_can_hide_one(
    tmp_path, monkeypatch
):
    _, found = on_two_data_sets(tmp_path)
    monkeypatch.setattr(charts, "MOST_SHOWN", 1)
    embedded = Explored(found).embedded()
    assert embedded["shown"] == ["spheres steps 8", "three-minima steps 8"]
    assert embedded["first_only"] == ["data.name"]
    assert embedded["charts"]["costs"]["filters"] == {"data.name": "data set"}


def test_the_note_says_what_a_panel_lacks(tmp_path):
    _, found = made(tmp_path, steady)
    table = found.frontier
    lacking = "Networks without an ODE have no evaluations."
    assert lacking not in pareto.pareto_note(table, 3)
    assert lacking in pareto.pareto_note(table.assign(nfe=[None, 2.0, 3.0, 4.0]), 3)
    assert "No front is drawn against seconds measured during" in pareto.pareto_note(table, 3)
    assert "Each data set" not in pareto.pareto_note(table, 3)
    assert "Each data set" in pareto.pareto_note(table.assign(data=["a", "a", "b", "b"]), 3)


@pytest.mark.parametrize(
    ("seeds", "point"),
    [
        (1, "Each point is one trial. "),
        (2, "Each point is the mean over two seeds, between both values. "),
        (3, "Each point is the mean over seeds, with its 95 % confidence interval. "),
    ],
)
def test_the_note_says_what_a_point_is_by_the_number_of_seeds(tmp_path, seeds, point):
    made_up, found = made(tmp_path, steady, seeds=seeds)
    [drawn] = pareto.pareto_figure(made_up, found.frontier, tmp_path)
    assert drawn.note.startswith(point)
    notes = [chart.note for chart in Explored(found).charts.values()]
    assert notes[0].startswith(point)
