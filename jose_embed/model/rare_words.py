"""How often words outside of a model's vocabulary occurred in its training text."""

from __future__ import annotations

from jose_embed.errors import ModelError
from jose_embed.model.parts import RARE_COUNTS
from jose_embed.model.stored import StoredModel
from jose_embed.text.rare_words import unpacked_counts


def rare_counts(model: StoredModel) -> dict[str, int] | None:
    """The words of the training text that are not in the vocabulary, and how often each occurred.

    These are words below ``min_count``, stop words, and words beyond ``max_vocab``. With phrases, words are counted as
    they are after joining.

    Args:
        model: A model, in memory or mapped.

    Returns:
        The counts by word; ``None`` if the model does not store them: it was made by an older version, by ``jose
        strip``, on several machines, or of given vectors.

    Raises:
        ModelError: the stored counts are damaged.
    """
    packed = model.extra_arrays.get(RARE_COUNTS)
    if packed is None:
        return None
    try:
        if packed.dtype != "u1" or packed.ndim != 1:
            raise ValueError("does not hold bytes")
        return unpacked_counts(packed.tobytes())
    except ValueError as error:
        raise ModelError(f"{model.path or 'the model'}: {RARE_COUNTS}.npy {error}; make the model again") from None
