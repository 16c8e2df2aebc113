"""Chat templates render as transformers renders them, in a sandbox, and refuse in words."""

import pytest
from transformers import PreTrainedTokenizerFast

from pagoda_engine.server.chat_template import ChatTemplate, ChatTemplateError

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "<b>Größe</b> & 'quotes'?"},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "Why?"},
]
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "trims blocks": "{%- for m in messages %}\n    {%- if m.role == 'user' %}\n{{ bos_token + m.content | trim }}\n"
    "    {%- endif %}\n{%- endfor %}",
    "tojson": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "undefined": "{{ tools is none }}{{ documents is defined }}{{ nothing }}{{ eos_token }}",
    "macro": "{% macro turn(m) %}[{{ m.role }}:{{ m.content }}]{% endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "variables": "{{ 'think' if enable_thinking else 'answer' }}",
}


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_the_prompt_is_what_transformers_makes(tokenizer, source, add_generation_prompt):
    reference = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|end|>")
    expected = reference.apply_chat_template(
        MESSAGES,
        chat_template=source,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=True,
    )
    special = {name: str(token) for name, token in reference.special_tokens_map.items()}
    rendered = ChatTemplate(source, special).render(
        MESSAGES, add_generation_prompt=add_generation_prompt, variables={"enable_thinking": True}
    )
    assert rendered == expected


def test_a_template_that_raises_refuses_in_its_own_words():
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(ChatTemplateError, match="roles must alternate"):
        template.render(MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__ }}",
        "{% for _ in range(10000000) %}x{% endfor %}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_can_not_leave_its_sandbox(source):
    with pytest.raises(ChatTemplateError):
        ChatTemplate(source + "{{ undefined.attribute }}", {}).render(MESSAGES)


def test_a_template_with_a_mistake_is_named_before_it_is_used():
    with pytest.raises(ChatTemplateError, match="not a usable chat template"):
        ChatTemplate("{% for %}", {})


def test_variables_of_a_request_do_not_replace_its_messages():
    rendered = ChatTemplate("{{ messages | length }}", {}).render(MESSAGES, variables={"messages": []})
    assert rendered == "4"
