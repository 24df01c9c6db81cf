"""The cache: keys and values of the source, and of the target so far.

A sentence's hypotheses share one pool of target entries. Where transformers copies the cache whenever beams change
places, here only the mask that says which entries a beam sees is reordered, and entries that no beam sees any more
are dropped now and then. The beams of a sentence share most of their past, so the pool is little longer than one
hypothesis.
"""

import torch


class DecodingCache:
    """Keys and values of all layers for a number of sentences with the same number of beams.

    Args:
        source: For each layer, the source's keys and values side by side (sentences, source_len, width).
        source_mask: Added to the scores of the source (sentences, 1, 1, source_len); None without padding.
        beams: Hypotheses of a sentence.
        key_width: heads * d_k, where a layer's keys end and its values begin.
        headroom: Positions to make room for at a time.
    """

    def __init__(
        self,
        source: list[torch.Tensor],
        source_mask: torch.Tensor | None,
        beams: int,
        key_width: int,
        headroom: int = 16,
    ) -> None:
        self.beams = beams
        self.key_width = key_width
        self.headroom = headroom * beams
        self.used = 0  # entries in the pool, seen or not
        self.source_pool = source
        self.source_mask = source_mask
        sentences, _, width = source[0].shape
        self.own_pool = [source[0].new_empty(sentences, self.headroom, width) for _ in source]
        self.visible = source[0].new_full((sentences, beams, self.headroom), -torch.inf)
        self._identity = torch.where(torch.eye(beams, dtype=torch.bool, device=source[0].device), 0.0, -torch.inf)

    @property
    def own_mask(self) -> torch.Tensor:
        """Added to the scores: 0 where a beam sees an entry (sentences, 1, beams, used)."""
        return self.visible[:, None, :, : self.used]

    def open_position(self) -> None:
        """Makes room for one entry of each beam, which only that beam sees."""
        if self.used + self.beams > self.visible.shape[2]:
            self.select(None)
        self.visible[:, :, self.used : self.used + self.beams] = self._identity
        self.used += self.beams

    def append(self, layer: int, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes new keys and values (sentences * beams, width); gives all of that layer (sentences, used, ...)."""
        pool = self.own_pool[layer]
        pool[:, self.used - self.beams : self.used] = entries.unflatten(0, (-1, self.beams))
        return pool[:, : self.used, : self.key_width], pool[:, : self.used, self.key_width :]

    def source(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the source (sentences, source_len, ...)."""
        pool = self.source_pool[layer]
        return pool[..., : self.key_width], pool[..., self.key_width :]

    def follow(self, parents: torch.Tensor) -> None:
        """Lets each beam see what its parent saw (sentences, beams)."""
        seen = self.visible[:, :, : self.used]
        self.visible[:, :, : self.used] = seen.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.used))

    def select(self, sentences: torch.Tensor | None) -> None:
        """Keeps some sentences, all if None, and the entries that their beams see; makes new headroom."""
        if sentences is not None:
            self.visible = self.visible[sentences]
            self.source_pool = [pool[sentences] for pool in self.source_pool]
            self.source_mask = None if self.source_mask is None else self.source_mask[sentences]
        rows = torch.arange(len(self.visible), device=self.visible.device) if sentences is None else sentences
        seen = (self.visible[:, :, : self.used] == 0).any(1)  # (sentences, used)
        kept = int(seen.sum(1).max())
        order = seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :kept]
        visible = self.visible.new_full((len(order), self.beams, kept + self.headroom), -torch.inf)
        visible[:, :, :kept] = self.visible.gather(2, order.unsqueeze(1).expand(-1, self.beams, -1))
        entries = (rows.unsqueeze(1) * self.visible.shape[2] + order).flatten()
        for layer, pool in enumerate(self.own_pool):
            moved = pool.new_empty(len(order), kept + self.headroom, pool.shape[2])
            moved[:, :kept] = pool.flatten(0, 1).index_select(0, entries).unflatten(0, (len(order), kept))
            self.own_pool[layer] = moved
        self.visible, self.used = visible, kept

    def replace(self, slots: torch.Tensor, source: list[torch.Tensor], mask: torch.Tensor | None) -> None:
        """Gives slots to new sentences, whose sources are no longer than the pool's.

        Args:
            slots: Which sentences end (new,).
            source: For each layer (new, new_source_len, width).
            mask: Added to the scores of the new sources (new, 1, 1, new_source_len); None without padding.
        """
        length = source[0].shape[1]
        for pool, new in zip(self.source_pool, source, strict=True):
            pool[slots, :length] = new
        if self.source_mask is None:
            self.source_mask = source[0].new_zeros(len(self.visible), 1, 1, self.source_pool[0].shape[1])
        self.source_mask[slots] = -torch.inf
        self.source_mask[slots, ..., :length] = 0.0 if mask is None else mask
        self.clear(slots)

    def clear(self, slots: torch.Tensor) -> None:
        """Hides all entries of some sentences."""
        self.visible[slots] = -torch.inf
