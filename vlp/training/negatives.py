"""What the pairs of a contrastive batch are told from."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.core.batch import Batch
from vlp.core.distributed import all_gather


@torch.no_grad()
def caption_metrics(batch: Batch, *, context_length: int) -> dict[str, Tensor]:
    """How the captions of the global batch differ, as the model reads them. A collective.

    Returns:
        `negatives`: () other captions of the batch that differ from a pair's own, mean over the pairs.
        `duplicate_captions`: () share of the pairs whose caption is also another pair's.
    """
    padding = context_length - batch.tokens.shape[1]
    rows = torch.cat([F.pad(batch.tokens, (0, padding)), batch.lengths[:, None]], dim=1)
    _, places, counts = all_gather(rows).unique(dim=0, return_inverse=True, return_counts=True)
    copies = counts[places]
    return {
        "negatives": (len(copies) - copies).float().mean(),
        "duplicate_captions": (copies > 1).float().mean(),
    }
