"""The captioning decoder, against PyTorch's own and by what each token may be told from."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.core.batch import Batch
from vlp.encoders.text import TextConfig
from vlp.encoders.text_decoder import DecoderBlock, TextDecoder
from vlp.encoders.vit import ViTConfig
from vlp.losses import in_parts
from vlp.masking import Slots
from vlp.masking.none import NoMask
from vlp.objectives import Vocabulary
from vlp.objectives.captioner import Captioner, CaptionerConfig, caption_errors
from vlp.objectives.siglip2 import SigLIP2Config

TEXT = TextConfig(width=32, depth=2, num_heads=4)
B, T, S, K = 4, 6, 5, 20


@torch.no_grad()
def theirs_of(block: DecoderBlock) -> nn.TransformerDecoderLayer:
    """PyTorch's layer with the weights of ours."""
    layer = nn.TransformerDecoderLayer(32, 4, 128, 0.0, F.gelu, batch_first=True, norm_first=True).eval()
    layer.self_attn.in_proj_weight.copy_(block.qkv.weight)  # pyright: ignore[reportCallIssue]
    layer.self_attn.in_proj_bias.copy_(block.qkv.bias)  # pyright: ignore[reportCallIssue]
    layer.self_attn.out_proj.load_state_dict(block.proj.state_dict())
    layer.multihead_attn.in_proj_weight.copy_(torch.cat([block.cross.q.weight, block.cross.kv.weight]))  # pyright: ignore[reportCallIssue]
    layer.multihead_attn.in_proj_bias.copy_(torch.cat([block.cross.q.bias, block.cross.kv.bias]))  # pyright: ignore[reportCallIssue]
    layer.multihead_attn.out_proj.load_state_dict(block.cross.proj.state_dict())
    for name in ("norm1", "norm2", "norm3"):
        getattr(layer, name).load_state_dict(getattr(block, name).state_dict())
    layer.linear1.load_state_dict(block.mlp[0].state_dict())
    layer.linear2.load_state_dict(block.mlp[2].state_dict())
    return layer


@pytest.fixture
def decoder() -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(TEXT, memory_width=24, vocab_size=K, context_length=8).eval()


@pytest.fixture
def batch() -> Batch:
    generator = Generator().manual_seed(0)
    tokens = torch.randint(1, K, (B, T), generator=generator)
    lengths = torch.tensor([6, 3, 4, 5])
    return Batch(torch.zeros(B, 3, 8, 8), tokens.masked_fill(torch.arange(T) >= lengths[:, None], 0), lengths)


@pytest.fixture
def memory() -> Tensor:
    return torch.randn(B, S, 24, generator=Generator().manual_seed(1))


@torch.no_grad()
def test_the_decoder_is_that_of_pytorch(decoder: TextDecoder, batch: Batch, memory: Tensor) -> None:
    is_padding = torch.arange(S) >= torch.tensor([[5], [2], [3], [5]])
    found = decoder(batch.tokens, batch.lengths, memory, attends=~is_padding[:, None, None])
    x = decoder.token_embed(batch.tokens) + decoder.positions[:T]
    causal = nn.Transformer.generate_square_subsequent_mask(T)
    for block in decoder.blocks:
        assert isinstance(block, DecoderBlock)
        layer = theirs_of(block)
        x = layer(
            x,
            decoder.to_memory(memory),
            tgt_mask=causal.isinf(),
            memory_key_padding_mask=is_padding,
        )
    torch.testing.assert_close(found, decoder.norm(x), atol=1e-5, rtol=1e-5)


def errors_of(decoder: TextDecoder, batch: Batch, memory: Tensor, parallel: bool) -> Tensor:
    slots = Slots(torch.arange(S - 1).expand(B, -1), None)
    return caption_errors(decoder, batch, memory, slots, torch.full((B,), parallel))


@torch.no_grad()
def test_the_error_is_the_mean_over_the_tokens_of_each_caption(
    decoder: TextDecoder, batch: Batch, memory: Tensor
) -> None:
    found = errors_of(decoder, batch, memory, parallel=False)
    for i in range(B):
        length = int(batch.lengths[i])
        states = decoder(
            batch.tokens[i : i + 1, : length - 1], batch.lengths[i : i + 1] - 1, memory[i : i + 1]
        )
        logits = states[0] @ decoder.token_embed.weight.T
        expected = F.cross_entropy(logits, batch.tokens[i, 1:length])
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_parallel_caption_is_told_from_the_image_alone(
    decoder: TextDecoder, batch: Batch, memory: Tensor
) -> None:
    others = torch.randint(1, K, (B, T), generator=Generator().manual_seed(5))
    parallel, causal = torch.full((B,), True), None
    for is_parallel in (parallel, causal):
        states = [
            decoder(tokens, batch.lengths, memory, is_parallel=is_parallel)
            for tokens in (batch.tokens, others)
        ]
        assert torch.equal(*states) == (is_parallel is not None)
    longer = F.pad(batch.tokens, (0, 1))
    states = [decoder(x, batch.lengths, memory, is_parallel=parallel) for x in (batch.tokens, longer)]
    real = torch.arange(T) < batch.lengths[:, None]
    torch.testing.assert_close(states[0][real], states[1][:, :T][real])


def test_logits_in_parts_change_no_gradient(
    decoder: TextDecoder, batch: Batch, memory: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for numbers in (2**24, 3 * K):
        monkeypatch.setattr(in_parts, "MAX_PRODUCTS", numbers)
        loss = errors_of(decoder, batch, memory, parallel=False).mean()
        weights = [decoder.get_parameter(name) for name in ("token_embed.weight", "blocks.0.qkv.weight")]
        found.append(torch.autograd.grad(loss, weights))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_so_many_captions_are_parallel(share: float, batch: Batch) -> None:
    encoder = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, num_heads=2).build()
    config = CaptionerConfig(decoder=TEXT, parallel_share=share)
    model = config.build(encoder, NoMask(), vocabulary=Vocabulary(K, 8))
    assert isinstance(model, Captioner)
    seen: list[Tensor] = []
    model.decoder.register_forward_hook(
        lambda _, inputs, kwargs, output: seen.append(kwargs["is_parallel"]), with_kwargs=True
    )
    many = Batch(torch.randn(400, 3, 16, 16), batch.tokens.repeat(100, 1), batch.lengths.repeat(100))
    model(many, progress=0.0, generator=Generator().manual_seed(0))
    assert seen[0].float().mean().item() == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


@torch.no_grad()
def test_siglip_2_is_the_sum_of_both(batch: Batch) -> None:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, num_heads=2).build()
    config = SigLIP2Config(embed_dim=16, text_encoder=TEXT, decoder=TEXT, caption_weight=2.0)
    model = config.build(encoder, NoMask(), vocabulary=Vocabulary(K, 8))
    images = batch._replace(images=torch.randn(B, 3, 16, 16))
    loss, metrics = model(images, progress=0.0, generator=Generator().manual_seed(0))
    both = metrics["contrastive_loss"] + 2 * metrics["caption_loss"]
    torch.testing.assert_close(loss, both)
    embeddings = model.encode_image(images.images), model.encode_text(batch.tokens, batch.lengths)
    logits = 10 * embeddings[0] @ embeddings[1].T - 10
    signs = 2 * torch.eye(B) - 1
    expected = -F.logsigmoid(signs * logits).sum() / B
    torch.testing.assert_close(metrics["contrastive_loss"], expected, atol=1e-4, rtol=1e-4)
