import os
from pathlib import Path

from tests.paths import SHARED_DATA

# Before torch and Ray are imported: a machine with few cores runs many small tensors here, so threads cost
# more than they save; and Ray should start fast, quietly, and without writing a token to the home folder.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_worker_niceness": "0",  # 15 otherwise: its workers would wait for the tests of another process
    # Of the object store of these tests, which asks for any; Ray's processes inherit them.
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_EC2_METADATA_DISABLED": "true",
}

import pytest
import torch
from xdist.remote import Producer

from tests.scheduling import ByFile, begins

torch.set_num_threads(1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """How tests are handed out to several processes."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: begins(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    """Folder of real photographs and captions; tests that need it are skipped where it is absent."""
    folder = (SHARED_DATA / "flickr8k").resolve()
    if not folder.is_dir():
        pytest.skip("needs the Flickr8k photographs")
    return folder


@pytest.fixture(scope="session")
def ray_cluster():
    """One Ray for all tests that need one; more CPUs than cores, so that nothing waits for a slot."""
    from pipelines.compute.cluster import connect
    from pipelines.config.machine import MachineConfig

    connect(MachineConfig(), min_cpus=4)
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def object_store():
    """A server that speaks S3; tests that need it are skipped where none is installed."""
    from tests.servers.object_store import serving

    with serving(os.environ) as store:
        yield store
