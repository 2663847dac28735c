"""The table of runs that MLflow opens on: its address, and what it shows."""

import json
from collections.abc import Sequence

HOST, PORT = "127.0.0.1", 5000
"""Where `vlp ui` opens MLflow, unless it is told otherwise."""
VIEW = "vlp"
VIEW_TAG = "mlflow.sharedViewState."
"""Of an experiment, before the name of a view: what MLflow's page keeps of a table that one shares."""
COLUMNS = ("method", "objective", "mask", "encoder", "dataset", "tokenizer", "commit", "user", "stop_reason")


def runs_page(experiment_id: str) -> str:
    """The address of an experiment's runs below that of the server; MLflow itself opens on another page."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def run_page(experiment_id: str, run_id: str) -> str:
    """The address of a run's page below that of the server."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def view(metrics: Sequence[str] = ()) -> str:
    """The table's columns, as MLflow's page reads them: what tells methods apart, and these metrics."""
    columns = [f"tags.`{name}`" for name in COLUMNS] + [f"metrics.`{name}`" for name in metrics]
    columns.append("attributes.`Models`")
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": columns,
        }
    )
