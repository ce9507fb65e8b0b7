"""The store as tables, statistics, figures and one page; it imports no torch."""
