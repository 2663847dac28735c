"""Pictures of a training: what its mask hides and why, what the model rebuilds, and what it finds alike."""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.tracking.journal import PICTURES
from pipelines.training.hooks import Hook, Metrics
from pipelines.training.job import TrainJob
from vlp.core.batch import Batch
from vlp.core.distributed import is_main
from vlp.core.normalization import denormalize, normalize
from vlp.core.seeds import mix_seeds
from vlp.data.loader import middle_squares
from vlp.objectives import Objective
from vlp.objectives.encode_in_parts import take_rows
from vlp.pictures.mask_grid import look
from vlp.pictures.masks import choice_panel
from vlp.pictures.rank_frequency import rank_frequency
from vlp.pictures.reconstructions import reconstructions
from vlp.pictures.schedules import schedules
from vlp.pictures.similarity import similarity_matrix

MAX_MOMENTS = 20
NUM_IMAGES, NUM_PAIRS = 6, 24


class Pictures(Hook):
    """Rank 0 draws at the start and after checkpoints, at most 20 times in a run; changes no result."""

    def __init__(self, job: TrainJob) -> None:
        self.job = job
        due = [step for step in range(1, job.config.num_steps + 1) if job.is_due(step)]
        self.steps = {*due[:: -(-len(due) // MAX_MOMENTS) or 1], job.config.num_steps}
        self.folder = job.journal.folder / PICTURES
        self.squares = torch.empty(0)
        """The first images of the data, which are the same at every step."""

    def start(self, state: TrainingState) -> None:
        if not is_main():
            return
        shards, size = self.job.run.shards, self.job.config.image_encoder.image_size
        self.squares = middle_squares(shards, range(len(shards)), image_size=size, count=NUM_IMAGES)
        if state.step == 0:
            self._draw(state, None)

    def is_due(self, done: int) -> bool:
        return is_main() and done in self.steps

    def __call__(self, state: TrainingState, batch: Batch, metrics: Metrics) -> None:
        self._draw(state, batch)

    def _draw(self, state: TrainingState, batch: Batch | None) -> None:
        objective = state.objective
        was_training = objective.training
        objective.eval()
        with torch.no_grad():
            for name, picture in self._pictures(state, objective, batch):
                file = self.folder / f"{name}_{state.step:07d}.png"
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    picture.save(file)
                except OSError as error:  # no reason to stop a training
                    print(f"[{self.job.label}] no picture in {self.folder}: {error.strerror}", flush=True)
                    break
                self.job.journal.image(f"view/{name}", file, step=state.step)
        objective.train(was_training)

    def _pictures(
        self, state: TrainingState, objective: Objective, batch: Batch | None
    ) -> Iterator[tuple[str, Image.Image]]:
        config, images = self.job.config, self._images(objective)
        progress = min(1.0, state.step / max(1, config.num_masked_steps))
        yield "masks", self._masks(state, objective, images, min(progress, 1 - 1e-6))
        if (lines := schedules(state.mask, progress)) is not None:
            yield "schedules", lines
        if state.step == 0 and (table := self.job.run.document_frequency) is not None:
            yield "frequencies", rank_frequency({"captions": table})
        rebuilt = reconstructions(
            objective,
            images,
            normalization=config.data.normalization,
            progress=min(progress, 1 - 1e-6),
            generator=self._generator(images),
            image_scale=self._scale,
        )
        if rebuilt is not None:
            yield "reconstructions", rebuilt
        if batch is not None and config.objective.encodes_text:
            pairs = take_rows(batch, slice(NUM_PAIRS))
            found = objective.encode_image(pairs.images), objective.encode_text(pairs.tokens, pairs.lengths)
            yield "similarity", similarity_matrix(*found)

    def _masks(
        self, state: TrainingState, objective: Objective, images: Tensor, progress: float
    ) -> Image.Image:
        found = look(state.mask, objective.mask_inputs(images), progress=progress, seed=self.job.config.seed)
        shown = denormalize(images, self.job.config.data.normalization)
        return choice_panel(shown, found.choice, ~found.hidden, image_scale=self._scale)

    @property
    def _scale(self) -> int:
        return max(1, 128 // self.job.config.image_encoder.image_size)

    def _generator(self, images: Tensor) -> torch.Generator:
        return torch.Generator(images.device).manual_seed(mix_seeds(self.job.config.seed, 0))

    def _images(self, objective: Objective) -> Tensor:
        device = next(objective.parameters()).device
        return normalize(self.squares.to(device), self.job.config.data.normalization)
