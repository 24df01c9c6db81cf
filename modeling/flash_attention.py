"""What transformers' flash attention needs in order to give what the other implementations give."""

from torch import Tensor, nn


def fit_flash_attention(
    implementation: str | None,
    query: Tensor,  # (batch, heads, target_len, d_k)
    key: Tensor,  # (batch, heads, source_len, d_k)
    value: Tensor,  # (batch, heads, source_len, d_v)
    mask: Tensor | None,  # flash attention's: True for a key to see (batch, source_len); None: all
    of_memory: bool,  # whether keys and values come from the encoder
) -> tuple[str | None, Tensor, Tensor, Tensor | None]:
    """Returns the implementation to call, with queries, keys and mask in its form.

    transformers 5.23 takes the mask of the keys to be the queries' too, so that padding in the source would hide
    tokens of the target: there SDPA stands in, on the same numbers. And it cuts values down to the width of the keys:
    where they are wider (rows B of Table 3), queries and keys are filled up with zeros, which leave the scores alone.
    """
    if implementation is None or "flash" not in implementation:
        return implementation, query, key, mask
    if of_memory and mask is not None:
        return "sdpa", query, key, mask[:, None, None].bool()  # (batch, 1, 1, source_len)
    if (wider := value.shape[-1] - key.shape[-1]) > 0:
        query, key = (nn.functional.pad(x, (0, wider)) for x in (query, key))  # (batch, heads, length, d_v)
    return implementation, query, key, mask
