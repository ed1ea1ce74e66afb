"""Keys and values of many rows that end at different times: rows leave, and others join."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

ROOM = 64
"""Columns that are allocated ahead."""

Part = tuple[Cache, Tensor]
"""A cache, and the indices of the rows of it that are taken, shape (rows,); a row may be taken repeatedly."""


class RoomyLayer(DynamicLayer):
    """Keys and values with room for more tokens: `DynamicLayer` copies all earlier ones with every token.

    It holds all tokens also where attention has a sliding window: the model's mask then hides earlier ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens.

        Args:
            key_states: Shape (rows, heads, T, d).
            value_states: Shape (rows, heads, T, d′).
            args: Of the base class; not used.
            kwargs: Of the base class; not used.

        Returns:
            Keys and values of all tokens so far; views.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        self._key_room, self.keys = _append(self._key_room, used, key_states)
        self._value_room, self.values = _append(self._value_room, used, value_states)
        return self.keys, self.values

    def take(self, parts: Sequence[tuple[DynamicLayer, Tensor]], width: int) -> None:
        """Take over the last `width` columns of rows of other layers, aligned at the right, else zeros."""
        first = parts[0][0]
        self.lazy_initialization(first.keys, first.values)
        self._key_room, self.keys = _align([(layer.keys, rows) for layer, rows in parts], width)
        self._value_room, self.values = _align([(layer.values, rows) for layer, rows in parts], width)


def new_cache(n_layers: int) -> Cache:
    """Return an empty cache of `RoomyLayer`s."""
    return Cache(layers=[RoomyLayer() for _ in range(n_layers)])


def take_rows(parts: Sequence[Part], width: int) -> Cache:
    """Return a cache with the rows of the parts, one part after the other.

    Args:
        parts: Caches of one model, and which rows of each.
        width: Columns to keep: the last ones; rows of narrower parts are padded with zeros on their left.

    Returns:
        The cache; it shares no memory with the parts.
    """
    cache = new_cache(len(parts[0][0].layers))
    for number, layer in enumerate(cache.layers):
        layer.take([(part.layers[number], rows) for part, rows in parts], width)
    return cache


def has_key_values_alone(model: Any) -> bool:
    """Tell whether keys and values are all that the model keeps of earlier tokens: no recurrent state."""
    return _layer_types(model) <= {DynamicLayer, DynamicSlidingWindowLayer}


def has_full_attention_alone(model: Any) -> bool:
    """Tell whether every layer attends to all earlier tokens, wherever they stand in the cache."""
    # GPT-Neo's local attention is in no other field of its configuration.
    local = "local" in (getattr(model.config, "attention_layers", None) or [])
    return _layer_types(model) == {DynamicLayer} and not local


def count_layers(model: Any) -> int:
    """Return how many layers of the model have keys and values."""
    # Fewer than the model has where layers share theirs.
    layers = DynamicCache(config=model.config).layers
    return len(layers) or int(model.config.get_text_config(decoder=True).num_hidden_layers)


def _layer_types(model: Any) -> set[type]:
    layers = DynamicCache(config=model.config).layers
    # A configuration without kinds of layers is of a model with full attention.
    return {type(layer) for layer in layers} or {DynamicLayer}


def _append(room: Tensor | None, used: int, states: Tensor) -> tuple[Tensor, Tensor]:
    end = used + states.shape[-2]
    if room is None or end > room.shape[-2]:
        rows, heads, _, width = states.shape
        larger = states.new_zeros(rows, heads, end + ROOM, width)
        if room is not None:
            larger[:, :, :used] = room[:, :, :used]
        room = larger
    room[:, :, used:end] = states
    return room, room[:, :, :end]


def _align(parts: Sequence[tuple[Tensor, Tensor]], width: int) -> tuple[Tensor, Tensor]:
    first = parts[0][0]
    n_rows = sum(len(rows) for _, rows in parts)
    # Zeros, for what is masked is multiplied by 0, and 0 × NaN is NaN.
    room = first.new_zeros(n_rows, first.shape[1], width + ROOM, first.shape[3])
    start = 0
    for states, rows in parts:
        kept = states[:, :, -width:].index_select(0, rows)
        room[start : start + len(rows), :, width - kept.shape[2] : width] = kept
        start += len(rows)
    return room, room[:, :, :width]
