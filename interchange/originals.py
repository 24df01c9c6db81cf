"""The originals of checkpoints, run by code of transformers and of torch, to compare imports with."""

import torch
from torch import nn
from transformer2017.configuration import Transformer2017Config
from transformer2017.modeling.embeddings import sinusoidal_encoding
from transformers import FSMTConfig, FSMTForConditionalGeneration

from .layout import State, load_all_weights
from .report import Sources


def fsmt_from(
    config: Transformer2017Config, state: State, *, scaled: bool, learned: bool
) -> FSMTForConditionalGeneration:
    """FSMT, transformers' port of fairseq's transformer, with the weights of a checkpoint.

    Args:
        config: Of the model that was made of the checkpoint.
        state: The checkpoint's weights by fairseq's names.
        scaled: Whether embeddings are multiplied by sqrt(d_model).
        learned: Whether the checkpoint has tables of positions; FSMT makes fairseq's sinusoids itself.
    """
    original = FSMTForConditionalGeneration(
        FSMTConfig(
            langs=["source", "target"],
            src_vocab_size=config.vocab_size,
            tgt_vocab_size=config.vocab_size,
            d_model=config.d_model,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            encoder_ffn_dim=config.d_ff,
            decoder_ffn_dim=config.d_ff,
            encoder_attention_heads=config.num_heads,
            decoder_attention_heads=config.num_heads,
            activation_function=config.activation_function,
            max_position_embeddings=config.learned_positions,
            scale_embedding=scaled,
        )
    ).eval()
    tables = {f"{half}.embed_positions.weight" for half in ("encoder", "decoder")}
    unknown = ("version", "_float_tensor", "embed_out", *tables)
    weights = {f"model.{name}": weight for name, weight in state.items() if not name.endswith(unknown)}
    shared = state["encoder.embed_tokens.weight"]
    same = dict.fromkeys(("model.decoder.embed_tokens.weight", "model.decoder.output_projection.weight"), shared)
    load_all_weights(original, {**weights, **same}, ("embed_positions", "lm_head"))
    if learned:
        for half in ("encoder", "decoder"):
            table = getattr(original.model, half).embed_positions.weight.data
            table.copy_(state[f"{half}.embed_positions.weight"][: len(table)])
    return original


class TorchOriginal(nn.Module):
    """torch's `nn.Transformer` between one shared matrix, with the weights of a state dict.

    Args:
        config: Of the model that was made of the state dict.
        inner: Weights of the `nn.Transformer` by its own names.
        own: Those of the model, for the matrix and the bias around it.
    """

    def __init__(self, config: Transformer2017Config, inner: State, own: State) -> None:
        super().__init__()
        self.d_model = config.d_model
        self.shared, self.bias = own["model.shared.weight"], own.get("lm_head.bias")
        norms = {half: f"{half}.norm.weight" in inner for half in ("encoder", "decoder")}
        self.transformer = nn.Transformer(
            config.d_model,
            config.num_heads,
            config.encoder_layers - norms["encoder"],  # ours has one more, which stands for the norm
            config.decoder_layers - norms["decoder"],
            config.d_ff,
            activation=config.activation_function,
            batch_first=True,
        )
        for half, norm in norms.items():
            if not norm:
                getattr(self.transformer, half).norm = None
        self.transformer.load_state_dict(inner)
        self.eval()

    def embedded(self, ids: list[int]) -> torch.Tensor:
        """Embeddings times sqrt(d_model), and positions (1, length, d_model)."""
        positions = sinusoidal_encoding(torch.arange(len(ids)), self.d_model)
        return (self.shared[ids] * self.d_model**0.5 + positions)[None].float()

    @torch.no_grad()
    def logits(self, sources: Sources, targets: Sources) -> list[torch.Tensor]:
        """Of each target, (target_len, vocabulary); a sentence at a time, so that nothing is padded."""
        rows = []
        for source, target in zip(sources, targets, strict=True):
            causal = nn.Transformer.generate_square_subsequent_mask(len(target))
            states = self.transformer(self.embedded(source), self.embedded(target), tgt_mask=causal)[0]
            rows.append(nn.functional.linear(states, self.shared, self.bias).double())
        return rows
