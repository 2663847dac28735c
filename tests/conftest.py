import os

# A machine with few cores runs many small tensors: threads cost more than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
