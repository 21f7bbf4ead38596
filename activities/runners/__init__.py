"""Agent runners: build the command, read the stream, answer with one typed outcome."""
