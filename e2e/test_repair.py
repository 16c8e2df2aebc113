"""What others break is mended, whoever breaks it and whenever."""

from __future__ import annotations

from e2e.api import Object
from e2e.release import NAMESPACE, Release
from e2e.services import KIND, Services, chat, service


def uid(obj: Object | None) -> str | None:
    return obj["metadata"]["uid"] if obj else None


def is_settled(services: Services) -> bool:
    """Whether the Deployment's controllers have seen its last change, and one pod is there, to stay."""
    makers = services.cluster.objects("deployments,replicasets", "-n", services.namespace)
    pods = services.pods("tiny")
    seen = all(one["status"].get("observedGeneration") == one["metadata"]["generation"] for one in makers)
    return seen and len(pods) == 1 and "deletionTimestamp" not in pods[0]["metadata"]


def test_a_deleted_or_edited_child_is_repaired(services: Services) -> None:
    """Deployment, Service and PDB come back when deleted, and get their fields back when edited."""
    cluster, place = services.cluster, ("-n", services.namespace)
    cluster.apply(service("tiny", services.namespace))
    services.wait_ready("tiny")
    for kind in ("deployment", "service", "poddisruptionbudget"):
        old = uid(cluster.get(kind, "tiny", *place))
        cluster.kubectl("delete", kind, "tiny", *place)
        cluster.eventually(
            lambda kind=kind, old=old: uid(cluster.find(kind, "tiny", *place)) not in (None, old), f"a new {kind}"
        )
    services.wait_ready("tiny")
    cluster.kubectl("scale", "deployment", "tiny", "--replicas=0", *place)
    cluster.kubectl("label", "service", "tiny", "app.kubernetes.io/part-of=mine", "--overwrite", *place)
    cluster.kubectl("patch", "service", "tiny", *place, "-p", '{"spec": {"selector": {"pagoda.dev/service": "mine"}}}')
    cluster.eventually(lambda: cluster.get("deployment", "tiny", *place)["spec"]["replicas"] == 1, "one replica again")

    def mended() -> bool:
        found = cluster.get("service", "tiny", *place)
        label = found["metadata"]["labels"]["app.kubernetes.io/part-of"]
        return found["spec"]["selector"]["pagoda.dev/service"] == "tiny" and label == "pagoda"

    cluster.eventually(mended, "the Service's own selector and label again")
    cluster.eventually(lambda: is_settled(services), "no controller has anything left to do")
    services.wait_ready("tiny")
    with cluster.proxy(services.namespace, "tiny") as url:
        assert chat(url, services.status("tiny")["model"], "Hello?")


def test_a_foreign_object_is_never_taken_over(services: Services) -> None:
    """Somebody's Service of the same name stays as it is, and the status says so; once it goes, ours comes."""
    cluster, place = services.cluster, ("-n", services.namespace)
    cluster.kubectl("create", "service", "clusterip", "tiny", "--tcp=9:9", *place)
    before = cluster.get("service", "tiny", *place)
    cluster.apply(service("tiny", services.namespace, replicas=0))
    cluster.eventually(lambda: services.condition("tiny", "Ready")["reason"] == "NameConflict", "NameConflict")
    assert cluster.get("service", "tiny", *place)["spec"] == before["spec"]
    cluster.kubectl("delete", "service", "tiny", *place)
    cluster.eventually(lambda: "Service/tiny" in services.children("tiny"), "a Service of ours", seconds=10)


def test_the_operator_killed_in_the_middle_goes_on(services: Services, release: Release) -> None:
    """Killed without a word while a service starts, its successor takes the Lease over and finishes the work."""
    services.cluster.apply(service("tiny", services.namespace))
    services.cluster.eventually(lambda: services.pods("tiny"), "a pod of the service")
    old = release.pods()[0]["metadata"]
    services.cluster.kubectl("delete", "pod", old["name"], "-n", NAMESPACE, "--force", "--grace-period=0")
    services.wait_ready("tiny", seconds=180)
    assert old["uid"] not in [uid(pod) for pod in release.pods()]


def test_what_happened_while_the_operator_was_away_is_made_up_for(services: Services, release: Release) -> None:
    """Without an operator, deletion works and edits wait; with it back, the cluster is as the specs say."""
    cluster, place = services.cluster, ("-n", services.namespace)
    cluster.apply(service("kept", services.namespace, replicas=0), service("gone", services.namespace, replicas=0))
    for name in ("kept", "gone"):
        cluster.eventually(lambda name=name: f"Deployment/{name}" in services.children(name), f"children of {name}")
    release.scale(0)
    try:
        cluster.kubectl("delete", KIND, "gone", *place)
        cluster.eventually(lambda: not services.children("gone"), "no child is left of it")
        cluster.kubectl("delete", "service", "kept", *place)
        patch = '{"spec": {"engine": {"maxNumSeqs": 3}}}'
        cluster.kubectl("patch", KIND, "kept", *place, "--type=merge", "-p", patch)
    finally:
        release.scale(1)
    cluster.eventually(lambda: "Service/kept" in services.children("kept"), "the Service is back")

    def edited() -> bool:
        args = cluster.get("deployment", "kept", *place)["spec"]["template"]["spec"]["containers"][0]["args"]
        return "--max-num-seqs" in args and args[args.index("--max-num-seqs") + 1] == "3"

    cluster.eventually(edited, "the edit reached the pods' template")
