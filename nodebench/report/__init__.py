"""The store as tables, statistics, figures and one page; imports no torch."""
