"""The connection to a Ray cluster: join one or start one, and check that its workers fit."""

import logging
import os
from typing import Any

from realignment.parameters import RayParameters
from realignment.records import OracleError

logger = logging.getLogger(__name__)

_SHARED_MEMORY = 2**28
"""Bytes that a cluster started here reserves for texts and verdicts of the partitions in progress."""


def connect_to_ray(settings: RayParameters) -> Any:
    """Connect to a Ray cluster, or start one that ends with this process.

    Args:
        settings: Address of the cluster (None: start one here), number and resources of the workers.

    Returns:
        The module `ray`, connected.

    Raises:
        OracleError: Ray is not installed, cannot be reached, or has no room for a single worker.
    """
    try:
        import ray
    except ImportError as error:
        raise OracleError(
            "`judging.engine: ray` needs the package ray, which is not installed: "
            "`pip install 'realignment[ray]'`, or set `judging.engine: local`."
        ) from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    cpus = max(os.cpu_count() or 1, settings.workers * settings.cpus_per_worker)
    # The first error is raised here; those of other workers, mostly the same one, are not printed as well.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if ray.is_initialized():
            pass
        elif settings.address is not None:
            ray.init(address=settings.address, **quiet)
        else:
            local = {"include_dashboard": False, "object_store_memory": _SHARED_MEMORY}
            ray.init(address="local", num_cpus=cpus, **local, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OracleError(
            f"Ray cannot be reached at `judging.ray.address: {settings.address or 'null'}`: {error}. Give "
            "host:port of its head node, `auto` on a machine of the cluster, or null to start one here."
        ) from error
    _check_resources(ray.cluster_resources(), settings)
    return ray


def _check_resources(resources: dict[str, float], settings: RayParameters) -> None:
    """Warn of workers that do not fit: they wait, for ever where the cluster does not grow.

    Raises:
        OracleError: Not one fits, in a cluster that was started here.
    """
    required = {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}
    available = {name: resources.get(name, 0) for name in required}
    fitting = min(int(available[name] // count) for name, count in required.items() if count)
    if fitting >= settings.workers:
        return
    message = (
        f"Ray has room for {fitting} of {settings.workers} workers: each needs {required}, found {available}."
    )
    if not fitting and settings.address is None:
        raise OracleError(f"{message} Lower `judging.ray.gpus_per_worker`, or give the address of a cluster.")
    logger.warning("%s The others wait until there is", message)
