import pytest
from matplotlib import pyplot as plt

from nodebench.report.figures.style import within_shares


@pytest.mark.parametrize(
    ("limits", "expected"),
    [((0.4, 1.3), (0.4, 1.024)), ((0.99, 1.01), (0.99, 1.0004)), ((-0.5, 0.5), (-0.02, 0.5))],
)
def test_an_axis_of_accuracies_ends_a_little_beyond_0_and_1(limits, expected):
    figure, axes = plt.subplots()
    axes.set_ylim(limits)
    within_shares(axes, "test_accuracy")
    assert axes.get_ylim() == pytest.approx(expected)
    plt.close(figure)


def test_an_axis_of_losses_stays():
    figure, axes = plt.subplots()
    axes.set_ylim(-0.5, 3)
    within_shares(axes, "test_loss")
    assert axes.get_ylim() == (-0.5, 3)
    plt.close(figure)
