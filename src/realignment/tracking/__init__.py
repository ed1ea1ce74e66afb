"""Where a result comes from: manifests of digests, provenance, timings, the MLflow run and the registry."""
