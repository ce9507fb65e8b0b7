"""How figures look: accuracies in percent, as in tables."""

import pytest
from matplotlib import pyplot as plt

from nodebench.report.figures.style import in_percent


@pytest.mark.parametrize(
    ("metric", "ticks", "expected"),
    [
        ("test_accuracy", [0.5, 0.75, 1], ["50", "75", "100"]),
        ("test_accuracy", [0.1, 0.3, 0.5], ["10", "30", "50"]),
        ("test_accuracy", [0.98, 0.985, 0.99], ["98.0", "98.5", "99.0"]),
        ("test_loss", [0.5, 0.75, 1], ["0.50", "0.75", "1.00"]),
    ],
)
def test_an_axis_of_accuracies_is_in_percent_and_no_other(metric, ticks, expected):
    figure, axes = plt.subplots()
    axes.plot([0, 1], [ticks[0], ticks[-1]])
    axes.set_yticks(ticks)
    in_percent(axes, metric)
    figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_yticklabels()] == expected
    plt.close(figure)
