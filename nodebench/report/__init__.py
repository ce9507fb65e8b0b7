"""Reports: tables, figures and pages from the store's results."""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home without a cache is no trouble
