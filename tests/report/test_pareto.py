from nodebench.report.analysis.pareto import pareto_table
from tests.support.fake_results import made, steady


def test_the_front_is_of_what_none_surpasses(tmp_path):
    _, found = made(tmp_path, steady)
    front = found.frontier.set_index("cell")["front_nfe"]
    assert front.to_dict() == {"relu 2": False, "relu 8": False, "tanh 2": True, "tanh 8": True}


def test_seconds_of_trainings_have_no_front(tmp_path):
    _, found = made(tmp_path, steady)
    assert found.frontier["seconds"].notna().all()
    assert not found.frontier["front_seconds"].any()


def test_timed_seconds_have_one(tmp_path):
    sweep, found = made(tmp_path, steady)
    timed = found.results.assign(timed_epoch_s=found.results["solver.steps"].astype(float))
    front = pareto_table(sweep, timed).set_index("cell")["front_seconds"]
    assert front.to_dict() == {"relu 2": False, "relu 8": False, "tanh 2": True, "tanh 8": True}


def test_seconds_timed_on_a_busy_machine_have_none(tmp_path):
    sweep, found = made(tmp_path, steady)
    timed = found.results.assign(timed_epoch_s=found.results["solver.steps"].astype(float))
    table = pareto_table(sweep, timed, is_busy=True)
    assert not table["front_seconds"].any()
    assert table["front_nfe"].any()
    assert set(table["measured"]) == {"on a busy machine"}


def test_each_data_set_has_a_front_of_its_own(tmp_path):
    sweep, found = made(tmp_path, steady)
    easy = found.results["cell"].str.startswith("tanh")
    data = easy.map({True: "easy", False: "hard"})
    table = pareto_table(sweep, found.results.assign(**{"data.name": data}))
    assert table.set_index("cell")["front_nfe"].to_dict() == {
        "relu 2": True, "relu 8": True, "tanh 2": True, "tanh 8": True,
    }  # fmt: skip
