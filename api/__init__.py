"""The ways in: webhooks, HTTP API and the command line."""
