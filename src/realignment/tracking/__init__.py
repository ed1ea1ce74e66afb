"""Where a result comes from: manifests of digests, provenance, seconds, the MLflow run and the registry."""
