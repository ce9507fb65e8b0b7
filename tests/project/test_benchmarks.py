"""Tests of what benchmarks compute; what they measure is not for a test."""

import pytest
import torch

from benchmarks.command import page, table
from benchmarks.measure import Took, compared, interleaved
from benchmarks.networks import S1_ODENET, S2_SIMPLE, random_batch, spec_of, with_torchdiffeq
from benchmarks.peers.process import weights_of_field
from benchmarks.steps import step_operations
from nodebench.models.build import build


def test_rounds_go_over_all_cases_and_the_warm_ones_do_not_count():
    calls = []
    found = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warm=1
    )
    assert calls == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_the_median_of_those_of_single_rounds():
    row = compared("it", [1.0, 2.0, 1.0], "another", [3.0, 4.0, 9.0], "5")
    assert (row.ratio, row.least, row.most, row.rounds) == (3.0, 2.0, 9.0, 3)
    assert (row.ours_s, row.beside_s) == (1.0, 4.0)


def test_a_case_that_measures_itself_is_taken_at_its_word():
    found = interleaved({"elsewhere": lambda: Took(3.0)}, rounds=2)
    assert found == {"elsewhere": [3.0, 3.0]}


def test_a_peer_that_is_not_installed_is_said_to_be_so():
    row = vars(compared("it", [0.5, 0.5], "another", (), "1.3"))
    assert "| it     | 500 ms | another: not installed (`make bench-peers`) | –" in table([row])


def test_weights_are_handed_over_layer_by_layer():
    block = build(spec_of(S2_SIMPLE), random_batch(spec_of(S2_SIMPLE))[0]).block
    shapes = {name: tuple(weight.shape) for name, weight in weights_of_field(block).items()}
    assert list(shapes) == [f"field.{n}.{part}" for n in range(3) for part in ("weight", "bias")]
    assert shapes["field.0.bias"] == shapes["field.0.weight"][:1]
    assert shapes["field.2.weight"][1] == shapes["field.1.weight"][0]


@pytest.mark.parametrize("network", [S1_ODENET, S2_SIMPLE], ids=["S1", "S2"])
@pytest.mark.parametrize("adjoint", [False, True])
def test_torchdiffeq_s_network_is_the_same_function(network, adjoint):
    spec = spec_of({**network, "solver": {"method": "euler", "steps": 3}})
    data, (inputs, _) = random_batch(spec)
    theirs, ours = with_torchdiffeq(spec, data, adjoint=adjoint), build(spec, data)
    torch.testing.assert_close(theirs(inputs), ours(inputs), rtol=1e-4, atol=1e-5)


def test_operations_of_a_step_are_counted_from_shapes():
    spec = spec_of({**S1_ODENET, "solver": {"method": "euler", "steps": 3}})
    data, (inputs, _) = random_batch(spec)
    stem = [64 * 1 * 9 * 26**2, 64 * 64 * 16 * 13**2, 64 * 64 * 16 * 6**2]
    block = 3 * 2 * 64 * 65 * 9 * 6**2
    forward = 2 * 128 * (sum(stem) + block + 64 * 10)
    expected = 3 * forward - 2 * 128 * stem[0]
    assert step_operations(with_torchdiffeq(spec, data), inputs) == expected


def test_a_page_has_the_results_that_there_are():
    row = compared("it", [0.5], "another", [2.0], "5")
    text = page("abacus", {"data": {"rows": [vars(row)], "where": "here", "day": "today"}})
    assert text.startswith("# Benchmarks: abacus\n")
    assert "## data\n\nAn epoch of random crops and flips" in text
    assert (
        "| it     | 500 ms | another: 2 s | 4.00    | 4.00 – 4.00 | 1        | 5      |\n\n"
        "today; here\n" in text
    )
    assert "## report" not in text
