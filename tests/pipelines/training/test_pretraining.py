"""A run is a function of its settings, on any number of workers; its checkpoint is the model it trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pipelines.checkpoints.checkpoint import (
    CONFIG,
    Contents,
    TrainingState,
    find_checkpoint,
    load_model,
    save_checkpoint,
)
from pipelines.checkpoints.store import RunManifest
from pipelines.config.errors import UserError, refusal
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.config.settings import to_dict
from pipelines.evaluation.evaluate import (
    EvaluateConfig,
    EvaluationManifest,
    check_evaluation,
    evaluate,
    measure_checkpoint,
    measure_model,
    outcomes_of,
)
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.pipelines.runs import pretrain, random_objective, run_identity
from tests.servers.disk import full_disk
from vlp.checkpoint import MODEL, SETTINGS
from vlp.data.image_tables import ImageTable
from vlp.data.loader import load_images
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.few_shot import FewShot
from vlp.metrics.outcomes import named_metrics
from vlp.objectives.contrastive import Contrastive
from vlp.run import RunConfig, validation_metric
from vlp.shards.storage.local import LocalFolder
from vlp.tokenizers.document_frequency import DocumentFrequency
from vlp.training.optim import build_optimizer

MakeRun = Callable[..., RunConfig]
IN_THIS_PROCESS = MachineConfig(num_workers=0, log_every_steps=1)
FROZEN = {"shapes/knn", "shapes/few_shot", "shapes/linear_probe"}
SUPERCLASS = {"objective": {"name": "superclass"}, "mask": {"name": "none"}}


def train(run: RunConfig, output: Path, machine: MachineConfig = IN_THIS_PROCESS) -> RunManifest:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    return pretrain(run, output, machine=machine, journal=journal)


def losses(output: Path) -> list[float]:
    records = Journal(output.parent / f"journal-{output.name}").read()
    metrics = [record.fields["metrics"] for record in records if record.kind == "metrics"]
    return [values["train/loss"] for values in metrics if "train/loss" in values]


@pytest.fixture(scope="module")
def evaluation(tiny_world: Path) -> EvaluationConfig:
    return EvaluationConfig(
        retrieval={"scenes": LocalFolder(tiny_world / "retrieval.parquet")},
        classification={"shapes": LocalFolder(tiny_world / "classification")},
    )


def test_the_seed_decides_the_weights(tiny_run: MakeRun, tmp_path: Path) -> None:
    first, again, other = (
        train(tiny_run(seed=seed), tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.digest == again.digest != other.digest
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_a_run_of_no_steps_is_the_untrained_network(
    tiny_run: MakeRun, evaluation: EvaluationConfig, tmp_path: Path
) -> None:
    run = tiny_run(training={"length": {"steps": 0}})
    train(run, tmp_path / "run")
    model, _ = load_model(find_checkpoint(tmp_path / "run"), torch.device("cpu"))
    fresh = random_objective(run).state_dict()
    assert all(torch.equal(weight, fresh[name]) for name, weight in model.state_dict().items())
    assert measure_checkpoint(find_checkpoint(tmp_path / "run"), evaluation)[1] == 0


def test_a_ray_worker_sees_the_same_batches_and_masks_as_this_process(
    ray_cluster: None, tiny_run: MakeRun, tmp_path: Path
) -> None:
    """Equal to the bit: losses of every step, and weights."""
    run = tiny_run(mask={"name": "cluster", "anchor_ratio": 0.2, "threshold": 0.5})
    machine = MachineConfig(num_workers=1, log_every_steps=1, checkpoints=CheckpointSettings(every_steps=2))
    here, there = train(run, tmp_path / "here"), train(run, tmp_path / "there", machine)
    assert losses(tmp_path / "here") == losses(tmp_path / "there")
    assert here.digest == there.digest
    checkpoints = sorted(path.name for path in (tmp_path / "there" / "checkpoints").glob("step_*"))
    assert checkpoints == ["step_0000002", "step_0000003"]


def test_a_loaded_model_embeds_as_the_one_that_was_saved(
    tiny_run: MakeRun, tmp_path: Path, make_table: Callable[[RunConfig], Path]
) -> None:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    offline = {"objective": {"name": "superclass", "idf": "offline"}}
    for changes in ({}, SUPERCLASS, offline):
        run = tiny_run(seed=5, **changes)
        one = np.ones(49_408, dtype=np.int64)
        ones = DocumentFrequency(one, 0, run.tokenizer.build().identity, one)
        objective = random_objective(run, ones)
        with torch.no_grad():  # fresh weights could be made again from the seed alone
            for weight in objective.parameters():
                weight.add_(0.01)
        optimizer = build_optimizer(objective, run.optimizer)
        folder = tmp_path / f"{run.objective.name}-{len(changes)}-{getattr(run.objective, 'idf', '')}"
        save_checkpoint(folder, Contents.of(run, TrainingState(objective, optimizer, None, run.mask, 1)))
        loaded, config = load_model(folder, torch.device("cpu"))
        assert config == run
        with torch.inference_mode():
            assert torch.equal(loaded.features(images), objective.eval().features(images))
        assert all(map(torch.equal, loaded.state_dict().values(), objective.state_dict().values()))


@pytest.fixture
def make_table(tmp_path: Path) -> Callable[[RunConfig], Path]:
    """A document-frequency table of the run's tokenizer."""

    def make(run: RunConfig) -> Path:
        tokenizer = run.tokenizer.build()
        counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        counts[320] = 2
        DocumentFrequency(counts, 3, tokenizer.identity, counts).write(tmp_path / "df.parquet", tokenizer)
        return tmp_path / "df.parquet"

    return make


def test_a_checkpoint_is_written_whole_or_not_at_all(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run()
    objective = random_objective(run)
    optimizer = build_optimizer(objective, run.optimizer)
    first, second = (
        Contents.of(run, TrainingState(objective, optimizer, None, run.mask, step)) for step in (1, 2)
    )
    folder = tmp_path / "step_1"
    save_checkpoint(folder, first)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    with full_disk(), pytest.raises(OSError, match="no space left, or the disk fails") as full:
        save_checkpoint(folder, second)
    assert "make room there, or choose another folder" in str(refusal(full.value))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with full_disk(), pytest.raises(OSError, match="no space left"):
        save_checkpoint(tmp_path / "new", second)
    assert not (tmp_path / "new").exists()
    for name in ("step_1", "new"):
        save_checkpoint(tmp_path / name, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "step_1"]


def test_a_finished_run_is_evaluated_by_its_last_checkpoint(
    tiny_run: MakeRun, evaluation: EvaluationConfig, tmp_path: Path
) -> None:
    """Measured while it trains and afterwards from disk: the same numbers, at the same step."""
    during = to_dict(evaluation) | {"every_steps": 3}
    manifest = train(tiny_run(evaluation=during), tmp_path / "run")
    checkpoint = find_checkpoint(tmp_path / "run")
    assert checkpoint == tmp_path / "run" / manifest.checkpoint
    measured = measure_checkpoint(checkpoint, evaluation)
    assert set(measured.pictures) == {"image_to_text-of-scenes", "text_to_image-of-scenes"}
    assert measured.step == 3
    records = Journal(tmp_path / "journal-run").read()
    written = [
        r.fields for r in records if r.kind == "metrics" and "val/shapes/knn/acc1" in r.fields["metrics"]
    ]
    assert [fields["step"] for fields in written] == [3]
    assert written[0]["metrics"] == pytest.approx(
        {f"val/{key}": value for key, value in measured.metrics.items()}
    )


def test_the_evaluation_of_a_model_that_rebuilds_patches_has_a_picture_of_them(
    ray_cluster: None, tiny_run: MakeRun, evaluation: EvaluationConfig, tmp_path: Path
) -> None:
    mae = {"name": "mae", "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    train(tiny_run(objective=mae), tmp_path / "run")
    journal = Journal(tmp_path / "journal")
    journal.begin(name="evaluate", tags={})
    config = EvaluateConfig(checkpoint=tmp_path / "run", evaluation=evaluation)
    manifest = evaluate(config, tmp_path / "out", machine=IN_THIS_PROCESS, journal=journal)
    assert kinds(manifest.metrics) == FROZEN
    assert Image.open(tmp_path / "out" / "pictures" / "reconstructions.png").size > (4 * 128, 6 * 128)
    artifacts = [
        (r.fields["folder"], Path(r.fields["path"]).name) for r in journal.read() if r.kind == "artifact"
    ]
    assert artifacts == [
        ("evaluation", "manifest.json"),
        ("evaluation", "outcomes.parquet"),
        ("pictures", "reconstructions.png"),
    ]
    again = EvaluationManifest.read(tmp_path / "out")
    assert again == manifest
    assert named_metrics(outcomes_of(tmp_path / "out")) == manifest.metrics
    (logged,) = (r.fields["metrics"] for r in journal.read() if r.kind == "metrics")
    low, high = manifest.intervals["shapes/knn/acc1"]
    assert (logged["val/shapes/knn/acc1_low"], logged["val/shapes/knn/acc1_high"]) == (low, high)


def test_what_is_measured_follows_from_the_objective_and_the_sets(
    tiny_run: MakeRun, evaluation: EvaluationConfig
) -> None:
    contrastive, superclass = ((random_objective(run), run) for run in (tiny_run(), tiny_run(**SUPERCLASS)))
    everything = measure_model(*contrastive, evaluation)
    pairs = {f"scenes/{direction}" for direction in ("image_to_text", "text_to_image")}
    assert kinds(everything) == pairs | FROZEN | {"shapes/zero_shot"}
    assert kinds(measure_model(*superclass, evaluation)) == FROZEN
    assert kinds(measure_model(*contrastive, EvaluationConfig(retrieval=evaluation.retrieval))) == pairs
    assert measure_model(*superclass, EvaluationConfig(retrieval=evaluation.retrieval)) == {}


def test_checkpoints_are_compared_by_a_metric_that_is_measured(
    tiny_run: MakeRun, evaluation: EvaluationConfig
) -> None:
    during = to_dict(evaluation) | {"every_steps": 1}
    labelled = during | {"retrieval": {}}
    for run, metric in (
        (tiny_run(evaluation=during), "scenes/text_to_image/recall@1"),
        (tiny_run(evaluation=labelled), "shapes/knn/acc1"),
        (tiny_run(**SUPERCLASS, evaluation=during), "shapes/knn/acc1"),
    ):
        assert validation_metric(run) == f"val/{metric}"
        assert metric in measure_model(random_objective(run), run, run.evaluation)
    assert validation_metric(tiny_run(evaluation=to_dict(evaluation))) is None
    assert validation_metric(tiny_run(evaluation={"every_steps": 1})) is None


def kinds(metrics: dict[str, float]) -> set[str]:
    return {"/".join(key.split("/")[:2]) for key in metrics}


def test_every_set_has_the_metrics_that_it_has_alone(tiny_run: MakeRun, evaluation: EvaluationConfig) -> None:
    run = tiny_run()
    objective = random_objective(run)
    (folder,) = evaluation.classification.values()
    protocols = {**evaluation.protocols, "few_shot": FewShot(shots=(1, 2))}
    twice = EvaluationConfig(classification={"a": folder, "b": folder}, protocols=protocols)
    metrics = measure_model(objective, run, twice)
    assert kinds(metrics) == {
        f"{name}/{kind}" for name in "ab" for kind in ("knn", "few_shot", "linear_probe", "zero_shot")
    }
    assert {"a/few_shot/1/acc1", "a/few_shot/2/acc1_std"} < set(metrics)
    assert all(metrics[f"b{key[1:]}"] == value for key, value in metrics.items() if key.startswith("a/"))
    assert measure_model(objective, run, evaluation)["shapes/knn/acc1"] == metrics["a/knn/acc1"]


def test_retrieval_is_measured_on_the_captions_of_each_image(
    tiny_run: MakeRun, evaluation: EvaluationConfig
) -> None:
    """Recall@1 from a loop over one image and one caption at a time."""
    run = tiny_run()
    objective = random_objective(run).eval()
    assert isinstance(objective, Contrastive)
    data = ImageTable(evaluation.retrieval["scenes"], "captions")
    tokenizer = run.tokenizer.build()
    with torch.inference_mode():
        images = [
            objective.encode_image(load_images([b], image_size=32, normalization="clip"))[0]
            for b in data.images()
        ]
        texts = [
            (i, objective.encode_text(*tokenizer.encode([t]))[0])
            for i, ts in enumerate(data.labels())
            for t in ts
        ]
    found = [max(range(len(images)), key=lambda j: float(images[j] @ text)) == i for i, text in texts]
    metrics = measure_model(objective, run, EvaluationConfig(retrieval=evaluation.retrieval))
    assert metrics["scenes/text_to_image/recall@1"] == pytest.approx(sum(found) / len(found))


def test_the_identity_follows_the_content_of_the_inputs_and_not_their_place(
    tiny_run: MakeRun, make_shards: Any, evaluation: EvaluationConfig, tmp_path: Path
) -> None:
    captions = [[f"{i}"] for i in range(8)]
    here, there = (make_shards(tmp_path / name, captions) for name in "ab")
    other = make_shards(tmp_path / "c", [*captions[:-1], ["changed"]])
    identity = {path: run_identity(tiny_run(data={"shards": str(path)})) for path in (here, there, other)}
    assert identity[here] == identity[there] != identity[other]
    at_here = {"data": {"shards": str(here)}}
    assert run_identity(tiny_run(**at_here, evaluation=to_dict(evaluation))) == identity[here]
    assert run_identity(tiny_run(**at_here, seed=7)) != identity[here]


def test_what_cannot_work_is_found_before_training(
    tiny_run: MakeRun, make_table: Callable[[RunConfig], Path], tmp_path: Path
) -> None:
    offline = {"objective": {"name": "superclass", "idf": "offline"}}
    table = make_table(tiny_run())
    assert (
        len(resolve(tiny_run(**offline, data={"document_frequency": str(table)}), IN_THIS_PROCESS).shards)
        == 24
    )
    mistakes = [
        (tiny_run(data={"shards": str(tmp_path)}), "is not a folder of shards"),
        (tiny_run(training={"batch_size": 26}), "fewer than one batch"),
        (tiny_run(training={"batch_size": 9}), "not a multiple of machine.num_workers 2"),
        (tiny_run(**offline), "set data.document_frequency"),
        (tiny_run(data={"document_frequency": str(tmp_path / "no.parquet")}), "no such file"),
        (
            tiny_run(evaluation={"retrieval": {"x": str(tmp_path / "no.parquet")}}),
            r"evaluation\.retrieval\.x: no such file",
        ),
    ]
    for run, message in mistakes:
        with pytest.raises(UserError, match=message):
            train(run, tmp_path / "run", MachineConfig(num_workers=2))
        assert not (tmp_path / "run").exists()


def test_evaluation_sets_that_cannot_be_read_are_named(tiny_world: Path, tmp_path: Path) -> None:
    labelled = tiny_world / "classification" / "train.parquet"
    with pytest.raises(UserError, match="lacks the columns image and captions"):
        check_evaluation(EvaluationConfig(retrieval={"x": LocalFolder(labelled)}))
    (tmp_path / "text.parquet").write_text("x")
    with pytest.raises(UserError, match="is not a Parquet file"):
        check_evaluation(EvaluationConfig(retrieval={"x": LocalFolder(tmp_path / "text.parquet")}))
    with pytest.raises(UserError, match="no such file"):
        check_evaluation(EvaluationConfig(classification={"x": LocalFolder(tmp_path)}))


def test_a_folder_without_a_model_is_no_checkpoint(shards: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", shards):
        with pytest.raises(UserError, match=MODEL):
            find_checkpoint(folder)


def lose_the_vocabulary(folder: Path) -> None:
    (folder.parent / "vocab.txt").unlink()


def change_the_vocabulary(folder: Path) -> None:
    with (folder.parent / "vocab.txt").open("a") as stream:
        stream.write("more\nwords\n")


def lose_the_settings(folder: Path) -> None:
    (find_folder(folder) / SETTINGS).unlink()


def cut_the_weights(folder: Path) -> None:
    file = find_folder(folder) / MODEL
    file.write_bytes(file.read_bytes()[:1000])


def find_folder(run: Path) -> Path:
    return next(run.glob("checkpoints/step_*"))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lose_the_vocabulary,
            r"needs a file: tokenizer: no such file: .*vocab\.txt; put it back, or",
        ),
        (
            change_the_vocabulary,
            r"model\.safetensors does not hold the weights of its config\.json: size mismatch",
        ),
        (lose_the_settings, r"is not a checkpoint: it has no config\.json"),
        (cut_the_weights, r"step_0000001 is broken: its model\.safetensors has 1,000 of .* bytes"),
    ],
)
def test_a_checkpoint_that_lost_what_it_needs_is_named_in_one_line(
    damage: Callable[[Path], None],
    expected: str,
    ray_cluster: None,
    tiny_run: MakeRun,
    evaluation: EvaluationConfig,
    tmp_path: Path,
) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "circle", "square", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = {"name": "wordpiece", "vocab_file": str(tmp_path / "vocab.txt"), "context_length": 16}
    train(
        tiny_run(tokenizer=tokenizer, training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}),
        tmp_path / "run",
    )
    damage(tmp_path / "run")
    journal = Journal(tmp_path / "journal")
    journal.begin(name="evaluate", tags={})
    config = EvaluateConfig(checkpoint=tmp_path / "run", evaluation=evaluation)
    with pytest.raises(UserError, match=expected) as raised:
        evaluate(config, tmp_path / "out", machine=MachineConfig(), journal=journal)
    assert "\n" not in str(raised.value)
    assert str(find_folder(tmp_path / "run")) in str(raised.value)


def test_a_checkpoint_without_its_codes_is_named_in_one_line(tiny_run: MakeRun, tmp_path: Path) -> None:
    codes = tmp_path / "palette.npy"
    np.save(codes, np.random.default_rng(0).uniform(-1, 1, (16, 3)).astype(np.float32))
    target = {"name": "color_clusters", "num_codes": 16, "codes": str(codes)}
    run = tiny_run(
        objective={"name": "simmim", "target": target},
        mask={"name": "grid", "cell_size": 2},
        data={"normalization": "imagenet"},
        training={"length": {"steps": 1}},
        lr_schedule={"warmup_steps": 0},
    )
    train(run, tmp_path / "run")
    codes.unlink()
    with pytest.raises(UserError, match=r"step_0000001 needs a file: .*palette\.npy.* put it back"):
        load_model(find_folder(tmp_path / "run"), torch.device("cpu"))


def test_a_run_says_what_it_was_made_of(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run()
    train(run, tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / CONFIG).read_text()) == to_dict(run)
