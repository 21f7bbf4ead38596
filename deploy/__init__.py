"""How Orch runs: the embedded stack, the sandbox servers, migrations, and files for production."""
