"""What a journal says, said to MLflow; the only file that imports mlflow.

Import it where it is used, not at the top of a module: mlflow takes 1.5 s to load.
"""

import io
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse

from pipelines.config.errors import UserError, nearest
from pipelines.tracking.database import artifacts_path, database_path, is_whole, set_aside
from pipelines.tracking.journal import (
    DELIVERED_NAME,
    FILE_NAME,
    Delivered,
    Journal,
    Record,
    is_new,
    tracked_key,
)
from pipelines.tracking.runs import TrackedRun
from pipelines.tracking.terminal import warn
from pipelines.tracking.view import VIEW, VIEW_TAG, run_page, runs_page, view
from vlp.core.messages import one_line
from vlp.metrics.directions import is_less_better
from vlp.shards.storage.lock import locked
from vlp.shards.storage.whole import delete_unfinished, unfinished

# mlflow reads these when it is imported. Trying again is the delivery thread's part.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with the password of the address
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
import PIL.Image
from mlflow import MlflowClient, entities
from mlflow.artifacts import download_artifacts
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.utils import _save_example
from mlflow.types.schema import Array, ColSpec, Schema, TensorSpec
from mlflow.utils import validation as limits
from pandas import DataFrame
from requests import HTTPError

JOURNAL_TAG = "vlp.journal"
WINDOW_RECORDS = 200

logging.getLogger("alembic").setLevel(logging.WARNING)


def make_database(database: Path) -> None:
    """Make the SQLite file of a store, whole or not at all; one that was left half made is set aside.

    MLflow makes it in many steps, and opens none whose making was interrupted.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with locked(database.with_name(f".{database.name}.lock")):
        if is_whole(database):
            return
        if database.exists():
            set_aside(database)
        place = unfinished(database)  # a folder: SQLite writes more files beside the one
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        MlflowClient(tracking_uri=f"sqlite:///{place / database.name}").search_experiments(max_results=1)
        (place / database.name).rename(database)
        place.rmdir()


def fetch(address: str, tracking_uri: str, folder: Path) -> Path:
    """Copy the artifacts at a runs:/ or models:/ address into a new folder; returns where they are.

    A run stands for its last model, RUN/STEP for that of a step.

    Raises:
        UserError: there are none.
    """
    folder.mkdir()
    try:
        if database := database_path(tracking_uri):
            make_database(database)
        # Of a model MLflow asks the registry of the process, whatever it is told.
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        if named := re.fullmatch(r"runs:/([^/]+)(?:/(?:step_)?0*(\d+))?", address):
            address = _model_of_run(MlflowClient(), named[1], step=int(named[2]) if named[2] else None)
        return Path(download_artifacts(address, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"checkpoint: {tracking_uri} does not give {address}: {one_line(error)[:300]}; correct the "
            "address, or name the store in machine.tracking_uri"
        ) from error


def write_model(
    folder: Path, checkpoint: Path, fields: Mapping[str, Any], model: entities.LoggedModel
) -> None:
    """Write a checkpoint in the form that `mlflow.pyfunc` loads: with its signature, and an example."""
    from vlp.serving import IMAGE, TEXT  # with torch, which a download does not need

    weights = folder / checkpoint.name
    weights.mkdir()
    for name in fields["files"]:
        shutil.copy(checkpoint / name, weights / name)
    picture = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    example: dict[str, list[Any]] = {IMAGE: [picture.getvalue()]}
    if fields["texts"]:
        example[TEXT] = ["a red square"]
    kinds = {IMAGE: "binary", TEXT: "string"}
    asked = _schema({column: kinds[column] for column in example})
    answer = _schema({f"{column}_embedding": Array("double") for column in example})
    written = Model(
        model_id=model.model_id, artifact_path=model.artifact_location, run_id=model.source_run_id
    )
    written.signature = ModelSignature(asked, answer)
    _save_example(written, DataFrame(example), str(folder))
    mlflow.pyfunc.add_to_model(written, loader_module="vlp.serving", data=checkpoint.name)
    written.save(str(folder / "MLmodel"))


def _schema(kinds: Mapping[str, str | Array]) -> Schema:
    """Columns of which a table may have some."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(kind, name, required=False) for name, kind in kinds.items()
    ]
    return Schema(columns)


def _model_of_run(client: MlflowClient, run_id: str, *, step: int | None) -> str:
    """The address of a run's model of a step, or of its last."""
    outputs = client.get_run(run_id).outputs
    models = {model.step: model.model_id for model in (outputs.model_outputs if outputs else ())}
    if not models or (step is not None and step not in models):
        has = f"models of the steps {', '.join(map(str, sorted(models)))}" if models else "no model"
        raise MlflowException(f"the run has {has}")
    return f"models:/{models[max(models) if step is None else step]}"


class NotThereYetError(Exception):
    """A record needs another run, which will be delivered."""


class Store:
    """One experiment of an MLflow tracking server or SQLite file; it connects when first used."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self.experiment = experiment

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own; an SQLite file is made if it is not there."""
        if database := database_path(self.uri):
            make_database(database)
        return MlflowClient(tracking_uri=self.uri)

    @cached_property
    def experiment_id(self) -> str:
        """Of the experiment, which is created if it is not there."""
        if found := self.client.get_experiment_by_name(self.experiment):
            return found.experiment_id
        database = database_path(self.uri)
        location = artifacts_path(database).as_uri() if database else None
        made = self.client.create_experiment(self.experiment, artifact_location=location)
        self.client.set_experiment_tag(made, f"{VIEW_TAG}{VIEW}", view())
        return made

    def find_run(self, begin: Record) -> entities.Run | None:
        """A journal's run: there already where its creator died before noting that, or on another machine."""
        return next(iter(self._search(f"tags.`{JOURNAL_TAG}` = '{begin.fields['uuid']}'")), None)

    def create_run(self, begin: Record, tags: Mapping[str, str]) -> str:
        """The id of a new run of a journal."""
        tags = {tag.key: tag.value for tag in _tags({**tags, JOURNAL_TAG: begin.fields["uuid"]})}
        name, start = begin.fields["name"], begin.time
        run = self.client.create_run(self.experiment_id, start_time=start, tags=tags, run_name=name)
        return run.info.run_id

    def show_columns(self, metrics: Sequence[str] = ()) -> None:
        """Set up the table that `runs_page` opens."""
        self.client.set_experiment_tag(
            self.experiment_id, f"{VIEW_TAG}{VIEW}", view([*map(tracked_key, metrics)])
        )

    def has_run(self, run_id: str) -> bool:
        """Whether the experiment has a run of this id."""
        return bool(self._search(f"attributes.run_id = '{run_id}'"))

    def runs(self, where: str = "") -> list[TrackedRun]:
        """Runs, the newest first, of the experiment or of all.

        Args:
            where: filter in MLflow's search language.

        Raises:
            UserError: the filter is none, or the server does not answer.
        """
        try:
            named = f"name = '{self.experiment}'" if self.experiment else ""
            experiments = [
                found.experiment_id for found in self.client.search_experiments(filter_string=named)
            ]
            return [_tracked(run) for run in self.client.search_runs(experiments, where, max_results=1000)]
        except (MlflowException, OSError) as error:
            raise UserError(
                f"runs: {self.uri} does not answer: {one_line(error)[:300]}; correct --where, or name the "
                "store in machine.tracking_uri"
            ) from error

    def run(self, name: str) -> TrackedRun:
        """The newest run of a name, or that of an id, or of the beginning of one.

        Raises:
            UserError: there is none.
        """
        runs = self.runs()
        for run in runs:
            if run.name == name or (len(name) >= 6 and run.id.startswith(name)):
                return run
        raise UserError(f"no run is named {name}{nearest(name, [run.name for run in runs])}")

    def register(self, run: TrackedRun, name: str, *, metric: str | None, alias: str) -> int:
        """Give a model of a run a name and an alias; returns its version.

        Args:
            metric: by which its best model is chosen; None takes the last.

        Raises:
            UserError: the run has no model, or none has the metric.
        """
        if not run.models:
            raise UserError(f"{run.name} has no model; set machine.checkpoints.track")
        step = max(run.models) if metric is None else self._best_step(run, self.key(metric))
        place = f"models:/{run.models[step]}"
        mlflow.set_tracking_uri(self.uri)  # by which MLflow finds the model, whatever the client is of
        with suppress(MlflowException):  # it is there
            self.client.create_registered_model(name)
        version = self.client.create_model_version(name, place, run.id, model_id=run.models[step])
        self.client.set_registered_model_alias(name, alias, str(version.version))
        return int(version.version)

    def _best_step(self, run: TrackedRun, metric: str) -> int:
        points = self.client.get_metric_history(run.id, metric)
        values = {point.step: point.value for point in points if point.step in run.models}
        if not values:
            raise UserError(f"--metric: no model of {run.name} has {metric}{nearest(metric, run.metrics)}")
        sign = -1 if is_less_better(metric) else 1
        return max(values, key=lambda step: (sign * values[step], step))

    def download(self, run_id: str, name: str, folder: Path) -> None:
        """Copy a folder of a run's artifacts into another one, with its name; nothing where there is none.

        Raises:
            UserError: the server does not answer.
        """
        try:
            if self.client.list_artifacts(run_id, name):
                download_artifacts(f"runs:/{run_id}/{name}", dst_path=str(folder), tracking_uri=self.uri)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"{self.uri} does not give {name} of the run {run_id}: {one_line(error)[:300]}; look at the "
                "artifacts' folder of its server"
            ) from error

    def key(self, metric: str) -> str:
        """The name that MLflow has for a metric."""
        return tracked_key(metric)

    def try_out(self) -> str:
        """Write a run of a metric and an artifact, read both, and delete it; says how long that took.

        Raises:
            UserError: what was read is not what was written.
        """
        start = time.perf_counter()
        run_id = self.client.create_run(self.experiment_id, run_name="doctor").info.run_id
        try:
            self.client.log_metric(run_id, "answer", 42.0)
            self.client.log_text(run_id, "written", "written.txt")
            metric = self.client.get_run(run_id).data.metrics.get("answer")
            with TemporaryDirectory() as folder:
                address = f"runs:/{run_id}/written.txt"
                file = download_artifacts(address, dst_path=folder, tracking_uri=self.uri)
                text = Path(file).read_text()
        finally:
            self.client.delete_run(run_id)
        if (metric, text) != (42.0, "written"):
            raise UserError(
                f"{self.uri} gives back a metric {metric} and an artifact {text!r} in place of 42 and "
                "'written'; look at the store and the artifacts' folder of its server"
            )
        seconds = time.perf_counter() - start
        return f"{self.uri} took a run with an artifact, and gave it back, in {seconds:.1f} s"

    def _search(self, query: str) -> Sequence[entities.Run]:
        return self.client.search_runs([self.experiment_id], query, ViewType.ALL, max_results=1)


class Run:
    """The MLflow run of one journal. `runs` holds all of them by folder, to find the parent in."""

    def __init__(self, journal: Journal, store: Store, runs: Mapping[Path, "Run"]) -> None:
        self.journal = journal
        self.store = store
        self.runs = runs
        delete_unfinished(journal.folder, DELIVERED_NAME)
        self.delivered = Delivered.load(journal.folder, store.uri)
        self._is_checked = False
        self._perhaps_sent: float = self._size()
        self._skipped: list[str] = []
        self._reported: set[str] = set()

    def deliver(self) -> bool:
        """Deliver the next records; whether there is more to do at once, here or for the runs nested in this.

        A run whose parent is not there yet waits. What MLflow rejects for good is skipped with a warning. Any
        other error is raised, and the records are delivered by the next call.
        """
        if not self._is_checked and database_path(self.store.uri):
            self.id()  # what was delivered is gone where the file is
        is_new = not self.delivered.run_id
        if next(self.journal.read(self.delivered.offset), None) is None or not self._open():
            return False
        window = list(islice(self.journal.read(self.delivered.offset), WINDOW_RECORDS))
        try:
            for kind, group in groupby(window, key=lambda record: record.kind):
                if kind in ("metrics", "params", "tags"):
                    self._log_records(kind, list(group))
                else:
                    for record in group:
                        self._send(record)
        except NotThereYetError:
            return False  # tried again when the others had their turn
        except Exception:
            self._is_checked = False  # perhaps the run is gone
            self._perhaps_sent = self._size()
            raise
        finally:
            self._report()
        return is_new or len(window) == WINDOW_RECORDS

    def _size(self) -> int:
        """Bytes of the journal now; of what is written later the server has nothing."""
        return (self.journal.folder / FILE_NAME).stat().st_size

    def _open(self) -> bool:
        """Find or create the run on the server; false if that is not possible yet."""
        if self.id():
            return True
        begin = self.journal.first("begin")
        if begin is None:
            return False
        tags = dict(begin.fields["tags"])
        if begin.fields["parent"]:
            parent = self.journal.locate(begin.fields["parent"])
            if (parent / FILE_NAME).exists():
                tags["mlflow.parentRunId"] = self.runs[parent].id() if parent in self.runs else ""
                if not tags["mlflow.parentRunId"]:
                    return False
            else:
                self._skip("the parent run", f"there is no journal in {parent}")
        if found := self.store.find_run(begin):
            self.delivered.last_step = _last_steps(found)
            self.delivered.run_id = found.info.run_id
            self._perhaps_sent = math.inf  # also what is done again of what another machine has sent
        else:
            self.delivered.run_id = self.store.create_run(begin, tags)
        self.delivered.experiment_id = self.store.experiment_id
        self.delivered.save(self.journal.folder)
        return True

    def id(self) -> str:
        """The run's id on the server; empty before it has one."""
        if not self._is_checked and self.delivered.run_id and not self.store.has_run(self.delivered.run_id):
            self.delivered = Delivered(self.store.uri)  # the server was emptied: begin anew
        self._is_checked = True
        return self.delivered.run_id

    def _log_records(self, kind: str, records: Sequence[Record]) -> None:
        last_step = dict(self.delivered.last_step)
        if kind == "metrics":
            items = _metrics(records, last_step)
        else:
            make = _params if kind == "params" else _tags
            items = [item for record in records for item in make(record.fields[kind])]
        size = limits.MAX_METRICS_PER_BATCH if kind == "metrics" else limits.MAX_PARAMS_TAGS_PER_BATCH
        for start in range(0, len(items), size):
            self._log(kind, items[start : start + size])
        self._advance(records[-1], last_step)

    def _log(self, kind: str, items: Sequence[Any]) -> None:
        """One request; what the server rejects is halved until the culprits are found."""
        try:
            self.store.client.log_batch(self.delivered.run_id, synchronous=True, **{kind: items})
        except MlflowException as error:
            if not _is_rejection(error):
                raise
            # The metrics sent are all valid, so it is the run that takes no more of them.
            if kind == "metrics" or len(items) == 1:
                self._skip(f"{kind} {items[0].key}", str(error), len(items))
                return
            half = len(items) // 2
            self._log(kind, items[:half])
            self._log(kind, items[half:])

    def _send(self, record: Record) -> None:
        try:
            self._send_unchecked(record)
        except (MlflowException, OSError) as error:
            if not _is_rejection(error):
                raise
            self._skip(record.kind, str(error))
        self._advance(record, self.delivered.last_step)

    def _send_unchecked(self, record: Record) -> None:
        senders = {
            "resumed": self._resume,
            "artifact": self._log_artifact,
            "model": self._log_model,
            "model_metrics": self._log_model_metrics,
            "image": self._log_image,
            "dataset": self._log_dataset,
            "description": self._describe,
            "end": self._end,
            "unreadable": self._skip_unreadable,
        }
        if record.kind in senders:
            senders[record.kind](record)

    def _resume(self, record: Record) -> None:
        self.store.client.update_run(self.delivered.run_id, status="RUNNING")
        self._log("tags", _tags(record.fields["tags"]))

    def _log_artifact(self, record: Record) -> None:
        path = self.journal.locate(record.fields["path"])
        self.store.client.log_artifact(self.delivered.run_id, str(path), record.fields["folder"] or None)

    def _log_dataset(self, record: Record) -> None:
        self.store.client.log_inputs(self.delivered.run_id, [_dataset(record.fields)])

    def _skip_unreadable(self, record: Record) -> None:
        self._skip("line", "a writer was killed in the middle of the line")

    def _log_model(self, record: Record) -> None:
        """A checkpoint as a model that `mlflow.pyfunc` loads; one whose upload was cut is sent anew."""
        client, run_id, fields = self.store.client, self.delivered.run_id, record.fields
        step = fields["step"]
        found = self._models(step)
        if any(model.status == LoggedModelStatus.READY for model in found):
            return
        for model in found:
            client.delete_logged_model(model.model_id)
        made = client.create_logged_model(
            self.store.experiment_id, self._model_name(step), run_id, tags={"step": str(step)}
        )
        with TemporaryDirectory() as folder:
            write_model(Path(folder), self.journal.locate(fields["path"]), fields, made)
            client.log_model_artifacts(made.model_id, folder)
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step)])
        client.finalize_logged_model(made.model_id, "READY")

    def _log_model_metrics(self, record: Record) -> None:
        """The numbers of a model, on its page; the same points as in the charts of its run."""
        client, run_id, fields = self.store.client, self.delivered.run_id, record.fields
        step = fields["step"]
        room = {"digest": limits.MAX_DATASET_DIGEST_SIZE}  # PostgreSQL takes no more, and SQLite all
        dataset = {f"dataset_{key}": value[: room.get(key)] for key, value in fields["dataset"].items()}
        for model in self._models(step):
            known = {(metric.key, metric.step) for metric in model.metrics or ()}
            new = {tracked_key(key): value for key, value in fields["metrics"].items()}
            for metric, value in new.items():
                if (metric, step) in known:  # MLflow takes none twice
                    continue
                points = client.get_metric_history(run_id, metric)
                time = next((point.timestamp for point in points if point.step == step), record.time)
                client.log_metric(run_id, metric, value, time, step, model_id=model.model_id, **dataset)

    def _models(self, step: int) -> Sequence[entities.LoggedModel]:
        query = f"source_run_id = '{self.delivered.run_id}' AND name = '{self._model_name(step)}'"
        return self.store.client.search_logged_models([self.store.experiment_id], query)

    def _model_name(self, step: int) -> str:
        begin = self.journal.first("begin")
        name = begin.fields["name"] if begin else "model"
        return re.sub(r"""[/:.%"'\s]""", "_", f"{name}-step-{step}")

    def _describe(self, record: Record) -> None:
        """The text, with the addresses of the runs that it names; it waits until they are there."""
        fields, links = record.fields, {"all runs": runs_page(self.store.experiment_id)}
        for name, folder in fields["runs"].items():
            place = self.journal.locate(folder)
            if (place / FILE_NAME).exists():
                if place not in self.runs or not (run_id := self.runs[place].id()):
                    raise NotThereYetError(name)
                links[name] = run_page(self.store.experiment_id, run_id)
        addresses = "".join(f"[{name}]: {address}\n" for name, address in links.items())
        room = limits.MAX_TAG_VAL_LENGTH - len(addresses) - 1
        note = f"{fields['text'][:room]}\n{addresses}"
        self.store.client.set_tag(self.delivered.run_id, "mlflow.note.content", note)
        self.store.show_columns(fields["columns"])

    def _log_image(self, record: Record) -> None:
        """A picture of a step; one that is there already, of a delivery that was cut, is not sent again."""
        client, run_id, fields = self.store.client, self.delivered.run_id, record.fields
        key, step = fields["key"], fields["step"]
        last_step, name = self.delivered.last_step, f"images/{key}"
        if step <= last_step.get(name, -1):  # a resumed run draws some again
            return
        if record.end > self._perhaps_sent or not self._has_image(key, step):
            with PIL.Image.open(self.journal.locate(fields["path"])) as picture:
                client.log_image(run_id, picture.convert("RGB"), key=key, step=step, synchronous=True)
        last_step[name] = step

    def _has_image(self, key: str, step: int) -> bool:
        """Whether the server has it."""
        name = re.compile(rf"images/{key.replace('/', '.')}.step.{step}.timestamp.*\.webp")  # it is made last
        files = self.store.client.list_artifacts(self.delivered.run_id, "images")
        return any(name.fullmatch(file.path) for file in files)

    def _end(self, record: Record) -> None:
        """MLflow shows the time from the start to the end: that of the work, not of what lies between."""
        begin = self.journal.first("begin")
        worked = round(1000 * self.journal.seconds_of_work())
        end = begin.time + worked if begin else None
        self.store.client.set_terminated(self.delivered.run_id, record.fields["status"], end)

    def _advance(self, record: Record, last_step: dict[str, int]) -> None:
        self.delivered = replace(self.delivered, offset=record.end, last_step=last_step)
        self.delivered.save(self.journal.folder)

    def _skip(self, what: str, reason: str, count: int = 1) -> None:
        self._skipped += [f"{what}: {one_line(reason)[:300]}"] * count

    def _report(self) -> None:
        if self._skipped and self._skipped[0] not in self._reported:
            warn(f"skipped {len(self._skipped)} record(s) of {self.journal.folder}, first {self._skipped[0]}")
        self._reported.update(self._skipped)
        self._skipped.clear()


def _last_steps(run: entities.Run) -> dict[str, int]:
    """The last step of each metric, which the answer has; to ask for them is a request each."""
    return {metric.key: metric.step for metric in run.data._metric_objs}


def _tracked(run: entities.Run) -> TrackedRun:
    info, inputs, outputs = run.info, run.inputs, run.outputs
    datasets = [
        (
            next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), ""),
            one.dataset.name,
            one.dataset.digest,
            json.loads(one.dataset.source).get("uri", ""),
        )
        for one in (inputs.dataset_inputs if inputs else ())
    ]
    return TrackedRun(
        id=info.run_id,
        name=str(info.run_name),
        status=str(info.status),
        experiment_id=str(info.experiment_id),
        seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
        params=run.data.params,
        metrics=run.data.metrics,
        tags=run.data.tags,
        datasets=datasets,
        models={model.step: model.model_id for model in (outputs.model_outputs if outputs else ())},
    )


def _is_rejection(error: Exception) -> bool:
    """Whether MLflow itself says that the request can never succeed; access or routing may be repaired."""
    if isinstance(error, MlflowException):
        return error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code == 413 or "INVALID_PARAMETER_VALUE" in error.response.text
    return isinstance(error, FileNotFoundError)


def _metrics(records: Sequence[Record], last_step: dict[str, int]) -> list[Metric]:
    """The metrics at steps later than `last_step`, which is brought up to date."""
    metrics = []
    for record in records:
        step = record.fields["step"]
        for key, value in record.fields["metrics"].items():
            name = tracked_key(key)
            if is_new(name, step, last_step):
                metrics.append(Metric(name, value, record.time, step))
    return metrics


def _params(params: Mapping[str, str]) -> list[Param]:
    return [Param(tracked_key(key), value[: limits.MAX_PARAM_VAL_LENGTH]) for key, value in params.items()]


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(tracked_key(key), value[: limits.MAX_TAG_VAL_LENGTH]) for key, value in tags.items()]


def _dataset(fields: Mapping[str, Any]) -> DatasetInput:
    digest, source = fields["digest"][: limits.MAX_DATASET_DIGEST_SIZE], fields["source"]
    source_type, source = urlparse(source).scheme or "local", json.dumps({"uri": source})
    columns = [{"name": name, "type": kind} for name, kind in fields.get("columns", {}).items()]
    schema = json.dumps({"mlflow_colspec": columns}) if columns else None
    profile = json.dumps(fields["profile"])
    dataset = Dataset(fields["name"], digest, source_type, source, schema, profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", fields["context"])])
