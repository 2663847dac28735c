"""The files of docker/, read by the tools that know them, and compared with each other."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from compose_spec import PyCompose

from pipelines.config.machine import read_settings
from tests.paths import REPOSITORY

DOCKER = REPOSITORY / "docker"
TOOLS = Path(sys.executable).parent
SCHEMA = json.loads((Path(__file__).parent / "kuberay.schema.json").read_text())
KUBERAY = [
    document
    for file in ("cluster", "job", "cronjob")
    for document in yaml.safe_load_all((DOCKER / "kuberay" / f"{file}.yaml").read_text())
]


def mistakes(document: dict[str, Any]) -> list[str]:
    """What KubeRay would not take of a resource, or pass over without a word."""
    schema = SCHEMA["$defs"][document["kind"]] | {"$defs": SCHEMA["$defs"]}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["shellcheck", "make_secrets.sh"],
        ["shellcheck", "slurm/vlp.sbatch"],
        ["shellcheck", "test.sh"],
    ],
    ids=lambda command: command[1],
)
def test_the_linters_have_nothing_to_say(command: list[str]) -> None:
    said = subprocess.run([TOOLS / command[0], command[1]], cwd=DOCKER, capture_output=True, text=True)
    assert said.stdout + said.stderr == ""


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_the_specification(name: str) -> None:
    merged = yaml.safe_load((DOCKER / name).read_text())  # the validator knows no merge keys
    assert set(PyCompose.from_yaml(yaml.safe_dump(merged)).service_names()) == set(merged["services"])


def test_a_duration_that_compose_cannot_read_is_found() -> None:
    broken = compose()
    broken["services"]["head"]["healthcheck"]["interval"] = "10 minutes"
    with pytest.raises(ValueError, match="not a valid duration"):
        PyCompose.from_yaml(yaml.safe_dump(broken))


def test_the_secrets_are_those_that_compose_reads_and_nobody_elses(tmp_path: Path) -> None:
    made = tmp_path / "secrets"
    subprocess.run([DOCKER / "make_secrets.sh", made], check=True, capture_output=True)
    files = {secret["file"] for secret in compose()["secrets"].values()}
    assert {f"secrets/{file.name}" for file in made.iterdir()} == files
    assert made.stat().st_mode & 0o777 == 0o700
    used = [secret for service in compose()["services"].values() for secret in service.get("secrets", [])]
    assert {secret["source"] if isinstance(secret, dict) else secret for secret in used} == set(
        compose()["secrets"]
    )
    again = subprocess.run([DOCKER / "make_secrets.sh", made], capture_output=True, text=True)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)


def test_nothing_listens_beyond_this_machine_and_all_is_watched() -> None:
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "healthcheck" in service, name


@pytest.mark.parametrize("name", ["compose", "kuberay", "slurm"])
def test_the_machine_file_is_of_the_same_cluster(name: str) -> None:
    _, machine = read_settings([f"conf/machine/{name}.yaml"])
    assert machine.ray_address == "auto"
    if name == "compose":
        node = compose()["services"]["worker"]
        assert f"results:{machine.work_folder}" in node["volumes"]
        assert machine.tracking_uri == "http://mlflow:5000"
        assert "--allowed-hosts=mlflow:5000," in compose()["services"]["mlflow"]["command"][-1]
    if name == "kuberay":
        (cluster,) = (one for one in KUBERAY if one["kind"] == "RayCluster")
        groups = cluster["spec"]["workerGroupSpecs"]
        pods = [group["template"]["spec"]["containers"][0] for group in groups]
        assert all(
            {"name": "results", "mountPath": str(machine.work_folder)} in pod["volumeMounts"] for pod in pods
        )
        cpus = [int(pod["resources"]["requests"]["cpu"]) for pod in pods]
        assert all(count >= machine.cpus_per_worker for count in cpus)


@pytest.mark.parametrize("document", KUBERAY, ids=lambda document: document["kind"])
def test_kuberay_takes_every_field(document: dict[str, Any]) -> None:
    assert mistakes(document) == []


def test_a_misspelt_field_of_a_pod_is_found() -> None:
    (cluster,) = (one for one in KUBERAY if one["kind"] == "RayCluster")
    (mistake,) = mistakes(json.loads(json.dumps(cluster).replace("readinessProbe", "readinessProb")))
    assert "readinessProb" in mistake


def test_a_worker_has_time_to_write_its_checkpoint() -> None:
    (cluster,) = (one for one in KUBERAY if one["kind"] == "RayCluster")
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


def test_versions_are_those_of_the_lock() -> None:
    (cluster,) = (one for one in KUBERAY if one["kind"] == "RayCluster")
    assert cluster["spec"]["rayVersion"] == ray.__version__
    uv = re.search(r"uv==[\d.]+", (DOCKER / "Dockerfile").read_text())
    assert uv
    assert f"UV := {uv[0]}\n" in (REPOSITORY / "Makefile").read_text()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    locked = (REPOSITORY / "requirements.lock").read_text().lower()
    names = [re.split(r"[\[>=<]", one)[0] for one in project["project"]["optional-dependencies"]["server"]]
    assert [name for name in names if f"\n{name.lower()}==" not in locked] == []


def test_the_image_is_made_of_files_that_are_there_and_not_ignored() -> None:
    copied = re.findall(
        r"^COPY (?!--from)(?:--chown=\S+ )?(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE
    )
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for name in " ".join(copied).split():
        assert (REPOSITORY / name).exists(), name
        assert name in kept
