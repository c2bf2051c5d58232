import datetime

from demur.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReviewQueue(_message.Message):
    __slots__ = ("name", "waiting", "held", "open", "assisted", "lease_duration", "reviewers", "undo_window", "tiers", "next_free_time", "expected_wait", "over", "content_bytes", "asked_last_hour", "budget_per_hour", "depth_max")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ASSISTED_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVIEWERS_FIELD_NUMBER: _ClassVar[int]
    UNDO_WINDOW_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FREE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ASKED_LAST_HOUR_FIELD_NUMBER: _ClassVar[int]
    BUDGET_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    DEPTH_MAX_FIELD_NUMBER: _ClassVar[int]
    name: str
    waiting: int
    held: int
    open: int
    assisted: bool
    lease_duration: _duration_pb2.Duration
    reviewers: int
    undo_window: _duration_pb2.Duration
    tiers: _containers.RepeatedCompositeFieldContainer[ReviewTier]
    next_free_time: _timestamp_pb2.Timestamp
    expected_wait: _duration_pb2.Duration
    over: _containers.RepeatedScalarFieldContainer[str]
    content_bytes: int
    asked_last_hour: int
    budget_per_hour: int
    depth_max: int
    def __init__(self, name: _Optional[str] = ..., waiting: _Optional[int] = ..., held: _Optional[int] = ..., open: _Optional[int] = ..., assisted: _Optional[bool] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reviewers: _Optional[int] = ..., undo_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tiers: _Optional[_Iterable[_Union[ReviewTier, _Mapping]]] = ..., next_free_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., over: _Optional[_Iterable[str]] = ..., content_bytes: _Optional[int] = ..., asked_last_hour: _Optional[int] = ..., budget_per_hour: _Optional[int] = ..., depth_max: _Optional[int] = ...) -> None: ...

class ReviewTier(_message.Message):
    __slots__ = ("name", "waiting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    name: str
    waiting: int
    def __init__(self, name: _Optional[str] = ..., waiting: _Optional[int] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[ReviewQueue]
    def __init__(self, queues: _Optional[_Iterable[_Union[ReviewQueue, _Mapping]]] = ...) -> None: ...

class LeaseDeferralsRequest(_message.Message):
    __slots__ = ("queue", "limit", "wait", "skills", "resume")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    SKILLS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    queue: str
    limit: int
    wait: _duration_pb2.Duration
    skills: _containers.RepeatedScalarFieldContainer[str]
    resume: bool
    def __init__(self, queue: _Optional[str] = ..., limit: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., skills: _Optional[_Iterable[str]] = ..., resume: _Optional[bool] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("token", "deferral", "expire_time", "blind", "draft")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BLIND_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    token: str
    deferral: _types_pb2.Deferral
    expire_time: _timestamp_pb2.Timestamp
    blind: bool
    draft: str
    def __init__(self, token: _Optional[str] = ..., deferral: _Optional[_Union[_types_pb2.Deferral, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., blind: _Optional[bool] = ..., draft: _Optional[str] = ...) -> None: ...

class LeaseDeferralsResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class ExtendLeaseRequest(_message.Message):
    __slots__ = ("token", "request_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    request_id: str
    def __init__(self, token: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("token", "request_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    request_id: str
    def __init__(self, token: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ReleaseLeaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubmitReviewRequest(_message.Message):
    __slots__ = ("token", "answer", "comment", "request_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    answer: _types_pb2.Answer
    comment: str
    request_id: str
    def __init__(self, token: _Optional[str] = ..., answer: _Optional[_Union[_types_pb2.Answer, _Mapping]] = ..., comment: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SubmitReviewResponse(_message.Message):
    __slots__ = ("deferral", "model_agreed")
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_AGREED_FIELD_NUMBER: _ClassVar[int]
    deferral: _types_pb2.Deferral
    model_agreed: bool
    def __init__(self, deferral: _Optional[_Union[_types_pb2.Deferral, _Mapping]] = ..., model_agreed: _Optional[bool] = ...) -> None: ...

class SkipDeferralRequest(_message.Message):
    __slots__ = ("token", "reason", "request_id", "escalate")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ESCALATE_FIELD_NUMBER: _ClassVar[int]
    token: str
    reason: str
    request_id: str
    escalate: bool
    def __init__(self, token: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., escalate: _Optional[bool] = ...) -> None: ...

class SkipDeferralResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UndoReviewRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class FlagDeferralRequest(_message.Message):
    __slots__ = ("name", "comment", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    comment: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., comment: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class FlagDeferralResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SaveDraftRequest(_message.Message):
    __slots__ = ("token", "draft", "request_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    draft: str
    request_id: str
    def __init__(self, token: _Optional[str] = ..., draft: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SaveDraftResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EraseContentRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetReviewDeferralRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListDeferralsRequest(_message.Message):
    __slots__ = ("queue", "state", "page_size", "page_token", "flagged")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    queue: str
    state: _types_pb2.Deferral.State
    page_size: int
    page_token: str
    flagged: bool
    def __init__(self, queue: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.Deferral.State, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., flagged: _Optional[bool] = ...) -> None: ...

class ListDeferralsResponse(_message.Message):
    __slots__ = ("deferrals", "next_page_token")
    DEFERRALS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    deferrals: _containers.RepeatedCompositeFieldContainer[_types_pb2.Deferral]
    next_page_token: str
    def __init__(self, deferrals: _Optional[_Iterable[_Union[_types_pb2.Deferral, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CallbackEntry(_message.Message):
    __slots__ = ("name", "deferral", "type", "target", "state", "attempt", "next_time", "reason", "create_time", "dead_time", "version", "disabled")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[CallbackEntry.State]
        PENDING: _ClassVar[CallbackEntry.State]
        DEAD: _ClassVar[CallbackEntry.State]
        TOLD: _ClassVar[CallbackEntry.State]
    STATE_UNSPECIFIED: CallbackEntry.State
    PENDING: CallbackEntry.State
    DEAD: CallbackEntry.State
    TOLD: CallbackEntry.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEAD_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    name: str
    deferral: str
    type: str
    target: _types_pb2.Callback
    state: CallbackEntry.State
    attempt: int
    next_time: _timestamp_pb2.Timestamp
    reason: str
    create_time: _timestamp_pb2.Timestamp
    dead_time: _timestamp_pb2.Timestamp
    version: int
    disabled: bool
    def __init__(self, name: _Optional[str] = ..., deferral: _Optional[str] = ..., type: _Optional[str] = ..., target: _Optional[_Union[_types_pb2.Callback, _Mapping]] = ..., state: _Optional[_Union[CallbackEntry.State, str]] = ..., attempt: _Optional[int] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dead_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., disabled: _Optional[bool] = ...) -> None: ...

class ListCallbacksRequest(_message.Message):
    __slots__ = ("queue", "state", "page_size", "page_token")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    queue: str
    state: CallbackEntry.State
    page_size: int
    page_token: str
    def __init__(self, queue: _Optional[str] = ..., state: _Optional[_Union[CallbackEntry.State, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCallbacksResponse(_message.Message):
    __slots__ = ("callbacks", "next_page_token")
    CALLBACKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    callbacks: _containers.RepeatedCompositeFieldContainer[CallbackEntry]
    next_page_token: str
    def __init__(self, callbacks: _Optional[_Iterable[_Union[CallbackEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCallbackRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RedeliverCallbacksRequest(_message.Message):
    __slots__ = ("queue", "names", "all", "request_id")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    queue: str
    names: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    request_id: str
    def __init__(self, queue: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., all: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class RedeliverCallbacksResponse(_message.Message):
    __slots__ = ("redelivered",)
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    redelivered: int
    def __init__(self, redelivered: _Optional[int] = ...) -> None: ...

class AddGoldRequest(_message.Message):
    __slots__ = ("queue", "deferral", "subject", "task", "answer")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DEFERRAL_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    deferral: str
    subject: _types_pb2.Subject
    task: _types_pb2.Task
    answer: _types_pb2.Answer
    def __init__(self, queue: _Optional[str] = ..., deferral: _Optional[str] = ..., subject: _Optional[_Union[_types_pb2.Subject, _Mapping]] = ..., task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., answer: _Optional[_Union[_types_pb2.Answer, _Mapping]] = ...) -> None: ...

class Tried(_message.Message):
    __slots__ = ("right", "wrong")
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    right: int
    wrong: int
    def __init__(self, right: _Optional[int] = ..., wrong: _Optional[int] = ...) -> None: ...

class GoldItem(_message.Message):
    __slots__ = ("name", "answer", "tried")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    name: str
    answer: _types_pb2.Answer
    tried: Tried
    def __init__(self, name: _Optional[str] = ..., answer: _Optional[_Union[_types_pb2.Answer, _Mapping]] = ..., tried: _Optional[_Union[Tried, _Mapping]] = ...) -> None: ...

class ListGoldRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class ListGoldResponse(_message.Message):
    __slots__ = ("items", "reviewers", "tried", "share")
    class ReviewersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tried
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tried, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    REVIEWERS_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[GoldItem]
    reviewers: _containers.MessageMap[str, Tried]
    tried: Tried
    share: float
    def __init__(self, items: _Optional[_Iterable[_Union[GoldItem, _Mapping]]] = ..., reviewers: _Optional[_Mapping[str, Tried]] = ..., tried: _Optional[_Union[Tried, _Mapping]] = ..., share: _Optional[float] = ...) -> None: ...

class RemoveGoldRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveGoldResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
