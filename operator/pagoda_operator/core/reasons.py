"""Every reason that a service's conditions, its `status.lastFailure` and its Events can have, and what it means.

Reasons are an interface: programs compare them, dashboards count them, runbooks are found by them. None is changed, and
one that goes stays here until nobody can meet it any more. tests/operator/core/test_reasons.py holds the code to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REASONS: Final[Mapping[str, str]] = {
    # What is wanted, and whether it can be.
    "Planned": "a model, a place for it and all arguments were found; the arithmetic is in status.plan",
    "ReadingModel": "the model's configuration is being read",
    "ModelUnreadable": "the model's configuration can't be read; the message has the hub's words",
    "Invalid": "the spec asks what can't be; an API server refuses it, so that an older CRD let it pass",
    "ContextTooLong": "spec.engine.maxModelLen is longer than the model was made for",
    "DoesNotFit": "no node's GPUs hold the model; status.rejected has the arithmetic of each",
    "InvalidParallelism": "the model can't be spread over as many GPUs as spec.parallelism.tensor says",
    "NoGpuNodes": "no node with GPUs admits these pods",
    "UnknownGpus": "a node has GPUs without the labels that say which",
    # What stands in the way of its children.
    "ClusterUnreadable": "the operator's role does not let it see what it needs; nothing is written meanwhile",
    "NameConflict": "an object of a child's name is somebody else's; it is left alone",
    "Refused": "the API server refused a child: a quota, a policy, or a verb that the operator's role lacks",
    "StatusRefused": "the API server refused the service's status, so that what it says is old; told by an Event alone",
    "PodsRefused": "the API server lets no pods be made: a quota, a policy, a class that is not there",
    "VolumePending": "the model cache's claim is not bound",
    # Whether pods are made as they would be made today.
    "UpToDate": "the pods' template is what the operator makes of the spec today",
    "UpgradeAvailable": "the operator would make pods otherwise today; it waits to be asked",
    "NotPlanned": "nothing can be planned now",
    # How far it is.
    "NotStarted": "it has not begun, since something else comes first",
    "Starting": "pods are there, and need time",
    "Pulling": "the model is being fetched",
    "PullingModel": "the model is being fetched",
    "LoadingWeights": "the engine reads the weights",
    "WarmingUp": "the engine makes itself ready",
    "RollingOut": "replicas of a former spec are being replaced",
    "RolloutBlocked": "pods of a new spec find no room, and none of the old ones may go first",
    "ScalingIn": "replicas that are no longer wanted end their streams",
    # All is well.
    "Ready": "an Event: requests are answered as the spec says",
    "Serving": "requests are answered as the spec says",
    "AllReplicasReady": "every wanted replica is ready",
    "ScaledToZero": "no replica is wanted, and none runs",
    "Cached": "the model is where pods read it",
    "ScaledOut": "an Event: replicas were added; status.scaling says why",
    "ScaledIn": "an Event: replicas were given up; status.scaling says why",
    # Who sets the number of replicas.
    "Manual": "replicas change by hand",
    "Automatic": "a scaler sets them",
    "LocalMode": "there is no scaler without a cluster",
    "KedaAbsent": "provider is keda, and the cluster has no KEDA",
    "NoMetricsSource": "KEDA is there, and the operator has nothing for it to ask",
    "Paused": "KEDA is told by an annotation to leave the replicas alone",
    "FallingBack": "KEDA can't read the load: it removes no replica, and sees to spec.autoscaling.fallbackReplicas",
    "MetricsMissing": "the scaler can't read the load",
    "AdapterAbsent": "nobody serves the metrics API that the HorizontalPodAutoscaler reads",
    "ExternalMetricsAbsent": "the operator's own metrics API does not answer",
    "ExternalMetricsUnavailable": "the operator serves the metrics API, and the API server does not reach it",
    "ExternalMetricsTaken": "the metrics API that the operator would serve belongs to somebody else",
    "ScheduleInvalid": "an entry of spec.autoscaling.schedule can't be understood; the rest holds",
    "ScalerStarting": "the scaler has not reported yet",
    "ScalerNotReady": "the scaler reports a problem; the message has its words",
    # What goes wrong in a pod.
    "Unschedulable": "no node admits the pod now",
    "ImagePullFailed": "the engine image can't be pulled",
    "PodFailed": "the pod was evicted, or its node refused it or went away; another one takes its place",
    "ContainerConfigError": "a Secret or ConfigMap that the spec names is not there",
    "Killed": "a container was ended from outside",
    "Crashed": "the engine ended for no reason that it knows; its last words are in the message",
    "Usage": "the engine refused its arguments",
    "ModelNotFound": "there is no such model",
    "ModelCorrupt": "the model's files are not what they should be",
    "ModelUnsupported": "the engine does not run this kind of model",
    "PortInUse": "something in the pod listens on the engine's port",
    "OutOfMemory": "the memory of the GPU or of the container was not enough",
    "EngineDied": "the engine's process ended under its server",
    "FetchFailed": "the model could not be fetched; it is tried again",
    "NoSpace": "the model does not fit into its cache",
    "AccessDenied": "the model is not for everybody, and this token may not read it",
    "DeviceNotFound": "the node has no usable GPU",
}
"""Meanings by reason, in the order in which one meets them."""

BLOCKED: Final = ("NameConflict", "Refused", "PodsRefused", "RolloutBlocked")
"""Reasons that are news even for a service that was never ready: somebody has to do something."""
