"""Child runs: one for every cell of a comparison, under the run that compared them."""

import math
import time
from typing import TYPE_CHECKING

import pandas as pd

from realignment.tracking.values import legal_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

CELL = ["set", "method", "variant", "seed"]


def log_children(client: "MlflowClient", parent_id: str, table: pd.DataFrame) -> None:
    """Log each cell of a comparison as a finished child run, or as a failed one.

    Args:
        client: Of the tracking server.
        parent_id: The run that compared the cells.
        table: The columns `set`, `method`, `variant`, `seed`, `metric`, `group`, `judge`, `value`, `seconds`,
            `peak_mib` and `digest`; the one row of a failed cell has the metric `failed`.
    """
    from mlflow.entities import Metric, Param

    experiment = client.get_run(parent_id).info.experiment_id
    for cell, rows in table.fillna({"variant": "", "group": "", "judge": ""}).groupby(CELL, sort=False):
        names = dict(zip(CELL, map(str, cell), strict=True))
        run = client.create_run(
            experiment,
            tags={"mlflow.parentRunId": parent_id, "digest": str(rows["digest"].iloc[0])},
            run_name=" ".join(filter(None, names.values())),
        )
        now = int(time.time() * 1000)
        figures = {
            "/".join(filter(None, (row["metric"], row["group"], row["judge"]))): row["value"]
            for row in rows.to_dict("records")
        }
        figures |= {name: rows[name].iloc[0] for name in ("seconds", "peak_mib")}
        metrics = [
            Metric(legal_name(name), float(value), now, 0)
            for name, value in figures.items()
            if math.isfinite(value)
        ]
        parameters = [Param(name, value) for name, value in names.items() if value]
        client.log_batch(run.info.run_id, metrics=metrics, params=parameters)
        failed = (rows["metric"] == "failed").any()
        client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")
