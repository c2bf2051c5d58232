"""KServe's `inference.*` messages, in a descriptor pool of their own.

Another package in the same process (tritonclient, say) may register the same full names in protobuf's default pool, and
two registrations clash. So these are read from a compiled descriptor set into a private pool.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

SERVICE = "inference.GRPCInferenceService"

POOL = descriptor_pool.DescriptorPool()


def _load() -> FileDescriptor:
    compiled = resources.files(__name__).joinpath("grpc_service.binpb").read_bytes()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(compiled).file
    POOL.AddSerializedFile(file.SerializeToString())
    return POOL.FindFileByName(file.name)


DESCRIPTOR: FileDescriptor = _load()


def message_class(name: str) -> Any:
    """Return the message class of `inference.<name>`; KeyError for a name that is not in the contract."""
    return message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name[name])


ServerLiveRequest = message_class("ServerLiveRequest")
ServerLiveResponse = message_class("ServerLiveResponse")
ServerReadyRequest = message_class("ServerReadyRequest")
ServerReadyResponse = message_class("ServerReadyResponse")
ModelReadyRequest = message_class("ModelReadyRequest")
ModelReadyResponse = message_class("ModelReadyResponse")
ServerMetadataRequest = message_class("ServerMetadataRequest")
ServerMetadataResponse = message_class("ServerMetadataResponse")
ModelMetadataRequest = message_class("ModelMetadataRequest")
ModelMetadataResponse = message_class("ModelMetadataResponse")
InferParameter = message_class("InferParameter")
InferTensorContents = message_class("InferTensorContents")
ModelInferRequest = message_class("ModelInferRequest")
ModelInferResponse = message_class("ModelInferResponse")
ModelStreamInferResponse = message_class("ModelStreamInferResponse")
ModelConfigRequest = message_class("ModelConfigRequest")
ModelConfigResponse = message_class("ModelConfigResponse")
ModelConfig = message_class("ModelConfig")
ModelStatisticsRequest = message_class("ModelStatisticsRequest")
ModelStatisticsResponse = message_class("ModelStatisticsResponse")
ModelStatistics = message_class("ModelStatistics")
RepositoryIndexRequest = message_class("RepositoryIndexRequest")
RepositoryIndexResponse = message_class("RepositoryIndexResponse")
