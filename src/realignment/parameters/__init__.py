"""Every parameter, typed, checked before any node runs; Kedro builds them from `conf/*/parameters_*.yml`."""

from realignment.parameters.align import AlignParameters
from realignment.parameters.audit import AuditParameters
from realignment.parameters.base import ModelParameters, Parameters, Share
from realignment.parameters.baselines import BaselinesParameters, QuestionParameters, SetParameters
from realignment.parameters.capability import CapabilityFile, CapabilityParameters
from realignment.parameters.corrections import CorrectionsParameters, QualityParameters
from realignment.parameters.evaluate import ModelsParameters
from realignment.parameters.evaluation import (
    AnswerServerParameters,
    AttackParameters,
    EvaluationParameters,
    ServedModels,
)
from realignment.parameters.gate import GateParameters, GateRule, RuleCondition
from realignment.parameters.gold import GoldParameters
from realignment.parameters.impact import ImpactParameters
from realignment.parameters.infer_policy import ConstitutionParameters, PrinciplesParameters
from realignment.parameters.intake import IntakeParameters
from realignment.parameters.judge_stream import StreamingParameters
from realignment.parameters.judging import BatchParameters, JudgingParameters, RayParameters
from realignment.parameters.oracles import (
    CascadeParameters,
    ChatParameters,
    HumanParameters,
    LocalLMParameters,
    OracleParameters,
    TextClassifierParameters,
    VoteParameters,
)
from realignment.parameters.promotion import PromotionParameters
from realignment.parameters.review import ReviewParameters
from realignment.parameters.train_classifier import ClassifierParameters
from realignment.parameters.training import LoraParameters, LossParameters, TrainingParameters
from realignment.parameters.triage import TriageParameters
from realignment.parameters.win_rate import SeverityWeights, WinRateParameters

__all__ = [
    "AlignParameters",
    "AnswerServerParameters",
    "AttackParameters",
    "AuditParameters",
    "BaselinesParameters",
    "BatchParameters",
    "CapabilityFile",
    "CapabilityParameters",
    "CascadeParameters",
    "ChatParameters",
    "ClassifierParameters",
    "ConstitutionParameters",
    "CorrectionsParameters",
    "EvaluationParameters",
    "GateParameters",
    "GateRule",
    "GoldParameters",
    "HumanParameters",
    "ImpactParameters",
    "IntakeParameters",
    "JudgingParameters",
    "LocalLMParameters",
    "LoraParameters",
    "LossParameters",
    "ModelParameters",
    "ModelsParameters",
    "OracleParameters",
    "Parameters",
    "PrinciplesParameters",
    "PromotionParameters",
    "QualityParameters",
    "QuestionParameters",
    "RayParameters",
    "ReviewParameters",
    "RuleCondition",
    "ServedModels",
    "SetParameters",
    "SeverityWeights",
    "Share",
    "StreamingParameters",
    "TextClassifierParameters",
    "TrainingParameters",
    "TriageParameters",
    "VoteParameters",
    "WinRateParameters",
]
