"""The state of an experiment as text, HTML, data frames and figures."""
