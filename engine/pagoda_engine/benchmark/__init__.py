"""A load generator for any server that speaks OpenAI's completions API with vLLM's `ignore_eos`. No torch."""
