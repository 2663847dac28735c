"""Retrieval metrics against a full-matrix count and tables worked out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from vlp.metrics.outcomes import named_metrics
from vlp.metrics.retrieval import retrieval_outcomes


def retrieval_metrics(*pairs, **settings):
    return named_metrics(retrieval_outcomes(*pairs, **settings))


def random_pairs(num_images=40, captions_per_image=5, noise=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = F.normalize(torch.randn(num_images, 16, generator=generator), dim=1)
    image_of_text = torch.arange(num_images).repeat(captions_per_image)
    texts = images[image_of_text] + noise / 4 * torch.randn(len(image_of_text), 16, generator=generator)
    return images, F.normalize(texts, dim=1), image_of_text


def metrics_by_sorting(images, texts, image_of_text):
    """Sorts every query's candidates: exact where no two similarities are equal."""
    similarity = images.numpy() @ texts.numpy().T
    is_match = np.arange(len(images))[:, None] == image_of_text.numpy()
    metrics = {}
    for direction, scores, matches in (
        ("image_to_text", similarity, is_match),
        ("text_to_image", similarity.T, is_match.T),
    ):
        ranks = []
        for row, match in zip(scores, matches, strict=True):
            best = max(score for score, hit in zip(row, match, strict=True) if hit)
            others = sorted((score for score, hit in zip(row, match, strict=True) if not hit), reverse=True)
            ranks.append(1 + sum(score > best for score in others))
        for k in (1, 5, 10):
            metrics[f"{direction}/recall@{k}"] = np.mean([rank <= k for rank in ranks])
        metrics[f"{direction}/median_rank"] = np.median(ranks)
    return metrics


@pytest.mark.parametrize("seed", range(3))
def test_equals_sorting_the_full_matrix(seed):
    pairs = random_pairs(seed=seed)
    metrics = retrieval_metrics(*pairs)
    assert metrics == pytest.approx(metrics_by_sorting(*pairs))
    assert 0 < metrics["image_to_text/recall@1"] < 1


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_a_hit_of_any_match_among_the_k_most_similar(k):
    """As clip_benchmark counts: a query is right if one of its positives is in the top k."""
    images, texts, image_of_text = random_pairs(seed=3)
    is_match = F.one_hot(image_of_text, len(images)).bool()  # (texts, images)
    similarity = texts @ images.T
    found = retrieval_metrics(images, texts, image_of_text)
    for direction, scores, matches in (
        ("text_to_image", similarity, is_match),
        ("image_to_text", similarity.T, is_match.T),
    ):
        hits = matches.gather(1, scores.topk(k, dim=1).indices).any(dim=1)
        assert found[f"{direction}/recall@{k}"] == pytest.approx(hits.double().mean().item())


def test_table_worked_out_by_hand():
    """Two images with two captions each; similarities are the entries of `images`, since texts are unit axes.

    Image 0 prefers the other image's caption 2, then its own 0: rank 2. Image 1 prefers its own caption 3:
    rank 1, whatever its caption 2 gets. Captions 0 and 1 prefer image 1 and caption 2 image 0, all wrongly;
    caption 3 prefers image 1, rightly.
    """
    images = torch.tensor([[0.6, 0.1, 0.9, 0.2], [0.7, 0.3, 0.4, 0.8]])
    metrics = retrieval_metrics(images, torch.eye(4), torch.tensor([0, 0, 1, 1]))
    assert metrics == pytest.approx(
        {
            "image_to_text/recall@1": 0.5,
            "image_to_text/recall@5": 1.0,
            "image_to_text/recall@10": 1.0,
            "image_to_text/median_rank": 1.5,
            "text_to_image/recall@1": 0.25,
            "text_to_image/recall@5": 1.0,
            "text_to_image/recall@10": 1.0,
            "text_to_image/median_rank": 2.0,
        }
    )


def test_perfect_embeddings_get_full_marks():
    metrics = retrieval_metrics(torch.eye(12), torch.eye(12).repeat(2, 1), torch.arange(12).repeat(2))
    assert {value for key, value in metrics.items()} == {1.0}


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_collapsed_embeddings_get_no_credit(value):
    image_of_text = torch.arange(20).repeat_interleave(5)
    images = torch.full((20, 8), value)
    metrics = retrieval_metrics(images, images[image_of_text], image_of_text)
    assert all(value == 0 for key, value in metrics.items() if "recall" in key)
    assert metrics["image_to_text/median_rank"] == 96
    assert metrics["text_to_image/median_rank"] == 20


@pytest.mark.parametrize("max_similarities", [1, 300, 1000, 10_000])
def test_memory_that_is_bounded_changes_nothing(max_similarities):
    pairs = random_pairs()
    bounded = retrieval_metrics(*pairs, max_similarities=max_similarities)
    assert bounded == pytest.approx(retrieval_metrics(*pairs))


def test_memory_is_bounded_whatever_the_size():
    """Ranks of 1,000 images and 5,000 captions, whose similarities would take 20 MB at once."""
    pairs = random_pairs(num_images=1000)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        retrieval_metrics(*pairs, max_similarities=1 << 19)
    events = profiled.events()
    assert events
    assert max(event.cpu_memory_usage for event in events) < 5 << 20


def test_order_of_captions_changes_nothing():
    images, texts, image_of_text = random_pairs()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(1))
    shuffled = retrieval_metrics(images, texts[order], image_of_text[order])
    assert shuffled == pytest.approx(retrieval_metrics(images, texts, image_of_text))


@pytest.mark.parametrize("image_of_text", [[0, 0], [0, 2], [-1, 0]])
def test_captions_must_cover_the_images(image_of_text):
    with pytest.raises(ValueError, match="each of the 2 images"):
        retrieval_metrics(torch.eye(2), torch.eye(2), torch.tensor(image_of_text))
