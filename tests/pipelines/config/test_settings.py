"""Settings become the dataclasses they name, and a mistake becomes one line that names it and the remedy."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.commands.schemas import parse_any
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig, read_settings
from pipelines.config.settings import (
    Layers,
    build,
    flat_params,
    leaves,
    parse_overrides,
    read_layers,
    to_dict,
)
from pipelines.workflow.plan import PipelineConfig, Plan
from tests.paths import REPOSITORY
from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.run import RunConfig
from vlp.shards.storage.local import LocalFolder

CONF = REPOSITORY / "conf"
RUN = "conf/run/cluster_rgb.yaml"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # pipelines name their runs' files relative to it


def run_of(*arguments: str) -> RunConfig:
    return build(RunConfig, read_settings(arguments)[0])


def files(folder: str) -> list[Any]:
    found = sorted((CONF / folder).glob("*.yaml"))
    assert found
    return [pytest.param(str(file.relative_to(REPOSITORY)), id=file.stem) for file in found]


def test_yaml_becomes_the_dataclass_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: x\nmask: {name: cluster, anchor_ratio: 0.1}\nobjective: {name: contrastive}\n")
    config = run_of(str(file))
    assert config.mask == ClusterMask(anchor_ratio=0.1)
    assert config.objective == ContrastiveConfig()
    assert run_of(str(file), "mask.name=random", "mask.mask_ratio=0.25").mask == RandomMask(mask_ratio=0.25)


def test_a_number_without_a_point_is_a_number() -> None:
    """YAML 1.1 reads 5e-4 as text."""
    assert run_of(RUN, "optimizer.lr=5e-4").optimizer.lr == 0.0005
    assert yaml.safe_load("5e-4") == "5e-4"


def test_files_merge_from_left_to_right_and_overrides_win_wherever_they_stand(tmp_path: Path) -> None:
    for name, content in {
        "a": "tuning: {steps: 1, lr: 2}",
        "b": "tuning: {steps: 3}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    a, b = (str(tmp_path / f"{name}.yaml") for name in "ab")
    assert read_layers([a, b]).merged(RunConfig) == {"tuning": {"steps": 3, "lr": 2}}
    assert read_layers([b, a]).merged(RunConfig) == {"tuning": {"steps": 1, "lr": 2}}
    assert read_layers(["tuning.steps=9", a, b]).merged(RunConfig)["tuning"]["steps"] == 9


def test_another_component_starts_from_its_own_defaults() -> None:
    base = Layers().add({"mask": {"name": "cluster", "threshold": 0.5}, "seed": 1}, "file")
    other = base.add({"mask": {"name": "random"}}, "other")
    assert other.merged(RunConfig) == {"mask": {"name": "random"}, "seed": 1}
    same = base.add({"mask": {"name": "cluster", "anchor_ratio": 0.1}}, "other")
    assert same.merged(RunConfig)["mask"] == {"name": "cluster", "threshold": 0.5, "anchor_ratio": 0.1}


def test_what_is_left_out_of_several_by_name_stays_left_out() -> None:
    overrides = [f"evaluation.protocols.{name}=null" for name in ("knn", "few_shot", "linear_probe")]
    found = run_of(RUN, *overrides, "evaluation.protocols.zero_shot.temperature=0.5").evaluation
    assert {"knn", "few_shot", "linear_probe"}.isdisjoint(found.given_protocols)
    assert to_dict(found.given_protocols["zero_shot"])["temperature"] == 0.5


def test_the_name_of_a_run_is_no_component() -> None:
    renamed = Layers().add({"name": "a", "seed": 1}, "file").add({"name": "b"}, "other")
    assert renamed.merged(RunConfig) == {"name": "b", "seed": 1}


@pytest.mark.parametrize("file", files("run"))
def test_flat_parameters_as_overrides_give_the_same_run(file: str, tmp_path: Path) -> None:
    config = run_of(file, "data.crop_scale=[0.5, 0.75]", "evaluation.retrieval.dev=a b.parquet")
    text = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True)}"
        for key, value in flat_params(config).items()
    ]
    assert build(RunConfig, Layers().set(parse_overrides(text), "test")) == config


@pytest.mark.parametrize("file", files("run"))
def test_every_run_parses_and_is_named_for_its_file(file: str) -> None:
    assert run_of(file).name == Path(file).stem


@pytest.mark.parametrize("file", files("pipeline"))
def test_every_pipeline_parses(file: str, tmp_path: Path) -> None:
    layers, _ = read_settings([file])
    data_of_this_machine = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"url": ["http://x/0.jpg"], "caption": ["x"]}), data_of_this_machine)
    given = layers.merged(PipelineConfig)
    if given.get("corpus", {}).get("name") == "parquet":
        columns = {"image": pa.array([b""]), "captions": pa.array([["x"]])}
        for name in ("train", "dev"):
            pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        layers = layers.set({"corpus.path": str(tmp_path)}, "test")
    elif "corpus" not in given:
        layers = layers.set({"download.url_list": str(data_of_this_machine)}, "test")
    plan = Plan.read(layers.without("evaluation"))
    plan.check()
    assert plan.runs(tmp_path, tmp_path)


@pytest.mark.parametrize("file", files("machine"))
def test_every_machine_file_holds_only_settings_of_the_machine(file: str) -> None:
    rest, machine = read_settings([file])
    assert rest.merged() == {}
    assert (
        flat_params(machine).items()
        >= dict(leaves(yaml.safe_load(Path(file).read_text())["machine"])).items()
    )


MISTAKES = {
    "maks.name=random": ["command line", "maks", "did you mean mask?"],
    "mask.anchor_ration=0.1": ["command line", "mask.anchor_ration", "did you mean mask.anchor_ratio?"],
    "objective.text_encoder.widht=64": [
        "objective.text_encoder.widht",
        "did you mean objective.text_encoder.width?",
    ],
    "machine.num_wrkers=2": ["command line", "machine.num_wrkers", "did you mean machine.num_workers?"],
    "machine.keep_checkpoints=2": [
        "keep_checkpoints is not a setting; did you mean machine.checkpoints.keep?"
    ],
    "machine.keep_best_checkpoints=2": ["did you mean machine.checkpoints.keep_best?"],
    "machine.checkpoint_every_steps=2": ["did you mean machine.checkpoints.every_steps?"],
    "machine.keep_every_steps=2": ["did you mean machine.checkpoints.keep_every_steps?"],
    "machine.track_checkpoints=all": ["did you mean machine.checkpoints.track?"],
    "machine.batch_parts=2": ["did you mean machine.memory.batch_parts?"],
    "machine.max_failures=2": ["did you mean machine.recovery.max_failures?"],
    "machine.memory.num_workers=2": ["machine.memory.num_workers", "did you mean machine.num_workers?"],
    "training.min_mask_ratio=0.5": ["training.min_mask_ratio", "did you mean mask.min_mask_ratio?"],
    "num_workers=2": ["num_workers is not a setting; did you mean machine.num_workers?"],
    "anchor_ratio=0.5": ["anchor_ratio is not a setting; did you mean mask.anchor_ratio?"],
    "mask.name=clustre": ["mask.name", "'clustre'", "did you mean cluster?"],
    "image_encoder.name=swin": ["objective contrastive leaves hidden patches out", "such as vit"],
    "objective.name=xyz": ["objective.name", "'xyz'", "contrastive", "superclass"],
    "mask=cluster": ["command line", "mask", "'cluster'"],
    "mask.anchor_ratio=abc": ["command line", "mask.anchor_ratio", "'abc'"],
    "mask.target_mask_ratio=abc": ["command line", "mask.target_mask_ratio: ", "'abc'"],
    "mask.target_mask_ratio={start: 0.3, end: 0.6, shape: lin}": ["mask.target_mask_ratio.shape", "'lin'"],
    "mask.target_mask_ratio={start: 0.3, end: 0.6, bgin: 0}": [
        "ratio.bgin",
        "did you mean mask.target_mask_ratio.begin?",
    ],
    "mask.threshold=per_imag": ["command line", "mask.threshold", "'per_imag'"],
    "training.length.steps=1.5": ["command line", "training.length.steps", "1.5"],
    "training.steps=5": ["training.steps is not a setting; did you mean training.length.steps?"],
    "training.budget.samples=5": ["training.budget is not a setting; did you mean training.length.samples?"],
    "training.length={steps: 1, samples: 5}": ["training.length.steps or samples: set exactly one"],
    "mask.anchor_ratio=2": ["command line", "mask.anchor_ratio", "(0, 1)", "2.0"],
    "data.crop_scale=[0.5, 2]": ["command line", "data.crop_scale", "2.0"],
    "data.crop_scale=[0.5]": ["command line", "data.crop_scale", "[0.5]"],
    "evaluation.retrieval=x.parquet": ["command line", "evaluation.retrieval.NAME=x.parquet"],
    "evaluation.retrieval={a b: x.parquet}": ["command line", "evaluation.retrieval", "'a b'"],
    "evaluation.protocols.few_shot.shots=[5, 0]": ["line: evaluation.protocols.few_shot.shots", "[5, 0]"],
    "evaluation.protocols.knn.k=0": ["command line: evaluation.protocols.knn.k must be", "got 0"],
    "evaluation.protocols.knm.k=3": [
        "evaluation.protocols.knm is not a setting",
        "did you mean evaluation.protocols.knn?",
    ],
    "evaluation.protocols.knn.kk=3": [
        "evaluation.protocols.knn.kk is not a setting",
        "did you mean evaluation.protocols.knn.k?",
    ],
    "evaluation.protocols=knn": ["command line: evaluation.protocols", "'knn'"],
    "evaluation.every_steps=0": ["command line", "evaluation.every_steps", "0"],
    "machine.cpus_per_worker=0": ["command line", "machine.cpus_per_worker", "0"],
    "machine.num_workers=[4, 2]": ["command line", "machine.num_workers", "such as [2, 8]; got [4, 2]"],
    "machine.num_workers=[0, 2]": ["command line", "machine.num_workers", "1 or more", "[0, 2]"],
    "machine.num_workers=[2]": ["command line", "machine.num_workers", "got [2]"],
    "machine.recovery.resize_seconds=-1": ["command line", "machine.recovery.resize_seconds", "-1"],
    "training.length.steps=[1": ["command line", "training.length.steps", "[1"],
    "mask={name: random, name: grid}": ["command line", "mask", "name is set twice"],
    "conf/run/mae.yaml": ["name is mae", "name=..."],
    "image_encoder.depth=0": ["command line", "image_encoder.depth must be at least 1"],
    "evaluation.retrieval=null": ["evaluation.retrieval is null", "leave it out"],
    "mask.mask_ratio": ["mask.mask_ratio is not a file", "mask.mask_ratio=VALUE"],
    "conf/run/clipp.yaml": ["conf/run/clipp.yaml", "did you mean conf/run/clip.yaml?"],
    "nowhere/x.yaml": ["no such file", "nowhere/x.yaml"],
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key_its_source_and_the_remedy(argument: str) -> None:
    with pytest.raises(ConfigError) as raised:
        run_of(RUN, argument)
    message = str(raised.value)
    assert "\n" not in message
    assert [part for part in MISTAKES[argument] if part not in message] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "name: x\nobjective: {name: contrastive}\nmask: {name: cluster, anchor_ratio: 7}\n",
            "mask.anchor_ratio",
        ),
        (
            "name: x\nobjective: {name: contrastive}\ntraining: {step: 7}\n",
            "did you mean training.length.steps?",
        ),
        ("name: [1\n", "is not YAML"),
        ("name: x\nseed: 1\nseed: 2\n", "seed is set twice"),
        ("- name\n", "expected `key: value` lines"),
        ("name: \N{LATIN SMALL LETTER U WITH DIAERESIS}\n", "is not YAML"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(content: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=re.escape(expected)) as raised:
        run_of(str(file), "seed=1")
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["objective.name=contrastive"], "name is missing"),
        (["name=x"], "objective is missing"),
        (["name=x", "objective={}"], "objective needs a name"),
    ],
)
def test_a_required_key_that_is_missing_is_named(arguments: list[str], missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        run_of(*arguments)


def test_an_override_is_to_blame_even_where_a_file_set_parts_of_the_same_key() -> None:
    with pytest.raises(ConfigError, match=r"^command line: mask"):
        run_of(RUN, "mask=3")


CLUSTER = "name: x\nobjective: {name: contrastive}\nmask: {name: cluster, anchor_ratio: 0.2}\n"
BLAME = {
    "an override below what the file needs": (CLUSTER, ["mask.target_mask_ratio=0.1"], "command line"),
    "a file below what an override leaves as it is": (
        CLUSTER.replace("0.2", "0.7"),
        ["mask.threshold=0.5"],
        "file",
    ),
    "a number of the file": (CLUSTER.replace("0.2", "7"), ["mask.threshold=0.5"], "file"),
    "a number of an override": (CLUSTER, ["mask.anchor_ratio=7"], "command line"),
    "a key of the file": (CLUSTER + "maks: 1\n", ["mask.anchor_ratio=0.1"], "file"),
    "a key of an override beside those of a file": (CLUSTER, ["mask.treshold=0.1"], "command line"),
    "a type in the file": (CLUSTER + "seed: x\n", ["data.shuffle=block"], "file"),
    "an encoder that the file's mask cannot have": (CLUSTER, ["image_encoder.name=swin"], "command line"),
    "a name of the file": (CLUSTER.replace("cluster", "clustr"), ["mask.anchor_ratio=0.1"], "file"),
    "a size of the file that an override's does not divide": (
        CLUSTER + "image_encoder: {image_size: 64}\n",
        ["image_encoder.patch_size=48"],
        "command line",
    ),
    "two measures of one file": (
        CLUSTER + "training: {length: {steps: 5, samples: 9}}\n",
        ["training.batch_size=8"],
        "file",
    ),
    "a part that is missing in what the file sets": (CLUSTER + "tuning: {steps: 5}\n", ["seed=1"], "file"),
    "a member of a list of an override": (CLUSTER, ["data.mix=[{shards: x, share: 2}]"], "command line"),
    "a member of a mapping of the file": (
        CLUSTER + "evaluation: {shots: [5, 0]}\n",
        ["evaluation.every_steps=5"],
        "file",
    ),
}


@pytest.mark.parametrize("case", BLAME)
def test_a_mistake_is_blamed_on_who_set_the_key(case: str, tmp_path: Path) -> None:
    content, overrides, culprit = BLAME[case]
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as raised:
        run_of(str(file), *overrides)
    assert str(raised.value).startswith(f"{file if culprit == 'file' else culprit}: ")


def test_of_two_files_the_one_that_set_the_key_is_blamed(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(CLUSTER)
    second.write_text("machine: {checkpoints: {keep: 0}}\ntraining: {batch_size: 0}\n")
    with pytest.raises(ConfigError, match=r"^[^:]*second\.yaml: machine\.checkpoints\.keep must be"):
        run_of(str(first), str(second))
    second.write_text("training: {batch_size: 0}\n")
    with pytest.raises(ConfigError, match=r"^[^:]*second\.yaml: training\.batch_size must be at least 1"):
        run_of(str(first), str(second))


def test_what_is_missing_is_no_one_s_fault() -> None:
    with pytest.raises(ConfigError, match=r"^objective is missing; set it in a file or as objective=\.\.\.$"):
        run_of("name=x")


PIPELINE_MISTAKES = {
    "download.image_sze=3": "line: download.image_sze is not a setting; did you mean download.image_size?",
    "docfreq.tokenizer.nam=x": "docfreq.tokenizer.nam",
    "corpus.sed=1": "corpus.sed is not a setting; did you mean corpus.seed?",
    "serve.failures.http_404=2": "serve.failures.http_404 must be in",
    "common.training.step=3": "command line: common, on conf/run/clip.yaml: training.step is not a setting",
    "runs=[]": "at least one run",
    "runs=[{base: conf/run/clip.yaml}, {base: conf/run/clip.yaml}]": "only once",
    "baseline=flop": "baseline: no run of those done is named flop; did you mean flip?; name another",
    "only=[flip]": "baseline: no run of those done is named clip; did you mean flip?; name another",
    "runs=[{bas: conf/run/clip.yaml}]": "needs its base",
    "runs=[{base: 3}]": "needs its base",
    "runs=[{base: conf/run/clip.yaml, objective: null}]": "objective",
    "download.retries=-1": "command line: download.retries must not be negative, got -1",
    "corpus=null": "download.url_list is missing",
    "corpus={name: parquet, path: nowhere}": "no such file: nowhere/train.parquet",
    "evaluation.retrieval.dev=nowhere.parquet": "evaluation.retrieval.dev: no such file: nowhere.parquet",
}


@pytest.mark.parametrize("argument", PIPELINE_MISTAKES)
def test_a_mistake_in_a_pipeline_is_found_before_it_starts(argument: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(PIPELINE_MISTAKES[argument])) as raised:
        parse_any(*read_settings(["conf/pipeline/demo.yaml", argument]))
    assert "\n" not in str(raised.value)


def test_a_config_as_plain_values_parses_to_itself() -> None:
    for num_workers in (3, (2, 8)):
        machine = MachineConfig(storage=LocalFolder(Path("x y")), num_workers=num_workers, tracking_uri=None)
        values = yaml.safe_load(yaml.safe_dump(to_dict(machine)))
        assert build(MachineConfig, Layers().add(values, "x")) == machine


def test_every_run_is_done_by_every_seed() -> None:
    """First all by their own seed, then by those that follow, so that a table is whole as soon as may be."""
    layers = read_settings([str(REPOSITORY / "conf/pipeline/demo.yaml")])[0]
    plan = Plan.read(layers.set({"seeds": 3, "only": ["clip", "flip"], "common.seed": 5}, "test"))
    plan.check()
    runs = plan.runs(Path("shards"), Path("table"))
    named = ["clip", "flip", "clip-seed6", "flip-seed6", "clip-seed7", "flip-seed7"]
    assert [run.name for run in runs] == named
    assert [run.seed for run in runs] == [5, 5, 6, 6, 7, 7]
    assert all(replace(run, name="clip", seed=5) == runs[0] for run in runs[::2])
    alone = Plan.read(layers.set({"only": ["clip"], "common.seed": 5}, "test"))
    assert alone.runs(Path("shards"), Path("table")) == runs[:1], "what one seed has made is not made again"


def test_a_run_is_not_called_as_another_one_by_its_next_seed() -> None:
    layers = read_settings([str(REPOSITORY / "conf/pipeline/demo.yaml")])[0]
    entry = {"base": "conf/run/clip.yaml"}
    runs = {"runs": [entry, entry | {"name": "clip-seed1"}]}
    Plan.read(layers.set(runs, "test")).check()
    with pytest.raises(ConfigError, match=r"^runs: clip-seed1 is what clip is called by its next seed"):
        Plan.read(layers.set(runs | {"seeds": 2}, "test")).check()
