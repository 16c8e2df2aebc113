"""The status of an InferenceService: what a user is told. The CRD's schema is generated from these classes.

Sizes are bytes. Everything is optional, since a status grows as facts come in.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, ValidationError

from pagoda_operator.api.document import Document
from pagoda_operator.api.names import Object


class Reported(Document):
    """A part of a status. An operator of another version may have written it: what is unknown is skipped."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def remembered(cls, document: Object | None) -> Self | None:
        """What an earlier status told, or None where there was nothing or it can't be understood any more: a status is
        made anew from what is live, so that nothing but a memory is lost."""
        try:
            return None if document is None else cls.model_validate(document)
        except ValidationError:
            return None


class Condition(Reported):
    type: str = Field(description="Ready, Planned, ModelCached, WorkloadReady, ScalingReady or UpToDate.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", description="Stable CamelCase word for programs.")
    message: str = Field("", description="Sentence for people; where something is wrong, it says the fix.")
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int | None = Field(default=None, description="Generation of the spec that this speaks of.")


class GpuClass(Reported):
    product: str = Field(description="Value of the nodes' label nvidia.com/gpu.product.")
    memory_mib: int = Field(description="Memory of one GPU in MiB.")
    gpus_per_node: int = Field(description="Most allocatable GPUs on one node of the class.")


class PlanStatus(Reported):
    gpu: str = Field(description="What one replica runs on, `2x H100-80GB-HBM3` or `cpu`.")
    gpu_class: GpuClass | None = Field(default=None, description="The class of GPUs that was chosen.")
    tensor_parallel: int = Field(description="GPUs that one replica is spread over.")
    max_model_len: int = Field(description="Longest prompt and output together, in tokens.")
    max_num_seqs: int = Field(description="Requests that one replica runs at once.")
    kv_tokens: int = Field(description="Tokens whose keys and values one replica can hold.")
    kv_bytes_per_token: int = Field(description="Bytes of keys and values of one token, on one GPU.")
    weight_bytes: int = Field(description="Bytes of weights on one GPU.")
    arithmetic: tuple[str, ...] = Field(default=(), description="How the plan was reckoned, to be checked by hand.")


class ModelStatus(Reported):
    uri: str = Field(description="The URI that these facts were read from.")
    architecture: str = Field(description="The model's architecture.")
    dtype: str = Field(description="Data type of the weights on the device.")
    weight_bytes: int = Field(description="Bytes of all weights on the device.")
    download_bytes: int = Field(description="Bytes that a cache must hold.")
    num_layers: int = Field(description="Layers.")
    num_attention_heads: int = Field(description="Query heads.")
    num_kv_heads: int = Field(description="Key and value heads.")
    head_dim: int = Field(description="Size of one head.")
    hidden_size: int = Field(description="Size of the residual stream.")
    vocab_size: int = Field(description="Size of the vocabulary.")
    max_model_len: int = Field(description="The model's own context length in tokens.")
    parameters: int = Field(default=0, description="Number of weights.")


class CacheStatus(Reported):
    state: str = Field(description="Ready, Pending, or how far the download is, `43%`.")
    bytes: int | None = Field(default=None, description="Bytes downloaded so far.")
    total: int | None = Field(default=None, description="Bytes to download.")
    percent: int | None = Field(default=None, description="Share downloaded.")
    eta_seconds: int | None = Field(default=None, description="Estimated seconds until the model is complete.")


class QueueStatus(Reported):
    waiting: int = Field(description="Requests that wait, over all replicas.")
    running: int = Field(description="Requests that run, over all replicas.")


class ScalingDecision(Reported):
    time: str = Field(description="When it was made.", json_schema_extra={"format": "date-time"})
    from_: int = Field(alias="from", description="Replicas before.")
    to: int = Field(description="Replicas after.")
    reason: str = Field(description="Why, in a sentence.")


class ColdStart(Reported):
    pod: str = Field(description="Name of the pod.")
    ready: str = Field(description="When it was ready.", json_schema_extra={"format": "date-time"})
    seconds: int = Field(description="From its creation until it was ready, without the download of the model.")


class ScalingStatus(Reported):
    provider: str | None = Field(default=None, description="Kind of the object that sets spec.replicas.")
    desired: int = Field(description="Replicas that the Deployment is to have now.")
    reason: str = Field(description="Why so many, in a sentence.")
    cold_start_seconds: int | None = Field(
        default=None, description="What a new replica takes until it answers: the median of coldStarts."
    )
    cold_starts: tuple[ColdStart, ...] = Field(
        default=(), description="The latest starts, the newest first; at most 5."
    )
    last_decisions: tuple[ScalingDecision, ...] = Field(
        default=(), description="The latest changes of desired, the newest first; at most 5."
    )


class Failure(Reported):
    reason: str = Field(description="Stable CamelCase word, such as OutOfMemory or ModelNotFound.")
    message: str = Field(description="The last words of the container, or of the kubelet or scheduler.")
    exit_code: int | None = Field(default=None, description="Exit code of the container, where it ended.")
    pod: str = Field(description="Name of the pod.")
    time: str | None = Field(default=None, description="When it happened.", json_schema_extra={"format": "date-time"})


class Status(Reported):
    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that this status speaks of."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready, and what it depends on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    replicas: int = Field(default=0, description="Replicas that exist.")
    ready_replicas: int = Field(default=0, description="Replicas that answer requests.")
    ready: str | None = Field(default=None, description="Ready and wanted replicas, `2/2`.")
    selector: str | None = Field(default=None, description="Label selector of the pods, for scalers.")
    url: str | None = Field(default=None, description="Base URL of the OpenAI-compatible API.")
    model: str | None = Field(default=None, description="Name that requests give as `model`.")
    model_facts: ModelStatus | None = Field(default=None, description="What was read of the model, for planning.")
    plan: PlanStatus | None = Field(default=None, description="What was chosen, and the arithmetic behind it.")
    rejected: tuple[str, ...] = Field(
        default=(), description="Options that the planner rejected, each with its arithmetic."
    )
    cache: CacheStatus | None = Field(default=None, description="The model cache.")
    queue: QueueStatus | None = Field(default=None, description="Load, summed over the replicas.")
    scaling: ScalingStatus | None = Field(default=None, description="How many replicas there are to be, and why.")
    last_failure: Failure | None = Field(default=None, description="The last thing that went wrong in a pod.")

    def to_object(self) -> Object:
        """Plain JSON values; what is absent or empty is left out."""
        return _without_empty(self.model_dump(mode="json", by_alias=True, exclude_none=True))


def _without_empty(document: Object) -> Object:
    kept = {key: value for key, value in document.items() if value != []}
    return {key: _without_empty(value) if isinstance(value, dict) else value for key, value in kept.items()}
