"""Answers of models, to be labelled by reading: `python benchmarks/answers_to_label.py --models NAME=FOLDER`.

Every combination of a model and a setting is given the prompts in turn: prompt number i is answered by
`--per-prompt` of the combinations, beginning with another one than prompt i − 1, so that each combination
sees prompts of every domain and no prompt is answered by all. A model is `NAME=FOLDER`, or `NAME=FOLDER@0.5`:
the weights half way from `--base` to that folder, a realigned model of half the strength. The folder may be
a LoRA adapter on `--base`, such as a checkpoint in the middle of a training. A setting is `greedy`, or
`0.8:11`: sampled at that temperature with that seed. With `--policy NAME` the model reads the policy's text
before every prompt. The rows have no label: `complies` is for the reader. No prompt that is a test prompt, or
nearly so, is answered.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import PeftModel

from realignment.evaluation.contamination import find_leaks
from realignment.intake.readers import read_table
from realignment.likelihood.tokenization import chat_messages
from realignment.model.generation import Answer, Sampling, generate_answers
from realignment.model.loading import load_model
from realignment.policy import read_policy
from realignment.records import DataError

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data/01_raw/sample"
TOP_P = 0.95
MAX_NEW_TOKENS = 160


@dataclass(frozen=True)
class Combination:
    """One model under one setting of the generation.

    Attributes:
        name: What the column `model` says: before, after, seed 7, …
        folder: A model or a LoRA adapter, written by `save_pretrained`.
        strength: 1: the model as it is; below, so far on the straight line from the base model to it.
        sampling: None: greedy.
        policy: Text that the model reads before every prompt; None: the prompt alone.
    """

    name: str
    folder: str
    strength: float
    sampling: Sampling | None
    policy: str | None

    @property
    def setting(self) -> str:
        """What the column `setting` says."""
        drawn = f"temperature {self.sampling.temperature:g}" if self.sampling else "greedy"
        return f"policy in the prompt, {drawn}" if self.policy else drawn

    def chat(self, prompt: str) -> list[dict[str, str]]:
        """Return the messages that the model answers."""
        system = [{"role": "system", "content": self.policy}] if self.policy else []
        return system + chat_messages(prompt)


def read_combinations(models: list[str], settings: list[str], policy: str | None) -> list[Combination]:
    """Return every model under every setting; see the top of this file for how both are written.

    Args:
        models: NAME=FOLDER or NAME=FOLDER@STRENGTH.
        settings: greedy or TEMPERATURE:SEED.
        policy: Name of a policy that the models are to read, without `.yml`; None: they read none.
    """
    text = read_policy(ROOT / f"conf/base/policies/{policy}.yml").text if policy else None
    combinations = []
    for model in models:
        name, _, place = model.partition("=")
        folder, _, strength = place.partition("@")
        for setting in settings:
            temperature, _, seed = setting.partition(":")
            sampling = None if setting == "greedy" else Sampling(float(temperature), TOP_P, int(seed))
            combinations.append(Combination(name, folder, float(strength or 1), sampling, text))
    return combinations


def read_prompts(files: list[Path], ids: str) -> pd.DataFrame:
    """Read the prompts, all of them or those whose id matches; refuse those that are near a test prompt.

    Args:
        files: Tables with prompt, domain, prompt_id or pair_id, and where it is known emergency.
        ids: A regular expression that the whole id matches.

    Returns:
        prompt_id, prompt, domain, emergency (None: not known).
    """
    tables = [read_table(str(file)).rename(columns={"pair_id": "prompt_id"}) for file in files]
    columns = ["prompt_id", "prompt", "domain", "emergency"]
    prompts = pd.concat([table.reindex(columns=columns) for table in tables], ignore_index=True)
    prompts = prompts[prompts["prompt_id"].str.fullmatch(ids)].reset_index(drop=True)
    evaluated = read_table(str(SAMPLE / "prompts.jsonl"))
    tested = evaluated.loc[evaluated["split"] == "test", "prompt"].tolist()
    leaks = find_leaks(prompts["prompt"].tolist(), tested)
    if leaks:
        raise DataError(
            f"{len(leaks)} prompts are test prompts or nearly so; the first is "
            f"{prompts['prompt'][leaks[0].prompt]!r}. Judges must not be measured on what they will judge: "
            "leave them out."
        )
    return prompts


def deal(n_prompts: int, n_combinations: int, per_prompt: int) -> list[list[int]]:
    """Deal the prompts to the combinations in turn; return the positions of each combination's prompts."""
    hands: list[list[int]] = [[] for _ in range(n_combinations)]
    for position in range(n_prompts):
        for offset in range(per_prompt):
            hands[(position * per_prompt + offset) % n_combinations].append(position)
    return hands


def load(combination: Combination, base: str | None) -> tuple[Any, Any]:
    """Load the model of a combination, drawn back towards the base model where its strength is below 1."""
    is_adapter = (Path(combination.folder) / "adapter_config.json").is_file()
    if base is None and (is_adapter or combination.strength != 1):
        raise DataError(f"`{combination.name}` is an adapter or has a strength: --base says of which model.")
    folder = base if is_adapter and base else combination.folder
    model, tokenizer = load_model(folder, dtype="float32", device="cpu")
    if is_adapter:
        adapted: Any = PeftModel.from_pretrained(model, combination.folder)
        model = adapted.merge_and_unload()
    if combination.strength != 1:
        reference, _ = load_model(str(base), dtype="float32", device="cpu")
        with torch.no_grad():
            for own, other in zip(model.parameters(), reference.parameters(), strict=True):
                own.lerp_(other, 1 - combination.strength)
    return model.eval(), tokenizer


def describe(prompts: pd.DataFrame, combination: Combination, answers: list[Answer]) -> pd.DataFrame:
    """Return the rows of one combination: the prompts, the answers, and where they are from."""
    return prompts.assign(
        response=[answer.text for answer in answers],
        complete=[answer.complete for answer in answers],
        model=combination.name,
        setting=combination.setting,
        seed=combination.sampling.seed if combination.sampling else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True, help="NAME=FOLDER or NAME=FOLDER@STRENGTH")
    parser.add_argument("--base", help="folder of the base model, for models with a strength")
    parser.add_argument("--settings", nargs="+", default=["greedy"], help="greedy, or TEMPERATURE:SEED")
    parser.add_argument("--policy", help="policy that the models read before the prompt, e.g. assistant-v2")
    parser.add_argument("--prompts", nargs="+", type=Path, default=[SAMPLE / "label_prompts.jsonl"])
    parser.add_argument("--ids", default=".*", help="regular expression of the prompt ids to answer")
    parser.add_argument("--per-prompt", type=int, default=1, help="combinations that answer one prompt")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--output", type=Path, required=True, help="JSON Lines file; rows are added to it")
    arguments = parser.parse_args()
    combinations = read_combinations(arguments.models, arguments.settings, arguments.policy)
    prompts = read_prompts(arguments.prompts, arguments.ids)
    if arguments.per_prompt > len(combinations):
        parser.error(f"--per-prompt {arguments.per_prompt}, but there are {len(combinations)} combinations")
    hands = deal(len(prompts), len(combinations), arguments.per_prompt)
    for combination, hand in zip(combinations, hands, strict=True):
        model, tokenizer = load(combination, arguments.base)
        dealt = prompts.iloc[hand]
        answers = generate_answers(
            model,
            tokenizer,
            [combination.chat(prompt) for prompt in dealt["prompt"]],
            max_new_tokens=MAX_NEW_TOKENS,
            batch_size=arguments.batch_size,
            sampling=combination.sampling,
            progress=f"{combination.name}, {combination.setting}",
        )
        rows = describe(dealt, combination, answers)
        with arguments.output.open("a", encoding="utf-8") as file:
            rows.to_json(file, orient="records", lines=True, force_ascii=False)


if __name__ == "__main__":
    main()
