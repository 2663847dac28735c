import os
from pathlib import Path

# Before torch and Ray are imported: a machine with few cores runs many small tensors here, so threads cost
# more than they save; and Ray should start fast, quietly, and without writing a token to the home folder.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
}

import pytest
import torch

torch.set_num_threads(1)

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    """Folder of real photographs and captions; tests that need it are skipped where it is absent."""
    folder = (REAL_DATA / "flickr8k").resolve()
    if not folder.is_dir():
        pytest.skip("needs the Flickr8k photographs")
    return folder


@pytest.fixture(scope="session")
def ray_cluster():
    """One Ray for all tests that need one; more CPUs than cores, so that nothing waits for a slot."""
    from pipelines.cluster import connect
    from pipelines.config import MachineConfig

    connect(MachineConfig(), min_cpus=4)
    yield
    import ray

    ray.shutdown()
