"""Features of more images than memory holds go through the protocols of frozen features."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.paths import REPOSITORY

NUM_TRAIN, NUM_TEST, WIDTH = 75_000, 300, 256
MEGABYTES = 65
"""May be taken beside what the protocol needs for a few images; the features have 77, and 154 in float64."""
PROTOCOLS = {
    "knn": "knn_outcomes(*parts, k=[20], num_classes=3)[20]",
    "few_shot": "few_shot_outcomes(*parts, shots=NUM_TRAIN, num_classes=3)",
    "linear_probe": "linear_probe_outcomes(*parts, penalties=(1.0,), num_classes=3)",
    "in_memory": "linear_probe_outcomes(parts[0].double(), *parts[1:], penalties=(1.0,), num_classes=3)",
}
PROGRAM = """
import resource, sys
import numpy as np, torch
from vlp.metrics.few_shot import few_shot_outcomes
from vlp.metrics.knn import knn_outcomes
from vlp.metrics.linear_probe import linear_probe_outcomes

torch.set_num_threads(1)
NUM_TRAIN, megabytes = map(int, sys.argv[1:])
parts = []
for name in ("train", "test"):
    features = torch.from_numpy(np.load(f"{name}.npy", mmap_mode="r+"))
    parts += [features, torch.from_numpy(np.load(f"{name}_labels.npy"))]
whole, parts = parts, [part[:300] for part in parts]
PROTOCOL  # loads what is needed
parts = whole
(used,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, ((used + 1024 * megabytes) * 1024,) * 2)
print(PROTOCOL.metrics()["acc1"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clusters of features, on a disk."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    centres = rng.standard_normal((3, WIDTH), dtype=np.float32)
    for name, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = rng.integers(0, 3, count)
        np.save(folder / f"{name}_labels.npy", labels)
        noise = rng.standard_normal((count, WIDTH), dtype=np.float32)
        np.save(folder / f"{name}.npy", centres[labels] + noise)
    return folder


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_is_bounded(folder: Path, protocol: str) -> None:
    program = PROGRAM.replace("PROTOCOL", PROTOCOLS[protocol])
    done = subprocess.run(
        [sys.executable, "-c", program, str(NUM_TRAIN), str(MEGABYTES)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    if protocol == "in_memory":  # the bound is one
        assert "can't allocate memory" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == 1.0
