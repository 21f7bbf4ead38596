"""Gitea's REST API v1, git over HTTP, webhooks and a small Actions (contract: gitea.md and its payloads)."""
