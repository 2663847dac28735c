"""Every point of the grids that search SimMIM and MAE is a model that trains."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Generator

from pipelines.config.settings import Layers, build, read_layers, to_dict
from pipelines.sweeps.settings import SweepConfig
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from tests.paths import REPOSITORY
from tests.pipelines.runs import random_objective
from vlp.objectives import Batch
from vlp.run import RunConfig

FILES = sorted(REPOSITORY.glob("conf/sweep/simmim_*.yaml")) + sorted(REPOSITORY.glob("conf/sweep/mae_*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_point_of_a_grid_trains(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    sweep = build(SweepConfig, read_layers([str(file)]))
    plan = Plan(build(PipelineConfig, read_layers([str(sweep.pipeline)])))
    base = next(run for run in plan.runs(LATER, LATER) if run.name == sweep.run)
    layers = Layers().add(to_dict(base), "run").set(sweep.overrides, "overrides")
    for values in product(*(choice["grid"] for choice in sweep.space.values())):
        point = layers.set(dict(zip(sweep.space, values, strict=True)), "space")
        run = build(RunConfig, point)
        model = random_objective(run)
        size = run.image_encoder.image_size
        images = torch.randn(2, 3, size, size, generator=Generator().manual_seed(0))
        batch = Batch(images, torch.zeros(2, 3, dtype=torch.int64), torch.full((2,), 3))
        loss = model(batch, progress=0.0, generator=Generator().manual_seed(0)).loss
        loss.backward()
        assert loss.isfinite(), values
