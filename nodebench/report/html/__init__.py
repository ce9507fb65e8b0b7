"""The report as one interactive page: sortable tables, and charts with selectable axes."""
