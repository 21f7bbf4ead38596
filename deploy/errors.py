"""What the stack says when it cannot go on."""


class StackError(Exception):
    """Says what failed, where, and how to mend it; meant to be shown to a person as it is."""
