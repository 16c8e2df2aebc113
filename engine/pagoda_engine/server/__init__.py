"""The HTTP process: OpenAI's API in front, text and its limits in the middle, the engine process behind."""
