"""TensorRT plans: built from an ONNX graph and run, through NVIDIA's own Python packages.

The calls are those that TensorRT 10 and 11 share:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.manifest import GraphSection
from sbertconv.artifact.naming import Arrays
from sbertconv.errors import ArtifactError, MissingDependencyError, missing_packages

PACKAGES = {"tensorrt": "tensorrt", "cuda": "cuda-python"}  # imported as -> installed as


def import_tensorrt(folder: Path) -> tuple[Any, Any]:
    """The packages tensorrt and cuda.bindings.runtime.

    Args:
        folder: the artifact's, for the message.

    Raises:
        MissingDependencyError: if one is not installed, or there is no GPU for them.
    """
    advice = (
        f'On the machine with the GPU: pip install "sbertconv[tensorrt]", then sbertconv build-plan {folder}\n'
        f"With NVIDIA's trtexec instead: sh {folder}/build-plan.sh"
    )
    if missing := missing_packages(*PACKAGES):
        names = ", ".join(PACKAGES[name] for name in missing)
        raise MissingDependencyError(f"TensorRT is not installed here: {names} missing.\n{advice}")
    import tensorrt
    from cuda.bindings import runtime as cuda

    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or not count:
        reason = error.name if error != cuda.cudaError_t.cudaSuccess else "no device"
        raise MissingDependencyError(f"TensorRT {tensorrt.__version__} finds no NVIDIA GPU here: {reason}.\n{advice}")
    return tensorrt, cuda


@cache
def log_of(trt: Any) -> Any:
    """What TensorRT says goes here: it takes one logger per process. `messages` are the errors since they were last
    taken.
    """

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.messages.append(message)

        def taken(self) -> str:
            found, self.messages = self.messages, []
            return "; ".join(found) or "it says no reason"

    return Log()


class PlanRunner:
    """A plan on the GPU: numpy arrays in, numpy arrays out, one batch at a time.

    A batch larger than the plan's largest is run in parts.
    """

    def __init__(self, trt: Any, cuda: Any, plan: Path, section: GraphSection, built_with: str) -> None:
        self.cuda = cuda
        self.profile = section["profile"]
        self.outputs = {tensor["name"]: np.dtype(tensor["dtype"]) for tensor in section["outputs"]}
        self.lock = threading.Lock()
        self.buffers: dict[str, tuple[int, int]] = {}  # address and size
        self.log = log_of(trt)
        self.log.taken()
        trt.init_libnvinfer_plugins(self.log, "")
        self.runtime = trt.Runtime(self.log)
        self.engine = self.runtime.deserialize_cuda_engine(plan.read_bytes())
        self.context = self.engine and self.engine.create_execution_context()
        if not self.context:
            raise ArtifactError(
                f"{plan}: TensorRT {trt.__version__} cannot load this plan: {self.log.taken()}\n"
                f"It was built with {built_with}, and runs on such a machine alone. Build it here: "
                f"sbertconv build-plan {plan.parent.parent}"
            )
        (self.stream,) = self._checked(cuda.cudaStreamCreate())
        weakref.finalize(self, _release, cuda, self.buffers, self.stream)

    def __call__(self, feeds: Arrays) -> Arrays:
        """Run a batch.

        Raises:
            ValueError: for a shape that the plan does not take.
            RuntimeError: if CUDA or TensorRT fails.
        """
        largest = min(self.profile[name]["max"][0] for name in feeds)
        count = len(next(iter(feeds.values())))
        with self.lock:
            parts = [
                self._run({name: array[start : start + largest] for name, array in feeds.items()})
                for start in range(0, count, largest)
            ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _run(self, feeds: Arrays) -> Arrays:
        kinds = self.cuda.cudaMemcpyKind
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        for name, array in arrays.items():
            if not self.context.set_input_shape(name, array.shape):
                raise ValueError(
                    f"{name} {list(array.shape)}: the plan takes {self.profile[name]['min']} to "
                    f"{self.profile[name]['max']}, see max_shape= of to-onnx"
                )
            self._copy(self._buffer(name, array.nbytes), array.ctypes.data, array.nbytes, kinds.cudaMemcpyHostToDevice)
        found = {
            name: np.empty(tuple(self.context.get_tensor_shape(name)), dtype) for name, dtype in self.outputs.items()
        }
        for name, array in found.items():
            self._buffer(name, array.nbytes)
        if not self.context.execute_async_v3(int(self.stream)):
            raise RuntimeError(self.log.taken())
        for name, array in found.items():
            self._copy(array.ctypes.data, self.buffers[name][0], array.nbytes, kinds.cudaMemcpyDeviceToHost)
        self._checked(self.cuda.cudaStreamSynchronize(self.stream))
        return found

    def _buffer(self, name: str, size: int) -> int:
        """The address of at least so many bytes of device memory for a tensor."""
        address, held = self.buffers.get(name, (0, 0))
        if size > held:
            if address:
                del self.buffers[name]
                self._checked(self.cuda.cudaFree(address))
            (address,) = self._checked(self.cuda.cudaMalloc(size))
            self.buffers[name] = int(address), size
            self.context.set_tensor_address(name, int(address))
        return int(address)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._checked(self.cuda.cudaMemcpyAsync(target, source, size, kind, self.stream))

    def _checked(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a CUDA call returns beside its status."""
        status, *found = result
        if status != self.cuda.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA: {status.name}")
        return tuple(found)


def _release(cuda: Any, buffers: Mapping[str, tuple[int, int]], stream: Any) -> None:
    for address, _ in buffers.values():
        cuda.cudaFree(address)
    cuda.cudaStreamDestroy(stream)


def gpu_name(cuda: Any) -> str:
    """The name of the GPU that is used."""
    _, properties = cuda.cudaGetDeviceProperties(0)
    return str(properties.name.split(b"\0")[0].decode())
