"""What the embedded stack is filled with: people, a project, a repository, and a script for the agents."""
