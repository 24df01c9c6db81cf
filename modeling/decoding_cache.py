"""The cache: keys and values of the source, and of the target so far.

A sentence's hypotheses share one pool of target entries. Where transformers copies the cache whenever beams change
places, here only the mask that says which entries a beam sees is reordered, and entries that no beam sees any more
are dropped now and then. The beams of a sentence share most of their past, so the pool is little longer than one
hypothesis.
"""

import torch


class DecodingCache:
    """Keys and values of all layers for a number of sentences with the same number of beams.

    Those of a head lie together, (sentences * heads, length, d), so that one batched product reads them in place.

    Args:
        source: For each layer, the source's keys and values (sentences * heads, source_len, d_k), (..., d_v).
        source_mask: Added to the scores of the source (sentences, 1, source_len); None without padding.
        beams: Hypotheses of a sentence.
        heads: Heads of the attention.
        headroom: Positions to make room for at a time.
    """

    def __init__(
        self,
        source: list[tuple[torch.Tensor, torch.Tensor]],
        source_mask: torch.Tensor | None,
        beams: int,
        heads: int,
        headroom: int = 16,
    ) -> None:
        self.beams = beams
        self.heads = heads
        self.headroom = headroom * beams
        self.used = 0  # entries in the pool, seen or not
        self.source = source
        self.source_mask = source_mask
        first = source[0][0]
        self.own = [tuple(x.new_empty(len(x), self.headroom, x.shape[2]) for x in pair) for pair in source]
        self.visible = first.new_full((len(first) // heads, beams, self.headroom), -torch.inf)
        self.own_mask = self.visible  # what the heads add to their scores (sentences * heads, beams, used)
        self.shown_source_mask = self._for_heads(source_mask)
        self._identity = torch.where(torch.eye(beams, dtype=torch.bool, device=first.device), 0.0, -torch.inf)

    def open_position(self) -> None:
        """Makes room for one entry of each beam, which only that beam sees."""
        if self.used + self.beams > self.visible.shape[2]:
            self.select(None)
        self.visible[:, :, self.used : self.used + self.beams] = self._identity
        self.used += self.beams
        self.own_mask = self._for_heads(self.visible[:, :, : self.used])

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes new keys and values (sentences * beams, heads * d); gives all of that layer (..., used, d)."""
        shown = []
        for pool, new in zip(self.own[layer], (keys, values), strict=True):
            by_head = new.view(-1, self.beams, self.heads, pool.shape[2]).transpose(1, 2)
            pool.unflatten(0, (-1, self.heads))[:, :, self.used - self.beams : self.used] = by_head
            shown.append(pool[:, : self.used])
        return shown[0], shown[1]

    def follow(self, parents: torch.Tensor) -> None:
        """Lets each beam see what its parent saw (sentences, beams)."""
        seen = self.visible[:, :, : self.used]
        self.visible[:, :, : self.used] = seen.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.used))

    def select(self, sentences: torch.Tensor | None) -> None:
        """Keeps some sentences, all if None, and the entries that their beams see; makes new headroom."""
        rows = torch.arange(len(self.visible), device=self.visible.device) if sentences is None else sentences
        if sentences is not None:
            self.visible = self.visible[rows]
            kept_rows = self._rows_of_heads(rows)
            self.source = [(keys[kept_rows], values[kept_rows]) for keys, values in self.source]
            self.source_mask = None if self.source_mask is None else self.source_mask[rows]
            self.shown_source_mask = self._for_heads(self.source_mask)
        seen = (self.visible[:, :, : self.used] == 0).any(1)  # (sentences, used)
        kept = int(seen.sum(1).max())
        order = seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :kept]
        visible = self.visible.new_full((len(order), self.beams, kept + self.headroom), -torch.inf)
        visible[:, :, :kept] = self.visible.gather(2, order.unsqueeze(1).expand(-1, self.beams, -1))
        order = order.repeat_interleave(self.heads, dim=0)  # (sentences * heads, kept)
        entries = (self._rows_of_heads(rows).unsqueeze(1) * self.visible.shape[2] + order).flatten()
        for layer, pair in enumerate(self.own):
            self.own[layer] = tuple(self._moved(pool, entries, kept) for pool in pair)
        self.visible, self.used = visible, kept

    def _moved(self, pool: torch.Tensor, entries: torch.Tensor, kept: int) -> torch.Tensor:
        """The entries of a pool at the beginning of a new one, with headroom behind them."""
        rows = len(entries) // kept if kept else len(pool)
        moved = pool.new_empty(rows, kept + self.headroom, pool.shape[2])
        moved[:, :kept] = pool.flatten(0, 1).index_select(0, entries).view(rows, kept, -1)
        return moved

    def replace(
        self, slots: torch.Tensor, source: list[tuple[torch.Tensor, torch.Tensor]], mask: torch.Tensor | None
    ) -> None:
        """Gives slots to new sentences, whose sources are no longer than the pool's.

        Args:
            slots: Which sentences end (new,).
            source: For each layer (new * heads, new_source_len, d_k), and (..., d_v).
            mask: Added to the scores of the new sources (new, 1, new_source_len); None without padding.
        """
        rows = self._rows_of_heads(slots)
        length = source[0][0].shape[1]
        for pools, news in zip(self.source, source, strict=True):
            for pool, new in zip(pools, news, strict=True):
                pool[rows, :length] = new
        if self.source_mask is None:
            self.source_mask = self.visible.new_zeros(len(self.visible), 1, self.source[0][0].shape[1])
        self.source_mask[slots] = -torch.inf
        self.source_mask[slots, :, :length] = 0.0 if mask is None else mask
        self.shown_source_mask = self._for_heads(self.source_mask)
        self.clear(slots)

    def clear(self, slots: torch.Tensor) -> None:
        """Hides all entries of some sentences."""
        self.visible[slots] = -torch.inf

    def _rows_of_heads(self, sentences: torch.Tensor) -> torch.Tensor:
        """Where the heads of these sentences lie (sentences * heads,)."""
        heads = torch.arange(self.heads, device=sentences.device)
        return (sentences.unsqueeze(1) * self.heads + heads).flatten()

    def _for_heads(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """A mask (sentences, ...) for each head (sentences * heads, ...)."""
        return None if mask is None else mask.repeat_interleave(self.heads, dim=0)
