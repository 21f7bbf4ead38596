"""What tokens cost by public price lists, for runs whose command line does not say; the data is offline."""

from typing import Any

from workflows.usage import Tokens, Usage


def price(usage: Usage) -> float | None:
    """US dollars of all tokens, or None if any model's price, or which model it was, is not known."""
    if usage.full_input + usage.output == 0:
        return None
    found = [_price(model, tokens) for model, tokens in usage.models.items()]
    known = [cost for cost in found if cost is not None]
    return sum(known) if found and len(known) == len(found) else None


def _price(model: str, tokens: Tokens) -> float | None:
    try:
        # Imported late: it costs a quarter of a second, and most runs report their cost.
        from genai_prices import Usage as Counted
        from genai_prices import calc_price
    except ImportError:
        return None
    # Its input includes what went through the cache; ours does not.
    buckets: dict[str, Any] = {
        "input_tokens": tokens.full_input,
        "cache_read_tokens": tokens.cache_read,
        "cache_write_tokens": tokens.cache_creation,
        "output_tokens": tokens.output,
    }
    if tokens.cache_creation_1h:
        buckets["cache_write_1h_tokens"] = tokens.cache_creation_1h
        buckets["cache_write_5m_tokens"] = tokens.cache_creation_5m
    try:
        return float(calc_price(Counted(**buckets), model_ref=model).total_price)
    except (LookupError, ValueError):
        return None
