"""The columns of a report's main table."""

import pandas as pd
import pytest

from nodebench.report.analysis.verdict import VerdictWord
from nodebench.report.result_tables import _is_ode_text

YES, NO, UNDECIDED = VerdictWord.ODE, VerdictWord.RESNET, VerdictWord.UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ([YES, YES], "yes"),
        ([NO], "no"),
        ([UNDECIDED, UNDECIDED], "undecided"),
        ([YES, YES, NO], "2 of 3"),
        ([YES, YES, UNDECIDED], "2 of 3, 1 undecided"),
        ([NO, UNDECIDED], "0 of 2, 1 undecided"),
    ],
)
def test_undecided_networks_are_counted_apart_from_those_that_are_no_odes(verdicts, text):
    assert _is_ode_text(pd.Series([word.value for word in verdicts])) == text
