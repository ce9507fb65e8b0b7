"""How durations are put into words."""

import pytest

from nodebench.cli.text import duration


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
