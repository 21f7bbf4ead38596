"""Clients of the outside world. They know nothing of Temporal and never retry: retries belong to Temporal."""
