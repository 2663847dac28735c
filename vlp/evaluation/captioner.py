"""A small language model that says what frozen image features show, in ClipCap's form (arXiv:2111.09734)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.metrics.fitting import Recipe, fit
from vlp.tokenizers import Tokenizer

BATCH_SIZE = 64
NextWord = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class DecoderSize:
    """How large a language model is."""

    prefix_length: int
    """Tokens that image features become."""
    width: int
    """Numbers per token."""
    depth: int
    """Blocks."""
    num_heads: int
    """Heads of attention per block."""


class CaptionDecoder(nn.Module):
    """A causal transformer whose first tokens are made of the features of an image."""

    def __init__(self, size: DecoderSize, *, num_features: int, vocab_size: int, context_length: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.size = size
        self.prefix = nn.Linear(num_features, size.prefix_length * size.width)
        self.token_embed = nn.Embedding(vocab_size, size.width)
        self.positions = nn.Parameter(torch.empty(size.prefix_length + context_length, size.width))
        self.blocks = nn.ModuleList(
            Block(size.width, size.num_heads, qkv_bias=True) for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.width)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the token after each: (B, D), (B, T) -> (B, T, V)."""
        prefix = self.prefix(features).unflatten(1, (self.size.prefix_length, self.size.width))
        x = torch.cat([prefix, self.token_embed(tokens)], dim=1)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x, is_causal=True)
        return self.norm(x[:, self.size.prefix_length :]) @ self.token_embed.weight.T


class Captioner:
    """A decoder with the words that it learned; features are standardized by those that it learned from."""

    def __init__(self, features: Tensor, tokenizer: Tokenizer, captions: Sequence[str]) -> None:
        """Take the words of some captions, and the scale of some features, (I, D)."""
        self.tokenizer = tokenizer
        self.mean, self.std = features.mean(dim=0), features.std(dim=0, correction=0) + 1e-5
        tokens, self.lengths = tokenizer.encode(captions)
        start, end = tokenizer.frame
        is_padding = torch.arange(tokens.shape[1]) >= self.lengths[:, None]
        self.ids, self.tokens = tokens.masked_fill(is_padding, end).unique(return_inverse=True)
        self.start, self.end = (int((self.ids == one).nonzero()) for one in (start, end))

    def fit(
        self, features: Tensor, images: Tensor, *, size: DecoderSize, recipe: Recipe, device: torch.device
    ) -> None:
        """Learn the captions.

        Args:
            features: (I, D).
            images: (C,) int64, the image of each caption.
        """
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.decoder = CaptionDecoder(
                size,
                num_features=features.shape[1],
                vocab_size=len(self.ids),
                context_length=self.tokens.shape[1],
            ).to(device)
        features = self._standardized(features)

        def loss(positions: Tensor) -> Tensor:
            tokens, lengths = self.tokens[positions].to(device), self.lengths[positions].to(device)
            logits = self.decoder(features[images[positions]].to(device), tokens[:, :-1])
            is_told = torch.arange(1, tokens.shape[1], device=device) < lengths[:, None]
            return F.cross_entropy(logits[is_told], tokens[:, 1:][is_told])

        fit(self.decoder, loss, len(images), recipe)
        self.decoder.eval()

    @torch.no_grad()
    def captions(self, features: Tensor, *, num_beams: int) -> list[str]:
        """A caption for each image: (I, D)."""
        device, found = self.decoder.positions.device, []
        for part in self._standardized(features).split(BATCH_SIZE):
            shown = part.to(device)

            def log_likelihoods(images: Tensor, tokens: Tensor, shown: Tensor = shown) -> Tensor:
                logits = self.decoder(shown[images], tokens)[:, -1].float()
                logits[:, self.start] = -torch.inf
                return logits.log_softmax(dim=1)

            begun = torch.full((len(part), 1), self.start, device=device)
            tokens = beam_search(
                log_likelihoods, begun, end=self.end, num_beams=num_beams, max_length=self.tokens.shape[1]
            )
            found += [self.tokenizer.decode(self.ids[row].tolist()) for row in tokens.cpu()]
        return found

    def _standardized(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std).float()


def beam_search(
    log_likelihoods: NextWord, begun: Tensor, *, end: int, num_beams: int, max_length: int
) -> Tensor:
    """The likeliest text of each image, by the mean log-likelihood of its tokens; one beam is greedy.

    Args:
        log_likelihoods: of every next token, (B, V), for images' positions, (B,), and texts, (B, T).
        begun: (I, 1) the first token.
        end: the token after which a text has only more of it.
        num_beams: texts of each image that are kept at each step.
        max_length: of a text.

    Returns:
        (I, T), T <= max_length.
    """
    num_images, device = len(begun), begun.device
    texts = begun[:, None]  # (I, K, T)
    sums, lengths = torch.zeros(num_images, 1, device=device), torch.ones(num_images, 1, device=device)
    while texts.shape[2] < max_length and not (texts[:, :, -1] == end).all():
        num_kept = texts.shape[1]
        images = torch.arange(num_images, device=device).repeat_interleave(num_kept)
        added = log_likelihoods(images, texts.flatten(0, 1)).unflatten(0, (num_images, num_kept))
        is_over = texts[:, :, -1] == end
        added[is_over] = -torch.inf
        added[..., end].masked_fill_(is_over, 0)
        sums, lengths = sums[:, :, None] + added, lengths + ~is_over
        means = (sums / lengths[:, :, None]).flatten(1)
        best = means.topk(min(num_beams, means.shape[1]), dim=1).indices
        parents, tokens = best // added.shape[2], best % added.shape[2]
        texts = torch.cat(
            [texts.gather(1, parents[:, :, None].expand(-1, -1, texts.shape[2])), tokens[:, :, None]], dim=2
        )
        sums, lengths = sums.flatten(1).gather(1, best), lengths.gather(1, parents)
    return texts[torch.arange(num_images, device=device), (sums / lengths).argmax(dim=1)]
