"""Tokens of agent runs, and their sums."""

from pydantic import Field

from workflows.model import Frozen


class Tokens(Frozen):
    """Tokens in their buckets. Full input is `input + cache_read + cache_creation`."""

    input: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    """Written to the cache, for five minutes or an hour."""
    cache_creation_1h: int = 0
    """Of `cache_creation`, what is kept for an hour and costs more."""
    output: int = 0

    @property
    def cache_creation_5m(self) -> int:
        """Of `cache_creation`, what is kept for five minutes."""
        return self.cache_creation - self.cache_creation_1h

    @property
    def full_input(self) -> int:
        """Every token the model was given, cached or not."""
        return self.input + self.cache_read + self.cache_creation


class Usage(Tokens):
    """Tokens of one agent run, in all and of each model where the runner says which."""

    models: dict[str, Tokens] = Field(default_factory=dict)


def total(parts: dict[str, Tokens]) -> Usage:
    """The usage that is made of these models' tokens."""
    names = Tokens.model_fields
    sums = {name: sum(getattr(tokens, name) for tokens in parts.values()) for name in names}
    return Usage(**sums, models={model: tokens for model, tokens in parts.items() if tokens != Tokens()})


def added(first: Usage, second: Usage) -> Usage:
    """What two runs used together."""
    models = {
        model: plus(first.models.get(model, Tokens()), second.models.get(model, Tokens()))
        for model in sorted({*first.models, *second.models})
    }
    return Usage(**plus(first, second).model_dump(), models=models)


def plus(first: Tokens, second: Tokens) -> Tokens:
    """Both together, bucket by bucket."""
    return Tokens(**{name: getattr(first, name) + getattr(second, name) for name in Tokens.model_fields})
