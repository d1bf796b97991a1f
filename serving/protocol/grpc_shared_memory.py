"""gRPC methods of shared memory: regions registered, listed and forgotten."""

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.protocol.cuda_memory import NO_REGIONS, check_status, refuse
from serving.protocol.grpc_method import Method


def shared_memory_methods(dataplane: DataPlane) -> Mapping[str, Method]:
    """Status, Register and Unregister, of system and of CUDA shared memory."""
    service = _SharedMemoryService(dataplane)
    names = {
        "SystemSharedMemoryStatus": service.status,
        "SystemSharedMemoryRegister": service.register,
        "SystemSharedMemoryUnregister": service.unregister,
        "CudaSharedMemoryStatus": service.cuda_status,
        "CudaSharedMemoryRegister": service.cuda_register,
        "CudaSharedMemoryUnregister": service.cuda_unregister,
    }
    return {
        name: Method(getattr(service_pb2, f"{name}Request"), answer)
        for name, answer in names.items()
    }


class _SharedMemoryService:
    def __init__(self, dataplane: DataPlane) -> None:
        self._regions = dataplane.regions

    async def status(self, request: Any, _deadline_ns: int | None) -> Any:
        """Every region, or that of a name. Raises NotFound."""
        response = service_pb2.SystemSharedMemoryStatusResponse()
        for region in self._regions.listed(request.name):
            row = response.regions[region.name]
            row.name, row.key = region.name, region.key
            row.offset, row.byte_size = region.offset, region.size_bytes
        return response

    async def register(self, request: Any, _deadline_ns: int | None) -> Any:
        """Admit a region. Raises the errors of `Regions.register`."""
        self._regions.register(
            request.name, key=request.key, offset=request.offset, size_bytes=request.byte_size
        )
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def unregister(self, request: Any, _deadline_ns: int | None) -> Any:
        """Forget a region; without a name, all of them."""
        self._regions.unregister(request.name)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    async def cuda_status(self, request: Any, _deadline_ns: int | None) -> Any:
        """No region: none can be registered. Raises NotFound for one of a name."""
        check_status(request.name)
        return service_pb2.CudaSharedMemoryStatusResponse(regions=NO_REGIONS)

    async def cuda_register(self, request: Any, _deadline_ns: int | None) -> Any:
        """Raises InvalidInput: see `cuda_memory`."""
        refuse(request.name)

    async def cuda_unregister(self, _request: Any, _deadline_ns: int | None) -> Any:
        """As Triton, forgetting what is not there is no error."""
        return service_pb2.CudaSharedMemoryUnregisterResponse()
