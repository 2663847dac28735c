"""Which captions of a batch are told apart, against a loop over all pairs of them."""

import torch

from vlp.core.batch import Batch
from vlp.training.negatives import caption_metrics


def test_each_pair_is_compared_with_all_others() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        lengths = torch.randint(1, 4, (12,), generator=generator)
        tokens = torch.randint(0, 2, (12, 3), generator=generator)  # 0 is a word, too
        tokens *= torch.arange(3) < lengths[:, None]
        captions = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
        others = [[b for j, b in enumerate(captions) if j != i] for i in range(12)]
        found = caption_metrics(Batch(torch.empty(12, 3, 1, 1), tokens, lengths), context_length=5)
        different = [sum(b != a for b in rest) for a, rest in zip(captions, others, strict=True)]
        assert found["negatives"].item() == torch.tensor(different).float().mean()
        has_copy = [a in rest for a, rest in zip(captions, others, strict=True)]
        assert found["duplicate_captions"].item() == torch.tensor(has_copy).float().mean()


def test_without_duplicates_every_other_pair_is_a_negative() -> None:
    batch = Batch(torch.empty(4, 3, 1, 1), torch.arange(8).view(4, 2), torch.full((4,), 2))
    found = caption_metrics(batch, context_length=2)
    assert {name: value.item() for name, value in found.items()} == {"negatives": 3, "duplicate_captions": 0}
