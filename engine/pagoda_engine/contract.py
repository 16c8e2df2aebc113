"""The seam between operator and engine: everything that one half may know of the other.

Standard library only, so that the operator's image carries no torch. Both sides are tested against this module:
what the operator writes into a pod (`EngineArgs.to_argv`, ports, probe paths) and what it reads back (metric names,
exit codes, the progress document, model facts) is named here and nowhere else.

Flag names are those of `vllm serve`, metric names those of vLLM's `/metrics`, so that a user's dashboards, scalers and
habits work unchanged and the operator can run another engine's image in place of ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

# --- ports and paths -------------------------------------------------------------------------------------------------

ENGINE_PORT: Final = 8000
"""The one port of a pod: API, probes and metrics; while a cache is being filled, `pagoda pull`'s progress."""
ENGINE_PORT_NAME: Final = "http"

HEALTH_PATH: Final = "/health"
"""200 while the engine makes progress (also while it loads), 503 once it can't: the liveness probe."""
READY_PATH: Final = "/ready"
"""200 when requests are accepted, else 503; the body is a `Progress` document either way."""
METRICS_PATH: Final = "/metrics"

MODELS_DIR: Final = "/models"
"""Where a pod mounts its model cache."""
SCRATCH_DIR: Final = "/tmp"
"""The writable volume of a pod whose root file system is read-only (compiled kernels, sockets)."""


# --- metric names ----------------------------------------------------------------------------------------------------


class Metric(StrEnum):
    """Names under `/metrics`, as vLLM writes them where it has them (counters get `_total` in the text format)."""

    WAITING = "vllm:num_requests_waiting"
    RUNNING = "vllm:num_requests_running"
    KV_USAGE = "vllm:kv_cache_usage_perc"
    CACHE_CONFIG = "vllm:cache_config_info"
    PREEMPTIONS = "vllm:num_preemptions"
    PREFIX_QUERIES = "vllm:prefix_cache_queries"
    PREFIX_HITS = "vllm:prefix_cache_hits"
    LATE_COMPILES = "pagoda:compiles_after_ready"
    PROMPT_TOKENS = "vllm:prompt_tokens"
    GENERATION_TOKENS = "vllm:generation_tokens"
    TTFT = "vllm:time_to_first_token_seconds"
    ITL = "vllm:inter_token_latency_seconds"
    E2E_LATENCY = "vllm:e2e_request_latency_seconds"
    QUEUE_TIME = "vllm:request_queue_time_seconds"
    REQUEST_SUCCESS = "vllm:request_success"


# --- exit codes ------------------------------------------------------------------------------------------------------


class ExitCode(IntEnum):
    """How `pagoda serve` and `pagoda pull` end. The operator turns the code into `status.lastFailure.reason`."""

    OK = 0
    CRASHED = 1
    USAGE = 2
    MODEL_NOT_FOUND = 10
    MODEL_CORRUPT = 11
    MODEL_UNSUPPORTED = 12
    PORT_IN_USE = 13
    OUT_OF_MEMORY = 14
    ENGINE_DIED = 15
    FETCH_FAILED = 16
    NO_SPACE = 17
    ACCESS_DENIED = 18
    DEVICE_NOT_FOUND = 19

    @property
    def reason(self) -> str:
        """A stable CamelCase reason, e.g. `ModelNotFound`."""
        return "".join(word.capitalize() for word in self.name.split("_"))


# --- progress --------------------------------------------------------------------------------------------------------


class Stage(StrEnum):
    """What a pod is doing on its way to ready, in the order of the way."""

    PULLING = "pulling model"
    STARTING = "starting"
    LOADING = "loading weights"
    WARMING = "warming up"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_MOST: Final = 2.0**63 - 1024
"""Of any number in a progress document: what int64 and double can both hold."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The body of `/ready`, from the first byte of the model's download to the last stream of a drain.

    `percent` is of the stage, 0 to 100, or None where it can't be known. `bytes_done` and `bytes_total` are set while
    bytes are what is waited for; `eta_seconds` is an estimate from the rate so far.
    """

    stage: Stage
    percent: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    eta_seconds: float | None = None
    message: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Progress:
        """Read a document of this or a later version: unknown fields are ignored.

        Raises ValueError where the text is not a progress document.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or "stage" not in document:
            raise ValueError(f"not a progress document: {text[:80]!r}")
        values = _known(cls, document)
        for name in ("percent", "bytes_done", "bytes_total", "eta_seconds"):
            number = values.get(name)
            if not isinstance(number, int | float | None) or (number is not None and not abs(number) <= _MOST):
                raise ValueError(
                    f"not a progress document: {name} is {number!r:.80}, not a number that can be counted to"
                )
        return cls(**{**values, "stage": Stage(document["stage"]), "message": str(values.get("message", ""))})

    def __str__(self) -> str:
        text = self.stage.value if self.percent is None else f"{self.stage.value} {self.percent:.0f} %"
        return f"{text}: {self.message}" if self.message else text


# --- model facts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What planning needs to know of a model; printed as JSON by `pagoda inspect URI`, which loads no weights.

    Units: bytes for `weight_bytes` (as they are on the device: a GGUF's weights are counted as dequantised to
    `dtype`) and `download_bytes` (what a cache must hold); counts for the rest. `dtype` is torch's name.
    """

    architecture: str
    dtype: str
    weight_bytes: int
    download_bytes: int
    num_layers: int
    num_attention_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    max_model_len: int
    parameters: int = 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelFacts:
        """Read a document of this or a later version. Raises ValueError naming what is missing."""
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError(f"not a model facts document: {text[:80]!r}")
        try:
            return cls(**_known(cls, document))
        except TypeError as error:
            raise ValueError(f"not a model facts document: {error}") from None


def _known(document_type: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """What this version knows of a document; a later version may have more to say."""
    known = {f.name for f in dataclasses.fields(document_type)}
    return {name: value for name, value in document.items() if name in known}


# --- tensor parallelism -----------------------------------------------------------------------------------------------


def tensor_parallel_problem(size: int, num_attention_heads: int, num_kv_heads: int) -> str | None:
    """Why a model's heads can't be spread over `size` devices, as a sentence without a full stop; None where they can.

    A rank holds whole heads: as many query heads as every other, and the KV heads that they read. So the size divides
    the query heads, and divides the KV heads or is a multiple of them: then each is held by several ranks.
    """
    if num_attention_heads % size:
        return f"TP {size} does not divide the model's {num_attention_heads} query heads"
    if num_kv_heads % size and size % num_kv_heads:
        return f"TP {size} neither divides the model's {num_kv_heads} KV heads nor is a multiple of them"
    return None


def tensor_parallel_sizes(num_attention_heads: int, num_kv_heads: int) -> list[int]:
    """Every size that a model's heads can be spread over, smallest first."""
    sizes = range(1, num_attention_heads + 1)
    return [size for size in sizes if tensor_parallel_problem(size, num_attention_heads, num_kv_heads) is None]


# --- engine arguments ------------------------------------------------------------------------------------------------


def _flag(default: Any, help_: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help_, **metadata})


@dataclass(frozen=True, slots=True)
class EngineArgs:
    """The arguments of `pagoda serve`; `from_argv(to_argv())` is the identity.

    Each field is one flag of the same name, `--max-model-len` for `max_model_len`; `model` is the positional.
    Secrets (`PAGODA_API_KEY`, `HF_TOKEN`) come from the environment and never stand in an argv.
    """

    model: str = field(metadata={"help": "a folder, a .gguf file, or a URI (hf://, pypi://) found in --download-dir"})
    served_model_name: tuple[str, ...] = _flag((), "names that requests may use; the first is reported", nargs="+")
    host: str = _flag("127.0.0.1", "address to listen on")
    port: int = _flag(ENGINE_PORT, "port to listen on")
    download_dir: str = _flag("", "where `pagoda pull` puts models; default: the user's cache folder")
    device: str = _flag("auto", "device to run on", choices=("auto", "cpu", "cuda"))
    dtype: str = _flag("auto", "data type of weights", choices=("auto", "bfloat16", "float16", "float32"))
    load_format: str = _flag("auto", "`dummy` makes random weights", choices=("auto", "safetensors", "gguf", "dummy"))
    max_model_len: int | None = _flag(None, "longest prompt and output together, tokens; default: the model's own")
    tensor_parallel_size: int = _flag(1, "GPUs (on a CPU, processes) that one replica is spread over")
    gpu_memory_utilization: float = _flag(0.9, "share of a GPU's memory that the engine may use")
    kv_cache_memory_bytes: int | None = _flag(None, "exact size of the KV cache; default: what is left")
    kv_cache_dtype: str = _flag(
        "auto", "data type of the KV cache; `auto` is the model's, fp8 is fp8_e4m3", choices=("auto", "fp8", "fp8_e4m3")
    )
    block_size: int = _flag(16, "tokens in a KV block")
    max_num_seqs: int = _flag(64, "requests that run at once; more wait")
    max_num_batched_tokens: int = _flag(2048, "tokens computed in one step")
    max_num_queued_reqs: int = _flag(1024, "requests that may wait; above it the answer is 503")
    scheduling_policy: str = _flag(
        "fcfs", "who is served first: by arrival, or by `priority`", choices=("fcfs", "priority")
    )
    long_prefill_token_threshold: int = _flag(
        0, "most tokens of one prompt in a step, so that short ones pass it; 0: all"
    )
    enable_prefix_caching: bool = _flag(True, "share the KV cache of common beginnings")
    chat_template: str | None = _flag(None, "file with a Jinja chat template; default: the model's own")
    seed: int = _flag(0, "seed of requests that name none")
    shutdown_timeout: float = _flag(30.0, "seconds that SIGTERM leaves to running requests")
    drain_delay: float = _flag(0.0, "seconds after SIGTERM in which new requests are still accepted")
    uvicorn_log_level: str = _flag("warning", "log level of the HTTP server")

    def to_argv(self) -> list[str]:
        """The shortest argv that gives these arguments: the model, then each flag that differs from its default."""
        argv = [self.model]
        for f in dataclasses.fields(self)[1:]:
            value = getattr(self, f.name)
            if value != f.default:
                argv += _flag_argv(_flag_name(f.name), value)
        return argv

    @classmethod
    def from_argv(cls, argv: Sequence[str], prog: str = "pagoda serve") -> EngineArgs:
        """Parse an argv. Raises SystemExit(ExitCode.USAGE), after one line on stderr, where it can't be used."""
        parser = cls.parser(prog)
        namespace = vars(parser.parse_args(list(argv)))
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in namespace.items()}
        args = cls(**values)
        if problem := args.problem():
            parser.error(problem)
        return args

    @classmethod
    def parser(cls, prog: str = "pagoda serve") -> argparse.ArgumentParser:
        """The command's parser, made from the fields, so that flags, defaults and help can't disagree with them."""
        parser = argparse.ArgumentParser(
            prog=prog, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
        )
        parser.add_argument("model", help=cls.__dataclass_fields__["model"].metadata["help"])
        for f in dataclasses.fields(cls)[1:]:
            options: dict[str, Any] = {"help": f.metadata["help"], "default": f.default}
            options |= {key: f.metadata[key] for key in ("choices", "nargs") if key in f.metadata}
            kind = str(f.type)
            options |= {"action": argparse.BooleanOptionalAction} if kind == "bool" else {"type": _FLAG_TYPES[kind]}
            parser.add_argument(_flag_name(f.name), **options)
        return parser

    def problem(self) -> str | None:
        """The first argument out of range as a sentence naming flag, value and fix, or None."""
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                return f"{_flag_name(name)} is {value}; it must be at least 1"
        if not 0 < self.gpu_memory_utilization <= 1:
            return f"--gpu-memory-utilization is {self.gpu_memory_utilization}; it must be above 0 and at most 1"
        if not 0 <= self.port <= 65535:
            return f"--port is {self.port}; it must be 0 (any free port) to 65535"
        for name in ("shutdown_timeout", "drain_delay", "max_num_queued_reqs", "long_prefill_token_threshold"):
            if not 0 <= getattr(self, name) < float("inf"):
                return f"{_flag_name(name)} is {getattr(self, name)}; it must be a number from 0 up"
        return None


_AT_LEAST_ONE: Final = (
    "block_size",
    "max_num_seqs",
    "max_num_batched_tokens",
    "tensor_parallel_size",
    "max_model_len",
    "kv_cache_memory_bytes",
)
_FLAG_TYPES: Mapping[str, type] = {
    "str": str,
    "str | None": str,
    "int": int,
    "int | None": int,
    "float": float,
    "tuple[str, ...]": str,
}


def _flag_name(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def _flag_argv(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [name if value else name.replace("--", "--no-", 1)]
    return [name, *map(str, value if isinstance(value, tuple) else (value,))]
