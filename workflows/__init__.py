"""What happens next: the product's rules and workflows.

Pure: standard library, temporalio and pydantic only; no I/O, no clock, no environment.
"""
