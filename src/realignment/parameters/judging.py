"""Parameters of `judging`: the oracle, the engine that computes, and how much doubt stops a run."""

import shlex
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import IN_PROCESS, OracleParameters


class BatchParameters(Parameters):
    """Files of requests in OpenAI's batch format, and the command that answers one."""

    command: tuple[str, ...] = Field(
        ("vllm", "run-batch", "-i", "{input}", "-o", "{output}", "--model", "{model}"),
        min_length=1,
        description="Program and arguments, or one text; {input} and {output} are files, {model} and "
        "{base_url} those of `chat`",
    )
    folder: str = Field(min_length=1, description="Folder of the files of requests and replies")
    max_requests: int = Field(50_000, ge=1, description="Requests per file; OpenAI takes 50,000")
    max_megabytes: float = Field(200.0, gt=0, description="Size of a file of requests; OpenAI takes 200")
    keep_files: bool = Field(True, description="Keep the files after their verdicts are read; false: delete")

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, command: Any) -> Any:
        return shlex.split(command) if isinstance(command, str) else command

    @field_validator("command")
    @classmethod
    def _check_placeholders(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        text = shlex.join(command)
        missing = [placeholder for placeholder in ("{input}", "{output}") if placeholder not in text]
        if missing:
            raise ValueError(f"the command must say where {' and '.join(missing)} go, found {text!r}")
        return command


class RayParameters(Parameters):
    """Workers of a Ray cluster, which judge for `engine: ray`."""

    address: str | None = Field(
        None,
        min_length=1,
        description="host:port of the cluster's head node, or auto on one of its machines; null: a cluster "
        "on this machine that ends with the run",
    )
    workers: int = Field(2, ge=1, description="Number of processes that load the oracle")
    partition_size: int = Field(
        256,
        ge=1,
        description="Responses that a worker judges at a time; these are judged again if it dies",
    )
    cpus_per_worker: int = Field(1, ge=1, description="Cores, and threads, of a worker")
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs of a worker, or the share of one; 0: it sees none"
    )

    @model_validator(mode="after")
    def _check_gpus(self) -> "RayParameters":
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(f"`gpus_per_worker` above 1 is a whole number, found {self.gpus_per_worker}")
        return self


class JudgingParameters(OracleParameters):
    """The oracle that judges the pairs, where it computes, and how much doubt stops the run."""

    engine: Literal["local", "ray", "vllm_batch"] = Field(
        "local",
        description="Who computes: local: this process, or the server of `chat`; ray: the workers of a Ray "
        "cluster, for `rules`, `classifier` and `local_lm`; vllm_batch: a command that answers files of "
        "requests, for `chat`",
    )
    ray: RayParameters = Field(RayParameters(), description="Settings of `engine: ray`")
    vllm_batch: BatchParameters | None = Field(None, description="Settings of `engine: vllm_batch`")
    verdict_store: str | None = Field(
        None,
        description="SQLite file that caches the verdicts of slow or expensive oracles; null: no cache",
    )
    refresh: bool = Field(False, description="Judge again what the store has, and replace its verdicts")
    chunk_size: int = Field(
        2000, ge=1, description="Pairs that are judged at a time; not used by `engine: vllm_batch`"
    )
    max_unscored: Share = Field(0.2, description="A larger share of unscored responses stops the run")
    min_stability: Share = Field(0.9, description="A smaller share of repeated verdicts stops the run")
    stability_sample: int = Field(50, ge=0, description="Number of responses judged twice; 0: none")

    @model_validator(mode="after")
    def _check_batch_engine(self) -> "JudgingParameters":
        if self.engine == "vllm_batch" and self.oracle != "chat":
            raise ValueError(
                f"`engine: vllm_batch` asks `oracle: chat` by files, found `oracle: {self.oracle}`; leave "
                "the engine out, or choose `chat`"
            )
        if self.engine == "vllm_batch" and self.vllm_batch is None:
            raise ValueError("`engine: vllm_batch` needs its section `vllm_batch: {folder: …}`")
        return self

    @model_validator(mode="after")
    def _check_ray_engine(self) -> "JudgingParameters":
        kinds = {member.oracle for member in self.leaf_oracles()}
        if self.engine == "ray" and not kinds & set(IN_PROCESS):
            raise ValueError(
                f"`engine: ray` has nothing to do for {', '.join(sorted(kinds))}: it is for "
                f"{', '.join(IN_PROCESS)}, alone or in a vote or cascade. `chat` waits for its server "
                "(`chat.concurrency`), `labels` and `human` read a table. Set `engine: local`"
            )
        return self

    @property
    def workers(self) -> RayParameters | None:
        """Workers that compute the in-process oracles; None: this process computes them."""
        return self.ray if self.engine == "ray" else None

    @property
    def batches(self) -> BatchParameters | None:
        """Settings of the batch command that answers files of requests; None: no such command is used."""
        return self.vllm_batch if self.engine == "vllm_batch" else None

    @property
    def pairs_per_chunk(self) -> int | None:
        """Pairs per chunk; None: all at once, because a batch command loads its model for every file."""
        return None if self.batches is not None else self.chunk_size

    @property
    def pairs_per_part(self) -> int:
        """Pairs per chunk where the pairs are streamed; a batch command then gets full files."""
        return self.chunk_size if self.batches is None else max(1, self.batches.max_requests // 2)
