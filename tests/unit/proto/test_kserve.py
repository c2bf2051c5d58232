"""Our `inference.*` is the one that Triton's clients speak."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from tritonclient.grpc import service_pb2 as triton

from demur import kserve

Field = tuple[str, int, int, bool, str, str, str]
# Of these only what is said of a model here stands in our contract.
IN_PART = {
    *("ModelConfig", "ModelInput", "ModelOutput", "ModelVersionPolicy", "ModelInstanceGroup", "ModelDynamicBatching"),
    "ModelStatistics",
}


def _fields(message: Descriptor) -> set[Field]:
    return {
        (
            field.name,
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else "",
            field.enum_type.full_name if field.enum_type else "",
            field.containing_oneof.name if field.containing_oneof else "",
        )
        for field in message.fields
    }


def _messages(message: Descriptor) -> list[Descriptor]:
    return [message, *(inner for nested in message.nested_types for inner in _messages(nested))]


MESSAGES = [inner for message in kserve.DESCRIPTOR.message_types_by_name.values() for inner in _messages(message)]
ENUMS = [
    *kserve.DESCRIPTOR.enum_types_by_name.values(),
    *(enum for message in MESSAGES for enum in message.enum_types),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.full_name)
def test_fields_have_the_names_numbers_and_types_of_triton(message: Descriptor) -> None:
    """A client compiled from Triton's contract and a server compiled from ours understand each other."""
    theirs = _fields(triton.DESCRIPTOR.pool.FindMessageTypeByName(message.full_name))
    assert _fields(message) <= theirs
    assert message.name in IN_PART or _fields(message) == theirs


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.full_name)
def test_enums_have_the_names_and_numbers_of_triton(enum: EnumDescriptor) -> None:
    """All of them."""
    theirs = triton.DESCRIPTOR.pool.FindEnumTypeByName(enum.full_name)
    assert {each.name: each.number for each in enum.values} == {each.name: each.number for each in theirs.values}


def test_methods_have_the_types_of_triton() -> None:
    """Every method we serve takes and returns what Triton's does."""
    theirs = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in kserve.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name.items():
        assert method.input_type.full_name == theirs[name].input_type.full_name
        assert method.output_type.full_name == theirs[name].output_type.full_name


def test_the_pool_is_our_own() -> None:
    """Registering `inference.*` in the default pool would clash with a client in the same process."""
    assert kserve.POOL is not descriptor_pool.Default()
    assert kserve.ModelInferRequest.DESCRIPTOR is not triton.ModelInferRequest.DESCRIPTOR


def test_bytes_written_by_triton_are_read_by_us() -> None:
    """The same request, byte for byte, through both classes."""
    request = triton.ModelInferRequest(model_name="digits", id="7", raw_input_contents=[b"\x00\x01"])
    request.parameters["demur_priority"].int64_param = 3
    ours = kserve.ModelInferRequest.FromString(request.SerializeToString())
    assert (ours.model_name, ours.id, list(ours.raw_input_contents)) == ("digits", "7", [b"\x00\x01"])
    assert ours.parameters["demur_priority"].int64_param == 3
