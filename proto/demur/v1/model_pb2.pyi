import datetime

from demur.v1 import types_pb2 as _types_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelVersion(_message.Message):
    __slots__ = ("name", "state", "reason", "create_time", "sha256", "manifest")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ModelVersion.State]
        CANDIDATE: _ClassVar[ModelVersion.State]
        SHADOW: _ClassVar[ModelVersion.State]
        CANARY: _ClassVar[ModelVersion.State]
        CHAMPION: _ClassVar[ModelVersion.State]
        RETIRED: _ClassVar[ModelVersion.State]
        REJECTED: _ClassVar[ModelVersion.State]
        ROLLED_BACK: _ClassVar[ModelVersion.State]
    STATE_UNSPECIFIED: ModelVersion.State
    CANDIDATE: ModelVersion.State
    SHADOW: ModelVersion.State
    CANARY: ModelVersion.State
    CHAMPION: ModelVersion.State
    RETIRED: ModelVersion.State
    REJECTED: ModelVersion.State
    ROLLED_BACK: ModelVersion.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: ModelVersion.State
    reason: str
    create_time: _timestamp_pb2.Timestamp
    sha256: str
    manifest: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[ModelVersion.State, str]] = ..., reason: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sha256: _Optional[str] = ..., manifest: _Optional[str] = ...) -> None: ...

class PublishModelVersionRequest(_message.Message):
    __slots__ = ("header", "chunk")
    class Header(_message.Message):
        __slots__ = ("model", "manifest", "promote", "reason")
        MODEL_FIELD_NUMBER: _ClassVar[int]
        MANIFEST_FIELD_NUMBER: _ClassVar[int]
        PROMOTE_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        model: str
        manifest: str
        promote: bool
        reason: str
        def __init__(self, model: _Optional[str] = ..., manifest: _Optional[str] = ..., promote: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: PublishModelVersionRequest.Header
    chunk: bytes
    def __init__(self, header: _Optional[_Union[PublishModelVersionRequest.Header, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ListModelVersionsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListModelVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class PromoteModelVersionRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ShadowModelVersionRequest(_message.Message):
    __slots__ = ("name", "reason", "stop")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    stop: bool
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ..., stop: _Optional[bool] = ...) -> None: ...

class RollBackModelRequest(_message.Message):
    __slots__ = ("model", "reason", "expected_champion")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    model: str
    reason: str
    expected_champion: str
    def __init__(self, model: _Optional[str] = ..., reason: _Optional[str] = ..., expected_champion: _Optional[str] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("name", "attributes", "alpha", "delta")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    name: str
    attributes: _containers.ScalarMap[str, str]
    alpha: float
    delta: float
    def __init__(self, name: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., alpha: _Optional[float] = ..., delta: _Optional[float] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("model", "revision", "threshold", "class_thresholds", "always_person", "audit_share", "allow_model_wish", "alpha", "delta", "scorer", "reviews_per_hour_max", "expire_days", "lifetime", "until_proved", "segments", "plan")
    class ClassThresholdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    CLASS_THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    ALWAYS_PERSON_FIELD_NUMBER: _ClassVar[int]
    AUDIT_SHARE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MODEL_WISH_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    SCORER_FIELD_NUMBER: _ClassVar[int]
    REVIEWS_PER_HOUR_MAX_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_DAYS_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_PROVED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    threshold: float
    class_thresholds: _containers.ScalarMap[str, float]
    always_person: _containers.RepeatedScalarFieldContainer[str]
    audit_share: float
    allow_model_wish: bool
    alpha: float
    delta: float
    scorer: str
    reviews_per_hour_max: float
    expire_days: float
    lifetime: bool
    until_proved: str
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    plan: Plan
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., threshold: _Optional[float] = ..., class_thresholds: _Optional[_Mapping[str, float]] = ..., always_person: _Optional[_Iterable[str]] = ..., audit_share: _Optional[float] = ..., allow_model_wish: _Optional[bool] = ..., alpha: _Optional[float] = ..., delta: _Optional[float] = ..., scorer: _Optional[str] = ..., reviews_per_hour_max: _Optional[float] = ..., expire_days: _Optional[float] = ..., lifetime: _Optional[bool] = ..., until_proved: _Optional[str] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...

class Work(_message.Message):
    __slots__ = ("requests_per_hour", "coverage", "true_error", "model_error", "review_seconds")
    REQUESTS_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    TRUE_ERROR_FIELD_NUMBER: _ClassVar[int]
    MODEL_ERROR_FIELD_NUMBER: _ClassVar[int]
    REVIEW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    requests_per_hour: float
    coverage: float
    true_error: float
    model_error: float
    review_seconds: float
    def __init__(self, requests_per_hour: _Optional[float] = ..., coverage: _Optional[float] = ..., true_error: _Optional[float] = ..., model_error: _Optional[float] = ..., review_seconds: _Optional[float] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("work", "seen_error", "audits", "audits_high", "requests", "days", "person_hours", "reviews_per_hour_before", "reviews_per_hour_after", "problems")
    WORK_FIELD_NUMBER: _ClassVar[int]
    SEEN_ERROR_FIELD_NUMBER: _ClassVar[int]
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    AUDITS_HIGH_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    PERSON_HOURS_FIELD_NUMBER: _ClassVar[int]
    REVIEWS_PER_HOUR_BEFORE_FIELD_NUMBER: _ClassVar[int]
    REVIEWS_PER_HOUR_AFTER_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    work: Work
    seen_error: float
    audits: int
    audits_high: int
    requests: int
    days: float
    person_hours: float
    reviews_per_hour_before: float
    reviews_per_hour_after: float
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, work: _Optional[_Union[Work, _Mapping]] = ..., seen_error: _Optional[float] = ..., audits: _Optional[int] = ..., audits_high: _Optional[int] = ..., requests: _Optional[int] = ..., days: _Optional[float] = ..., person_hours: _Optional[float] = ..., reviews_per_hour_before: _Optional[float] = ..., reviews_per_hour_after: _Optional[float] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UpdatePolicyRequest(_message.Message):
    __slots__ = ("policy", "validate_only", "accept_problems", "work")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    validate_only: bool
    accept_problems: bool
    work: Work
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., validate_only: _Optional[bool] = ..., accept_problems: _Optional[bool] = ..., work: _Optional[_Union[Work, _Mapping]] = ...) -> None: ...

class GetCertificateRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("model", "stage", "alpha", "delta", "version", "epoch", "certificate", "tau", "coverage", "error_bound", "audits", "audits_needed", "requests", "watermark_time", "expire_time", "advice", "miss", "reviewer_error", "digest", "thresholds", "alarm", "segment", "segments", "challengers", "share")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STAGE_UNSPECIFIED: _ClassVar[Certificate.Stage]
        OFF: _ClassVar[Certificate.Stage]
        SURVEYING: _ClassVar[Certificate.Stage]
        PROVING: _ClassVar[Certificate.Stage]
        CERTIFIED: _ClassVar[Certificate.Stage]
        ALARMED: _ClassVar[Certificate.Stage]
    STAGE_UNSPECIFIED: Certificate.Stage
    OFF: Certificate.Stage
    SURVEYING: Certificate.Stage
    PROVING: Certificate.Stage
    CERTIFIED: Certificate.Stage
    ALARMED: Certificate.Stage
    class Threshold(_message.Message):
        __slots__ = ("threshold", "evidence", "proved", "coverage", "audits", "errors", "seen_error")
        THRESHOLD_FIELD_NUMBER: _ClassVar[int]
        EVIDENCE_FIELD_NUMBER: _ClassVar[int]
        PROVED_FIELD_NUMBER: _ClassVar[int]
        COVERAGE_FIELD_NUMBER: _ClassVar[int]
        AUDITS_FIELD_NUMBER: _ClassVar[int]
        ERRORS_FIELD_NUMBER: _ClassVar[int]
        SEEN_ERROR_FIELD_NUMBER: _ClassVar[int]
        threshold: float
        evidence: float
        proved: bool
        coverage: float
        audits: int
        errors: int
        seen_error: float
        def __init__(self, threshold: _Optional[float] = ..., evidence: _Optional[float] = ..., proved: _Optional[bool] = ..., coverage: _Optional[float] = ..., audits: _Optional[int] = ..., errors: _Optional[int] = ..., seen_error: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    TAU_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_BOUND_FIELD_NUMBER: _ClassVar[int]
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    AUDITS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    MISS_FIELD_NUMBER: _ClassVar[int]
    REVIEWER_ERROR_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    CHALLENGERS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    stage: Certificate.Stage
    alpha: float
    delta: float
    version: str
    epoch: str
    certificate: str
    tau: float
    coverage: float
    error_bound: float
    audits: int
    audits_needed: int
    requests: int
    watermark_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    advice: str
    miss: float
    reviewer_error: float
    digest: str
    thresholds: _containers.RepeatedCompositeFieldContainer[Certificate.Threshold]
    alarm: str
    segment: str
    segments: _containers.RepeatedCompositeFieldContainer[Certificate]
    challengers: _containers.RepeatedCompositeFieldContainer[Certificate]
    share: float
    def __init__(self, model: _Optional[str] = ..., stage: _Optional[_Union[Certificate.Stage, str]] = ..., alpha: _Optional[float] = ..., delta: _Optional[float] = ..., version: _Optional[str] = ..., epoch: _Optional[str] = ..., certificate: _Optional[str] = ..., tau: _Optional[float] = ..., coverage: _Optional[float] = ..., error_bound: _Optional[float] = ..., audits: _Optional[int] = ..., audits_needed: _Optional[int] = ..., requests: _Optional[int] = ..., watermark_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., advice: _Optional[str] = ..., miss: _Optional[float] = ..., reviewer_error: _Optional[float] = ..., digest: _Optional[str] = ..., thresholds: _Optional[_Iterable[_Union[Certificate.Threshold, _Mapping]]] = ..., alarm: _Optional[str] = ..., segment: _Optional[str] = ..., segments: _Optional[_Iterable[_Union[Certificate, _Mapping]]] = ..., challengers: _Optional[_Iterable[_Union[Certificate, _Mapping]]] = ..., share: _Optional[float] = ...) -> None: ...

class ListAmendmentsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListAmendmentsResponse(_message.Message):
    __slots__ = ("amendments",)
    AMENDMENTS_FIELD_NUMBER: _ClassVar[int]
    amendments: _containers.RepeatedCompositeFieldContainer[Amendment]
    def __init__(self, amendments: _Optional[_Iterable[_Union[Amendment, _Mapping]]] = ...) -> None: ...

class Amendment(_message.Message):
    __slots__ = ("deferral", "version", "client", "predicted", "confidence", "answer", "amend_time", "nearest")
    class Near(_message.Message):
        __slots__ = ("client", "request", "row", "confidence", "answer_time")
        CLIENT_FIELD_NUMBER: _ClassVar[int]
        REQUEST_FIELD_NUMBER: _ClassVar[int]
        ROW_FIELD_NUMBER: _ClassVar[int]
        CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
        ANSWER_TIME_FIELD_NUMBER: _ClassVar[int]
        client: str
        request: str
        row: int
        confidence: float
        answer_time: _timestamp_pb2.Timestamp
        def __init__(self, client: _Optional[str] = ..., request: _Optional[str] = ..., row: _Optional[int] = ..., confidence: _Optional[float] = ..., answer_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    AMEND_TIME_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    deferral: str
    version: str
    client: str
    predicted: str
    confidence: float
    answer: _types_pb2.Answer
    amend_time: _timestamp_pb2.Timestamp
    nearest: _containers.RepeatedCompositeFieldContainer[Amendment.Near]
    def __init__(self, deferral: _Optional[str] = ..., version: _Optional[str] = ..., client: _Optional[str] = ..., predicted: _Optional[str] = ..., confidence: _Optional[float] = ..., answer: _Optional[_Union[_types_pb2.Answer, _Mapping]] = ..., amend_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., nearest: _Optional[_Iterable[_Union[Amendment.Near, _Mapping]]] = ...) -> None: ...
