"""Parameters of the check of general ability: questions, tasks, and a text."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from realignment.parameters.base import Parameters


class CapabilityFile(Parameters):
    """Questions of a local file; a path alone stands for this mapping with its defaults."""

    path: str = Field(
        min_length=1,
        description="Table (JSON Lines, CSV, Parquet; .gz) with question, answer and, for multiple choice, "
        "choices (answer is then the index of the right one)",
    )
    form: Literal["answer", "letters", "continuation", "generate"] | None = Field(
        None,
        description="answer: the likeliest choice after `Answer:`; letters: the choices are listed and the "
        "likeliest letter counts (MMLU); continuation: the choice that continues the question best "
        "(HellaSwag); generate: the last number of a written solution (GSM8K); null: answer where there are "
        "choices, else generate",
    )
    metric: str | None = Field(
        None,
        description="acc (summed log-probability), acc_norm (per character), exact_match; null: the first "
        "that the task reports in the order of docs/how-to/measure-capability.md",
    )
    chat_template: bool = Field(
        False, description="Ask in the user's turn of the model's chat template instead of plain text"
    )
    shots: int = Field(
        0, ge=0, description="The first so many questions are shown as solved examples, and are not asked"
    )
    limit: int | None = Field(None, ge=1, description="Largest number of questions; null: `limit` of all")

    @model_validator(mode="before")
    @classmethod
    def _accept_path(cls, values: Any) -> Any:
        return {"path": values} if isinstance(values, str) else values


class CapabilityParameters(Parameters):
    """General ability, measured by lm-evaluation-harness on each task, and on a text by its likelihood."""

    questions: CapabilityFile | None = Field(
        description="The project's own check, or a path: see `files`; null: no such questions"
    )
    files: dict[str, CapabilityFile | None] = Field(
        {},
        description="Name of a task → local file, as a path or with the settings of `questions`; "
        "null leaves the task out",
    )
    tasks: tuple[str, ...] = Field((), description="Tasks of lm-evaluation-harness, by name")
    metrics: dict[str, str] = Field(
        {}, description="Task of `tasks` → the metric that counts, where it is not the first of the order"
    )
    chat_template: bool = Field(False, description="Ask the questions of `tasks` in the chat template")
    batch_size: int = Field(32, ge=1, description="Sequences per forward pass")
    limit: int | None = Field(None, ge=1, description="Largest number of questions per task; null: all")
    max_new_tokens: int = Field(256, ge=1, description="Tokens after which a written solution is cut")
    text: str | None = Field(
        None,
        description="Text for perplexity and bits per byte: plain, with blank lines between documents, or a "
        "table with a column text; null: not measured",
    )
    text_window: int = Field(
        1024, ge=2, description="Tokens that the model sees at once; each new window scores half of them"
    )

    @field_validator("files")
    @classmethod
    def _check_file_names(cls, files: dict[str, Any]) -> dict[str, Any]:
        reserved = sorted({"questions", "text"} & set(files))
        if reserved:
            raise ValueError(f"{reserved[0]!r} is the name of another part of this check; choose another")
        return files

    @model_validator(mode="after")
    def _check_tasks(self) -> "CapabilityParameters":
        both = sorted(set(self.tasks) & set(self.files))
        if both:
            raise ValueError(f"{both[0]!r} is in `tasks` and in `files`; rename the file's task")
        unused = sorted(set(self.metrics) - set(self.tasks))
        if unused:
            raise ValueError(
                f"`metrics` names {unused[0]!r}, which is not in `tasks`; a file has its own `metric`"
            )
        return self

    @property
    def needs_weights(self) -> bool:
        """Whether anything is measured: all of it reads the probabilities of a model in this process."""
        return bool(self.local_files() or self.tasks or self.text is not None)

    def local_files(self) -> dict[str, CapabilityFile]:
        """Return the local tasks: `questions` first, then `files`, without those that are null."""
        files = {"questions": self.questions, **self.files}
        return {name: file for name, file in files.items() if file is not None}
