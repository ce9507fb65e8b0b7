"""Reports: tables, figures and pages from the store's results."""
