"""The tabs of a dashboard: controls around a page of HTML. Everything here runs on the updater's thread."""
