"""Who judges the pairs: the oracle, the engine that computes, and the doubt that stops a run."""

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
    folder: str = Field(min_length=1, description="Where the files of requests and replies are kept")
    max_requests: int = Field(50_000, ge=1, description="Requests of a file; OpenAI takes 50,000")
    max_megabytes: float = Field(200.0, gt=0, description="Of a file of requests; OpenAI takes 200")
    keep_files: bool = Field(
        True, description="Keep the files when their verdicts are known; false: delete them"
    )

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, command: Any) -> Any:
        return shlex.split(command) if isinstance(command, str) else command

    @field_validator("command")
    @classmethod
    def _names_both_files(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if missing := [place for place in ("{input}", "{output}") if not any(place in a for a in command)]:
            raise ValueError(
                f"the command must say where {' and '.join(missing)} go, found {shlex.join(command)!r}"
            )
        return command


class RayParameters(Parameters):
    """Workers of a Ray cluster, for `engine: ray`."""

    address: str | None = Field(
        None,
        min_length=1,
        description="host:port of the cluster's head node, or auto on one of its machines; null: a cluster "
        "of this machine, that ends with the run",
    )
    workers: int = Field(2, ge=1, description="Processes that load the oracle")
    partition_size: int = Field(
        256, ge=1, description="Responses that a worker judges at a time, and that are lost if it dies"
    )
    cpus_per_worker: int = Field(1, ge=1, description="Cores, and threads, of a worker")
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs of a worker, or the share of one; 0: it sees none"
    )

    @model_validator(mode="after")
    def _shares_are_of_one_gpu(self) -> "RayParameters":
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(f"`gpus_per_worker` above 1 is a whole number, found {self.gpus_per_worker}")
        return self


class JudgingParameters(OracleParameters):
    """Which oracle labels the pairs, where it computes, and how much doubt stops the run."""

    engine: Literal["local", "ray", "vllm_batch"] = Field(
        "local",
        description="Who computes: local: this process, or the server of `chat`; ray: the workers of a Ray "
        "cluster, for `rules`, `classifier` and `local_lm`; vllm_batch: a command that answers the files "
        "by which `chat` is asked",
    )
    ray: RayParameters = Field(RayParameters(), description="Settings of `engine: ray`")
    vllm_batch: BatchParameters | None = Field(None, description="Settings of `engine: vllm_batch`")
    verdict_store: str | None = Field(
        None, description="SQLite file that keeps the verdicts of oracles that cost; null: none are kept"
    )
    refresh: bool = Field(False, description="Ask again for verdicts that the store has, and replace them")
    chunk_size: int = Field(
        2000, ge=1, description="Pairs that are judged at a time; of no effect with `engine: vllm_batch`"
    )
    max_unscored: Share = Field(0.2, description="A larger share of unscored responses stops the run")
    min_stability: Share = Field(0.9, description="A smaller share of repeated verdicts stops the run")
    stability_sample: int = Field(50, ge=0, description="Responses judged twice; 0: none")

    @model_validator(mode="after")
    def _engine_fits(self) -> "JudgingParameters":
        if self.engine == "vllm_batch" and self.oracle != "chat":
            raise ValueError(
                f"`engine: vllm_batch` asks `oracle: chat` by files, found `oracle: {self.oracle}`; leave "
                "the engine out, or choose `chat`"
            )
        if self.engine == "vllm_batch" and self.vllm_batch is None:
            raise ValueError("`engine: vllm_batch` needs its section `vllm_batch: {folder: …}`")
        return self

    @model_validator(mode="after")
    def _engine_has_work(self) -> "JudgingParameters":
        kinds = {member.oracle for member in self.singles()}
        if self.engine == "ray" and not kinds & set(IN_PROCESS):
            raise ValueError(
                f"`engine: ray` has nothing to do for {', '.join(sorted(kinds))}: it is for "
                f"{', '.join(IN_PROCESS)}, alone or in a vote or cascade. `chat` waits for its server "
                "(`chat.concurrency`), `labels` and `human` read a table. Set `engine: local`"
            )
        return self

    @property
    def workers(self) -> RayParameters | None:
        """Where in-process oracles compute; None: in this process."""
        return self.ray if self.engine == "ray" else None

    @property
    def batches(self) -> BatchParameters | None:
        """How the oracle is asked by files; None: it is asked otherwise."""
        return self.vllm_batch if self.engine == "vllm_batch" else None

    @property
    def pairs_at_a_time(self) -> int | None:
        """Pairs of a chunk; None: all, for a batch command loads its model anew for every file."""
        return None if self.batches is not None else self.chunk_size

    @property
    def pairs_of_a_part(self) -> int:
        """Pairs of a chunk where they are never all at hand; a batch command then gets full files."""
        return self.chunk_size if self.batches is None else max(1, self.batches.max_requests // 2)
