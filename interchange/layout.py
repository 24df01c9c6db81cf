"""Where other formats keep the same weights: their names, and their order of the d_model axis."""

import torch

# Ours, then the name that fairseq gave and transformers' Marian and BART kept.
FAIRSEQ_NAMES = {
    "self_attention.w_q": "self_attn.q_proj",
    "self_attention.w_k": "self_attn.k_proj",
    "self_attention.w_v": "self_attn.v_proj",
    "self_attention.w_o": "self_attn.out_proj",
    "self_attention_norm": "self_attn_layer_norm",
    "encoder_decoder_attention.w_q": "encoder_attn.q_proj",
    "encoder_decoder_attention.w_k": "encoder_attn.k_proj",
    "encoder_decoder_attention.w_v": "encoder_attn.v_proj",
    "encoder_decoder_attention.w_o": "encoder_attn.out_proj",
    "encoder_decoder_attention_norm": "encoder_attn_layer_norm",
    "feed_forward.w_1": "fc1",
    "feed_forward.w_2": "fc2",
    "feed_forward_norm": "final_layer_norm",
}
ENCODER_PARTS = [part for part in FAIRSEQ_NAMES if not part.startswith("encoder_decoder_attention")]
State = dict[str, torch.Tensor]


def layer_parts(encoder_layers: int, decoder_layers: int) -> dict[str, str]:
    """Every linear map and norm of the layers: our name, without `.weight` or `.bias`, to fairseq's and Marian's."""
    return {
        f"model.{half}.layers.{index}.{ours}": f"model.{half}.layers.{index}.{FAIRSEQ_NAMES[ours]}"
        for half, layers, parts in (
            ("encoder", encoder_layers, ENCODER_PARTS),
            ("decoder", decoder_layers, list(FAIRSEQ_NAMES)),
        )
        for index in range(layers)
        for ours in parts
    }


def halves_from_interleaved(d_model: int) -> torch.Tensor:
    """The order in which the interleaved sinusoids of §3.5 become all sines, then all cosines (d_model,).

    `x[..., halves_from_interleaved(d)]` takes our layout to that of the authors' code, of Marian and of MarianMT;
    `x[..., halves_from_interleaved(d).argsort()]` goes back.
    """
    return torch.cat([torch.arange(0, d_model, 2), torch.arange(1, d_model, 2)])


def reorder_d_model(state: State, order: torch.Tensor) -> State:
    """Reorders the d_model axis of every weight of our model, which leaves the model's logits as they are.

    The matrices that read a state of d_model have it as their input axis, those that write one as their output axis;
    norms and the shared embedding have it too. Biases inside attention heads and the feed-forward do not.

    Args:
        state: Weights of `Transformer2017ForConditionalGeneration` by name.
        order: A permutation (d_model,).
    """
    reordered = {}
    for name, weight in state.items():
        part, kind = name.rsplit(".", 1)
        writes = part.endswith((".w_o", ".w_2"))
        if part == "lm_head" and kind == "bias":
            reordered[name] = weight
        elif part.endswith("norm") or (writes and kind == "bias"):
            reordered[name] = weight[order]
        elif writes:
            reordered[name] = weight[order, :]
        elif kind == "weight":
            reordered[name] = weight[:, order]
        else:
            reordered[name] = weight
    return {name: weight.contiguous() for name, weight in reordered.items()}
