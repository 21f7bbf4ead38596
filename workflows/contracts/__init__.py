"""The activity signatures the workflows need. `activities/` implements them under the same names.

Each takes and returns one model. An expected negative is a value; an exception means "could not find out".
A stub's body is never run: the worker registers the implementation that carries its name.
"""
