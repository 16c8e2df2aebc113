"""`priority` and `cache_salt` of a request, and what the metrics say of the prefix cache."""

TEXT = "/v1/completions"
BODY = {"model": "tiny", "prompt": "a prompt of more than one block of sixteen tokens, surely", "max_tokens": 2}


def hits(server, **fields) -> float:
    """Prompt tokens that a request found in the cache."""
    before = server.metric("vllm:prefix_cache_hits_total")
    response = server.post(TEXT, {**BODY, **fields})
    assert response.status_code == 200, response.text
    server.quiet()
    return server.metric("vllm:prefix_cache_hits_total") - before


def test_a_salt_keeps_a_prefix_to_those_who_name_it(server):
    queries = server.metric("vllm:prefix_cache_queries_total")
    assert hits(server, cache_salt="tenant one") == 0
    assert hits(server, cache_salt="tenant two") == 0
    found = hits(server, cache_salt="tenant one")
    assert found >= 16
    assert found % 16 == 0
    assert server.metric("vllm:prefix_cache_queries_total") > queries + found


def test_a_priority_is_refused_where_requests_are_served_by_arrival(server):
    response = server.post(TEXT, {**BODY, "priority": -1})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "priority"
    assert "--scheduling-policy priority" in response.json()["error"]["message"]
    assert server.post(TEXT, {**BODY, "priority": 0}).status_code == 200


def test_an_empty_salt_is_refused(server):
    response = server.post(TEXT, {**BODY, "cache_salt": ""})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "cache_salt"


def test_with_the_policy_a_priority_is_taken_and_without_the_cache_nothing_is_found(launch, tiny_argv):
    server = launch(*tiny_argv, "--scheduling-policy", "priority", "--no-enable-prefix-caching")
    for _ in range(2):
        assert hits(server, priority=-5) == 0
