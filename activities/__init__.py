"""Everything that touches the world: objects with injected clients that implement `workflows.contracts`."""
