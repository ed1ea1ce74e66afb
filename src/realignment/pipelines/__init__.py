"""One package per stage: nodes that fetch arguments and call the core, and the pipeline that joins them."""
