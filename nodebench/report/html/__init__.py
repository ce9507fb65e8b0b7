"""The report as one page to work with: tables that sort, charts with axes to choose."""
