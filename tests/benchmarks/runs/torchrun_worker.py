"""One worker of a run as torchrun starts it: our training loop, without Ray's cluster, controller and actors.

torchrun --nproc-per-node 2 torchrun_worker.py JOB    JOB is a pickled TrainJob
"""

import pickle
import sys
from pathlib import Path

from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from pipelines.training.loop import train_worker


def main() -> None:
    """Train; Ray Train without workers takes the process group of torchrun's environment."""
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    trainer = TorchTrainer(
        train_worker, train_loop_config={"job": job}, scaling_config=ScalingConfig(num_workers=0)
    )
    trainer.fit()


if __name__ == "__main__":
    main()
