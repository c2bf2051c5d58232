import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnswerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_KIND_UNSPECIFIED: _ClassVar[AnswerKind]
    LABEL: _ClassVar[AnswerKind]
    LABELS: _ClassVar[AnswerKind]
    BOXES: _ClassVar[AnswerKind]
    NUMBER: _ClassVar[AnswerKind]
    JSON: _ClassVar[AnswerKind]

class OnExpiry(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_EXPIRY_UNSPECIFIED: _ClassVar[OnExpiry]
    ANSWER_UNREVIEWED: _ClassVar[OnExpiry]
    ABSTAIN: _ClassVar[OnExpiry]
    ESCALATE: _ClassVar[OnExpiry]

class ContentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTENT_STATE_UNSPECIFIED: _ClassVar[ContentState]
    PRESENT: _ClassVar[ContentState]
    ERASED: _ClassVar[ContentState]
    LOST: _ClassVar[ContentState]
ANSWER_KIND_UNSPECIFIED: AnswerKind
LABEL: AnswerKind
LABELS: AnswerKind
BOXES: AnswerKind
NUMBER: AnswerKind
JSON: AnswerKind
ON_EXPIRY_UNSPECIFIED: OnExpiry
ANSWER_UNREVIEWED: OnExpiry
ABSTAIN: OnExpiry
ESCALATE: OnExpiry
CONTENT_STATE_UNSPECIFIED: ContentState
PRESENT: ContentState
ERASED: ContentState
LOST: ContentState

class Tensor(_message.Message):
    __slots__ = ("name", "datatype", "shape", "raw")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    raw: bytes
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., raw: _Optional[bytes] = ...) -> None: ...

class Tensors(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("content", "media_type", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    media_type: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, content: _Optional[bytes] = ..., media_type: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LabelOption(_message.Message):
    __slots__ = ("label", "key")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    label: str
    key: str
    def __init__(self, label: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("question", "guidelines", "kind", "labels", "cant_tell")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    GUIDELINES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CANT_TELL_FIELD_NUMBER: _ClassVar[int]
    question: str
    guidelines: str
    kind: AnswerKind
    labels: _containers.RepeatedCompositeFieldContainer[LabelOption]
    cant_tell: bool
    def __init__(self, question: _Optional[str] = ..., guidelines: _Optional[str] = ..., kind: _Optional[_Union[AnswerKind, str]] = ..., labels: _Optional[_Iterable[_Union[LabelOption, _Mapping]]] = ..., cant_tell: _Optional[bool] = ...) -> None: ...

class Labels(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("label", "x", "y", "width", "height")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    label: str
    x: float
    y: float
    width: float
    height: float
    def __init__(self, label: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ...) -> None: ...

class Boxes(_message.Message):
    __slots__ = ("boxes",)
    BOXES_FIELD_NUMBER: _ClassVar[int]
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    def __init__(self, boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ...) -> None: ...

class CantTell(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Answer(_message.Message):
    __slots__ = ("label", "labels", "boxes", "number", "json", "cant_tell")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    CANT_TELL_FIELD_NUMBER: _ClassVar[int]
    label: str
    labels: Labels
    boxes: Boxes
    number: float
    json: str
    cant_tell: CantTell
    def __init__(self, label: _Optional[str] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., boxes: _Optional[_Union[Boxes, _Mapping]] = ..., number: _Optional[float] = ..., json: _Optional[str] = ..., cant_tell: _Optional[_Union[CantTell, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("model", "version", "answer", "confidence", "shown_confidence")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SHOWN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    answer: Answer
    confidence: float
    shown_confidence: float
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., confidence: _Optional[float] = ..., shown_confidence: _Optional[float] = ...) -> None: ...

class Callback(_message.Message):
    __slots__ = ("webhook_url", "grpc_target")
    WEBHOOK_URL_FIELD_NUMBER: _ClassVar[int]
    GRPC_TARGET_FIELD_NUMBER: _ClassVar[int]
    webhook_url: str
    grpc_target: str
    def __init__(self, webhook_url: _Optional[str] = ..., grpc_target: _Optional[str] = ...) -> None: ...

class Review(_message.Message):
    __slots__ = ("reviewer", "answer", "comment", "create_time", "blind", "duration", "tier")
    REVIEWER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    BLIND_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    reviewer: str
    answer: Answer
    comment: str
    create_time: _timestamp_pb2.Timestamp
    blind: bool
    duration: _duration_pb2.Duration
    tier: str
    def __init__(self, reviewer: _Optional[str] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., comment: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., blind: _Optional[bool] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tier: _Optional[str] = ...) -> None: ...

class Flag(_message.Message):
    __slots__ = ("reviewer", "comment", "create_time")
    REVIEWER_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    reviewer: str
    comment: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, reviewer: _Optional[str] = ..., comment: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Skip(_message.Message):
    __slots__ = ("reviewer", "reason", "create_time", "escalated")
    REVIEWER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ESCALATED_FIELD_NUMBER: _ClassVar[int]
    reviewer: str
    reason: str
    create_time: _timestamp_pb2.Timestamp
    escalated: bool
    def __init__(self, reviewer: _Optional[str] = ..., reason: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., escalated: _Optional[bool] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("source", "answer", "reviewed", "create_time")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[Outcome.Source]
        PERSON: _ClassVar[Outcome.Source]
        CONSENSUS: _ClassVar[Outcome.Source]
        EXPIRY: _ClassVar[Outcome.Source]
        CANCELLATION: _ClassVar[Outcome.Source]
    SOURCE_UNSPECIFIED: Outcome.Source
    PERSON: Outcome.Source
    CONSENSUS: Outcome.Source
    EXPIRY: Outcome.Source
    CANCELLATION: Outcome.Source
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REVIEWED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    source: Outcome.Source
    answer: Answer
    reviewed: bool
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, source: _Optional[_Union[Outcome.Source, str]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., reviewed: _Optional[bool] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Deferral(_message.Message):
    __slots__ = ("name", "state", "version", "task", "prediction", "outcome", "create_time", "expire_time", "priority", "attributes", "reasons", "audit", "reviews_done", "reviews_wanted", "subject", "flags", "skips", "tier", "expected_wait", "content", "certificate")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Deferral.State]
        OPEN: _ClassVar[Deferral.State]
        RESOLVED: _ClassVar[Deferral.State]
        EXPIRED: _ClassVar[Deferral.State]
        CANCELLED: _ClassVar[Deferral.State]
    STATE_UNSPECIFIED: Deferral.State
    OPEN: Deferral.State
    RESOLVED: Deferral.State
    EXPIRED: Deferral.State
    CANCELLED: Deferral.State
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    REVIEWS_DONE_FIELD_NUMBER: _ClassVar[int]
    REVIEWS_WANTED_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    SKIPS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: Deferral.State
    version: int
    task: Task
    prediction: Prediction
    outcome: Outcome
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    priority: int
    attributes: _containers.ScalarMap[str, str]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    audit: bool
    reviews_done: int
    reviews_wanted: int
    subject: Subject
    flags: _containers.RepeatedCompositeFieldContainer[Flag]
    skips: _containers.RepeatedCompositeFieldContainer[Skip]
    tier: str
    expected_wait: _duration_pb2.Duration
    content: ContentState
    certificate: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[Deferral.State, str]] = ..., version: _Optional[int] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., priority: _Optional[int] = ..., attributes: _Optional[_Mapping[str, str]] = ..., reasons: _Optional[_Iterable[str]] = ..., audit: _Optional[bool] = ..., reviews_done: _Optional[int] = ..., reviews_wanted: _Optional[int] = ..., subject: _Optional[_Union[Subject, _Mapping]] = ..., flags: _Optional[_Iterable[_Union[Flag, _Mapping]]] = ..., skips: _Optional[_Iterable[_Union[Skip, _Mapping]]] = ..., tier: _Optional[str] = ..., expected_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., content: _Optional[_Union[ContentState, str]] = ..., certificate: _Optional[str] = ...) -> None: ...
