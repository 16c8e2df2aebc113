"""Kernels that Triton makes after an engine is ready are counted."""

import triton

from pagoda_engine.kernels.triton.compiles import CompileCount


def test_what_is_made_after_ready_is_late_and_an_earlier_hook_still_hears(monkeypatch):
    heard = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", lambda **made: heard.append(made["key"]))
    count = CompileCount()
    triton.knobs.runtime.jit_post_compile_hook(key="first")
    count.mark_ready()
    assert (count.made, count.late) == (1, 0)
    triton.knobs.runtime.jit_post_compile_hook(key="second")
    assert (count.made, count.late) == (2, 1)
    assert heard == ["first", "second"]
