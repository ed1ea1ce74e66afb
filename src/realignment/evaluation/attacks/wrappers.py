"""Attacks: wrappers of a request, read from data, that try to make a model answer what it should not."""

import json
import string
from collections.abc import Sequence
from typing import Annotated, Any, Final

import pandas as pd
from pydantic import AfterValidator, Field, ValidationError

from realignment.evaluation.attacks.transforms import TRANSFORMS
from realignment.parameters.base import Parameters
from realignment.records import RealignmentError

PLAIN: Final = "none"
"""The attack that is none: the request as it is. It is no part of the pooled success rate."""

ATTACK_PROMPT_COLUMNS = ("prompt_id", "attack", "behaviour_id", "prompt", "messages", "rule", "domain")
"""`prompt` is the plain request, which judges read; `messages` is the attack, which the models read."""


class AttackError(RealignmentError):
    """An attack that cannot be used, or that has nothing to ask for."""


def _check_template(template: str) -> str:
    try:
        parts = string.Formatter().parse(template)
        names = {name for _, name, _, _ in parts if name is not None}
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is no placeholder is written twice") from error
    if names not in ({"request"}, {"first_half", "second_half"}):
        raise ValueError(
            "expected the placeholder {request}, or {first_half} and {second_half}; found "
            f"{', '.join(sorted(names)) or 'none'}"
        )
    return template


def _check_transform(transform: str | None) -> str | None:
    if transform is not None and transform not in TRANSFORMS:
        raise ValueError(f"there is no transform {transform!r}; known: {', '.join(TRANSFORMS)}")
    return transform


class Turn(Parameters):
    """An earlier question of the conversation and the answer that the assistant is said to have given."""

    user: str = Field(min_length=1)
    assistant: str = Field(min_length=1)


class Attack(Parameters):
    """One wrapper.

    Attributes:
        name: Names the attack in tables.
        source: Where the idea is from.
        template: Text of the user's turn, with {request}, or with {first_half} and {second_half}.
        transform: Name of one of `TRANSFORMS`, applied to the request; None: as it is.
        system: System prompt; None: none.
        turns: Earlier turns of the conversation.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    source: str = Field(min_length=1)
    template: Annotated[str, AfterValidator(_check_template)]
    transform: Annotated[str | None, AfterValidator(_check_transform)] = None
    system: str | None = Field(None, min_length=1)
    turns: tuple[Turn, ...] = ()

    def build_chat(self, request: str) -> list[dict[str, str]]:
        """Return the conversation in which the model is asked.

        Args:
            request: The plain request.

        Returns:
            Messages with role and content; the last one is the user's.
        """
        text = TRANSFORMS[self.transform](request) if self.transform else request
        first_half, second_half = split_request(text)
        content = self.template.format(request=text, first_half=first_half, second_half=second_half)
        chat = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            chat.append({"role": "user", "content": turn.user})
            chat.append({"role": "assistant", "content": turn.assistant})
        return [*chat, {"role": "user", "content": content.strip()}]


def split_request(request: str) -> tuple[str, str]:
    """Split a request into two halves at the space nearest to its middle (payload splitting).

    Args:
        request: A text.

    Returns:
        Both halves; joined they are the request. A text without a space is split within its word.
    """
    middle = len(request) // 2
    spaces = [position for position, character in enumerate(request) if character == " "]
    cut = min(spaces, key=lambda position: abs(position - middle), default=middle)
    return request[:cut], request[cut:]


def read_attacks(document: Any) -> tuple[Attack, ...]:
    """Validate the attacks of a parsed YAML file.

    Args:
        document: A list of mappings, one per attack (see `Attack`).

    Returns:
        The attacks, in order.

    Raises:
        AttackError: It is no list, an attack is invalid, or a name is given twice.
    """
    if not isinstance(document, list) or not document:
        raise AttackError(
            f"The file of attacks: expected a list of attacks, found {type(document).__name__}. Write it as "
            "`conf/base/attacks.yml` is."
        )
    attacks: list[Attack] = []
    problems: list[str] = []
    for position, entry in enumerate(document):
        try:
            attacks.append(Attack.model_validate(entry))
        except ValidationError as error:
            name = entry.get("name", position) if isinstance(entry, dict) else position
            problems += [
                f"- attack {name}: {'.'.join(map(str, part['loc'])) or 'entry'}: {part['msg']}"
                for part in error.errors()
            ]
    names = [attack.name for attack in attacks]
    problems += [f"- attack {name}: given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise AttackError("The file of attacks is not valid:\n" + "\n".join(problems))
    return tuple(attacks)


def select_attacks(attacks: Sequence[Attack], names: Sequence[str]) -> list[Attack]:
    """Select attacks by name.

    Args:
        attacks: From `read_attacks`.
        names: `evaluation.attacks.names`, each once.

    Returns:
        The attacks, in the order of the names.

    Raises:
        AttackError: A name is not known, or is given twice.
    """
    by_name = {attack.name: attack for attack in attacks}
    unknown = [name for name in names if name not in by_name]
    if unknown or len(set(names)) < len(names):
        found = f"{', '.join(unknown)} (not known)" if unknown else f"{', '.join(names)} (one of them twice)"
        raise AttackError(f"`evaluation.attacks.names`: found {found}; known: {', '.join(by_name)}.")
    return [by_name[name] for name in names]


def build_attack_prompts(attacks: Sequence[Attack], behaviours: pd.DataFrame) -> pd.DataFrame:
    """Ask for every behaviour in the way of every attack.

    Args:
        attacks: The attacks.
        behaviours: behaviour_id, behaviour, rule, domain (see `behaviours.collect_behaviours`).

    Returns:
        `ATTACK_PROMPT_COLUMNS`, one row per attack and behaviour, the attacks in order.
    """
    rows = [
        {
            "prompt_id": f"{attack.name}:{behaviour['behaviour_id']}",
            "attack": attack.name,
            "behaviour_id": behaviour["behaviour_id"],
            "prompt": behaviour["behaviour"],
            "messages": json.dumps(attack.build_chat(behaviour["behaviour"]), ensure_ascii=False),
            "rule": behaviour["rule"],
            "domain": behaviour["domain"],
        }
        for attack in attacks
        for behaviour in behaviours.to_dict("records")
    ]
    # Columns that no row fills would otherwise be of another type, and differ from run to run.
    return pd.DataFrame(rows, columns=list(ATTACK_PROMPT_COLUMNS)).astype(object)
