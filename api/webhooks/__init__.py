"""Signed webhooks: one pure parser for each source."""
