"""Reports: the store as tables, statistics, figures and one page. torch is not imported."""
