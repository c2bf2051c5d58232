import datetime

from demur.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Wish(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WISH_UNSPECIFIED: _ClassVar[Wish]
    PERSON: _ClassVar[Wish]
    MODEL: _ClassVar[Wish]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    ANSWERED: _ClassVar[Decision]
    DEFERRED: _ClassVar[Decision]
    PROVISIONAL: _ClassVar[Decision]
    UNREVIEWED: _ClassVar[Decision]
    UNCERTIFIED: _ClassVar[Decision]
WISH_UNSPECIFIED: Wish
PERSON: Wish
MODEL: Wish
DECISION_UNSPECIFIED: Decision
ANSWERED: Decision
DEFERRED: Decision
PROVISIONAL: Decision
UNREVIEWED: Decision
UNCERTIFIED: Decision

class PredictRequest(_message.Message):
    __slots__ = ("model", "version", "inputs", "subject", "idempotency_key", "callback", "priority", "review_deadline", "on_expiry", "wish", "attributes", "excluded_reviewers", "tier")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REVIEW_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    WISH_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_REVIEWERS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    inputs: _containers.RepeatedCompositeFieldContainer[_types_pb2.Tensor]
    subject: _types_pb2.Subject
    idempotency_key: str
    callback: _types_pb2.Callback
    priority: int
    review_deadline: _duration_pb2.Duration
    on_expiry: _types_pb2.OnExpiry
    wish: Wish
    attributes: _containers.ScalarMap[str, str]
    excluded_reviewers: _containers.RepeatedScalarFieldContainer[str]
    tier: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_types_pb2.Tensor, _Mapping]]] = ..., subject: _Optional[_Union[_types_pb2.Subject, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., callback: _Optional[_Union[_types_pb2.Callback, _Mapping]] = ..., priority: _Optional[int] = ..., review_deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., on_expiry: _Optional[_Union[_types_pb2.OnExpiry, str]] = ..., wish: _Optional[_Union[Wish, str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., excluded_reviewers: _Optional[_Iterable[str]] = ..., tier: _Optional[str] = ...) -> None: ...

class RuleVerdict(_message.Message):
    __slots__ = ("rule", "defers", "evaluation")
    RULE_FIELD_NUMBER: _ClassVar[int]
    DEFERS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    rule: str
    defers: bool
    evaluation: str
    def __init__(self, rule: _Optional[str] = ..., defers: _Optional[bool] = ..., evaluation: _Optional[str] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("decision", "prediction", "outputs", "deferral", "rules", "queue_duration", "compute_duration", "expected_wait", "certificate")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DURATION_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_DURATION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    prediction: _types_pb2.Prediction
    outputs: _containers.RepeatedCompositeFieldContainer[_types_pb2.Tensor]
    deferral: str
    rules: _containers.RepeatedCompositeFieldContainer[RuleVerdict]
    queue_duration: _duration_pb2.Duration
    compute_duration: _duration_pb2.Duration
    expected_wait: _duration_pb2.Duration
    certificate: str
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., prediction: _Optional[_Union[_types_pb2.Prediction, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[_types_pb2.Tensor, _Mapping]]] = ..., deferral: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[RuleVerdict, _Mapping]]] = ..., queue_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., compute_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expected_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., certificate: _Optional[str] = ...) -> None: ...

class RequestReviewRequest(_message.Message):
    __slots__ = ("queue", "subject", "task", "idempotency_key", "callback", "priority", "review_deadline", "on_expiry", "attributes", "excluded_reviewers", "tier")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REVIEW_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_REVIEWERS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    subject: _types_pb2.Subject
    task: _types_pb2.Task
    idempotency_key: str
    callback: _types_pb2.Callback
    priority: int
    review_deadline: _duration_pb2.Duration
    on_expiry: _types_pb2.OnExpiry
    attributes: _containers.ScalarMap[str, str]
    excluded_reviewers: _containers.RepeatedScalarFieldContainer[str]
    tier: str
    def __init__(self, queue: _Optional[str] = ..., subject: _Optional[_Union[_types_pb2.Subject, _Mapping]] = ..., task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., callback: _Optional[_Union[_types_pb2.Callback, _Mapping]] = ..., priority: _Optional[int] = ..., review_deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., on_expiry: _Optional[_Union[_types_pb2.OnExpiry, str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., excluded_reviewers: _Optional[_Iterable[str]] = ..., tier: _Optional[str] = ...) -> None: ...

class GetDeferralRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WaitDeferralRequest(_message.Message):
    __slots__ = ("name", "timeout")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    timeout: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CancelDeferralRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class WatchOutcomesRequest(_message.Message):
    __slots__ = ("queue", "cursor")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    queue: str
    cursor: str
    def __init__(self, queue: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class WatchOutcomesResponse(_message.Message):
    __slots__ = ("cursor", "deferral")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    deferral: _types_pb2.Deferral
    def __init__(self, cursor: _Optional[str] = ..., deferral: _Optional[_Union[_types_pb2.Deferral, _Mapping]] = ...) -> None: ...
