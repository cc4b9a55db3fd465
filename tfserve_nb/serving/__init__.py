"""The core: servable versions, batching, lifecycle, routing, metrics. No HTTP and no notebook in here."""
