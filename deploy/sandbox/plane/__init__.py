"""Plane's REST API v1 and webhooks, as measured on v1.3.1 (contract: plane.md and its recorded payloads)."""
