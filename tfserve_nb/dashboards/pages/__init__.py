"""The views of a dashboard as HTML: functions of a `Snapshot`. Widgets, saved notebooks and the web page show them."""
