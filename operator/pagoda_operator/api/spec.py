"""The spec of an InferenceService: what a user may ask for. The CRD's schema is generated from these classes.

`model.uri` is the only required field; where a field is absent, the planner or the engine decides.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field
from pydantic.config import JsonDict

from pagoda_operator.api.autoscaling import Autoscaling
from pagoda_operator.api.document import Document
from pagoda_operator.api.names import Object
from pagoda_operator.api.quantity import Quantity

MAP_BY_NAME: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class SecretKey(Document):
    name: str = Field(min_length=1, description="Name of a Secret in the service's namespace.")
    key: str = Field(default="HF_TOKEN", min_length=1, description="Key within the Secret.")


class Model(Document):
    uri: str = Field(
        max_length=500,
        description="Where the model is: hf://ORG/REPO[@REVISION], or pypi://PACKAGE@VERSION/FILE.gguf in a wheel.",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        max_length=200,
        description="Name that requests give as `model`. Default: the URI's last part in lower case.",
    )
    token_secret: SecretKey | None = Field(
        default=None, description="Secret that holds a Hugging Face token, for gated and private models."
    )


class Parallelism(Document):
    tensor: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="GPUs that one replica is spread over. Default: the fewest that hold the model and its KV cache.",
    )


class ConfigMapKey(Document):
    name: str = Field(min_length=1, description="Name of a ConfigMap in the service's namespace.")
    key: str = Field(min_length=1, description="Key within the ConfigMap.")


class EnvSecretKey(Document):
    name: str = Field(min_length=1, description="Name of a Secret in the service's namespace.")
    key: str = Field(min_length=1, description="Key within the Secret.")


class EnvSource(Document):
    secret_key_ref: EnvSecretKey | None = Field(default=None, description="Take the value from a Secret.")
    config_map_key_ref: ConfigMapKey | None = Field(default=None, description="Take the value from a ConfigMap.")


class EnvVar(Document):
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200, description="Name of the variable.")
    value: str | None = Field(default=None, description="Its value; $(NAME) stands for an earlier variable.")
    value_from: EnvSource | None = Field(default=None, description="Where its value comes from.")


class Engine(Document):
    image: str | None = Field(default=None, min_length=1, description="Engine image. Default: the operator's own.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Data type of weights and KV cache. Default: the model's own."
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="Longest prompt and output together, in tokens. Default: the model's own."
    )
    max_num_seqs: int | None = Field(
        default=None, ge=1, le=4096, description="Requests that one replica runs at once; more wait."
    )
    max_num_batched_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that one replica computes in one step."
    )
    gpu_memory_utilization: float = Field(
        default=0.9, ge=0.05, le=1, description="Share of a GPU's memory that the engine may use."
    )
    extra_args: tuple[str, ...] = Field(
        default=(), max_length=200, description="More arguments for the engine, after the operator's own."
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        max_length=200,
        description="More environment variables for the engine.",
        json_schema_extra=MAP_BY_NAME,
    )


class Resources(Document):
    requests: dict[str, Quantity] = Field(
        default_factory=dict,
        max_length=32,
        description="Least resources of one replica; each entry replaces the planner's own.",
    )
    limits: dict[str, Quantity] = Field(
        default_factory=dict,
        max_length=32,
        description="Most resources of one replica; each entry replaces the planner's own.",
    )


class Toleration(Document):
    key: str | None = Field(default=None, description="Taint key; absent matches every key.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="How the value is compared.")
    value: str | None = Field(default=None, description="Taint value, for `Equal`.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent matches every effect."
    )
    toleration_seconds: int | None = Field(default=None, description="How long a NoExecute taint is tolerated.")


class ImagePullSecret(Document):
    name: str = Field(min_length=1, description="Name of a Secret in the service's namespace.")


class Cache(Document):
    size: Quantity | None = Field(
        default=None, description="Size of the model cache's volume. Default: the model's download and a quarter more."
    )
    storage_class_name: str | None = Field(
        default=None, min_length=1, description="StorageClass of the volume. Default: the cluster's own."
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce",
        description="With ReadWriteOnce all replicas share one node; ReadWriteMany lets them spread.",
    )
    retain: bool = Field(
        default=False, description="Keep the volume when the service is deleted; the next one reuses it."
    )


class Rollout(Document):
    allow_downtime: bool = Field(
        default=False,
        description="Let the only replica end before its successor is ready, where no GPU is free for both.",
    )


class Spec(Document):
    model: Model = Field(description="The model to serve.")
    replicas: int = Field(
        default=1, ge=0, le=1000, description="Replicas to run; a scaler owns this field where autoscaling is set."
    )
    parallelism: Parallelism = Field(default_factory=Parallelism, description="How one replica is spread over GPUs.")
    accelerator: Literal["auto", "gpu", "cpu"] = Field(
        default="auto", description="What to run on. auto: GPUs where the cluster has any, else the CPU."
    )
    engine: Engine = Field(default_factory=Engine, description="Arguments of the engine.")
    resources: Resources = Field(default_factory=Resources, description="Resources of one replica, GPUs apart.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that a replica's node must have.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints that replicas tolerate besides GPU taints."
    )
    priority_class_name: str | None = Field(default=None, min_length=1, description="PriorityClass of the pods.")
    runtime_class_name: str | None = Field(default=None, min_length=1, description="RuntimeClass of the pods.")
    image_pull_secrets: tuple[ImagePullSecret, ...] = Field(
        default=(), description="Secrets to pull the engine image with.", json_schema_extra=MAP_BY_NAME
    )
    cache: Cache = Field(default_factory=Cache, description="The volume that holds the model.")
    autoscaling: Autoscaling | None = Field(
        default=None, description="Scale on waiting requests. Absent: replicas are fixed."
    )
    rollout: Rollout = Field(default_factory=Rollout, description="How pods of a former spec are replaced.")
    termination_grace_period_seconds: int | None = Field(
        default=None,
        ge=5,
        le=86400,
        description="How long a replica may take to end its streams. Default: the operator's drain settings.",
    )

    @classmethod
    def of(cls, service: Object) -> Spec:
        """The typed spec of a service. Raises pydantic.ValidationError where `validate` would have refused it."""
        return cls.model_validate(service["spec"])
