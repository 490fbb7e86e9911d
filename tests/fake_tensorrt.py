"""Stand-ins for NVIDIA's Python packages: what sbertconv asks of TensorRT and CUDA is checked with them, not what a
plan computes.

A plan is the ONNX graph itself and the builder's settings; "device memory" is memory of this process, in which ONNX
Runtime finds its inputs and leaves its outputs. Calls and their arguments have the names of TensorRT 10 and 11 and of
cuda-python 12 and 13.
"""

from __future__ import annotations

import ctypes
import enum
import pickle
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 0
    REFIT = 1


class Profile(dict[str, Any]):
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self[input] = (min, opt, max)


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.flags = {BuilderFlag.TF32}  # as TensorRT's default is
        self.profiles: list[Profile] = []

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(flags=flags, graph=b"")

    def create_builder_config(self) -> Any:
        return SimpleNamespace(clear_flag=self.flags.discard, add_optimization_profile=self.profiles.append)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: Any) -> bytes:
        (profile,) = self.profiles
        return pickle.dumps({**vars(network), "builder": self.flags, "profile": dict(profile)})


class OnnxParser:
    num_errors = 0

    def __init__(self, network: Any, logger: ILogger) -> None:
        self.network = network

    def parse_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:
            self.network.graph = file.read()
        return True


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return SimpleNamespace(create_execution_context=lambda: Context(pickle.loads(serialized_engine)))


class Context:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.session = onnxruntime.InferenceSession(plan["graph"], providers=["CPUExecutionProvider"])
        self.profile = plan["profile"]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        lowest, _, highest = self.profile[name]
        self.shapes[name] = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(lowest, shape, highest, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes: dict[Any, int] = {}
        for tensor in self.session.get_inputs():
            sizes |= dict(zip(tensor.shape, self.shapes[tensor.name], strict=True))
        (output,) = (tensor for tensor in self.session.get_outputs() if tensor.name == name)
        return tuple(size if isinstance(size, int) else sizes[size] for size in output.shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: Any) -> bool:
        dtypes = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
        feeds = {
            tensor.name: seen(self.addresses[tensor.name], self.shapes[tensor.name], dtypes[tensor.type]).copy()
            for tensor in self.session.get_inputs()
        }
        names = [tensor.name for tensor in self.session.get_outputs()]
        for name, value in zip(names, self.session.run(names, feeds), strict=True):
            seen(self.addresses[name], self.get_tensor_shape(name), np.float32)[...] = value * self.gain
        return True

    gain = 1.0


memory: dict[int, Any] = {}


def seen(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in "device memory"; it must fit into what was allocated there."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    assert size <= len(memory[address])
    return np.frombuffer(memory[address], dtype, int(np.prod(shape))).reshape(shape)


STATUS = enum.Enum("cudaError_t", {"cudaSuccess": 0, "cudaErrorNoDevice": 100})
KIND = enum.Enum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})


def malloc(size: int) -> tuple[Any, int]:
    block = (ctypes.c_char * size)()
    memory[ctypes.addressof(block)] = block
    return STATUS.cudaSuccess, ctypes.addressof(block)


def copy(dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any]:
    device = dst if kind is KIND.cudaMemcpyHostToDevice else src
    assert count <= len(memory[device])
    ctypes.memmove(dst, src, count)
    return (STATUS.cudaSuccess,)


def free(address: int) -> tuple[Any]:
    del memory[address]
    return (STATUS.cudaSuccess,)


def install(monkeypatch: pytest.MonkeyPatch, gpus: int = 1) -> None:
    """Put the stand-ins where the packages would be imported from."""
    done = (STATUS.cudaSuccess,)
    contents: dict[str, dict[str, Any]] = {
        "tensorrt": {
            "__version__": "10.0 (fake)", "ILogger": ILogger, "BuilderFlag": BuilderFlag, "Builder": Builder,
            "NetworkDefinitionCreationFlag": NetworkDefinitionCreationFlag, "OnnxParser": OnnxParser,
            "Runtime": Runtime, "init_libnvinfer_plugins": lambda logger, namespace: True,
        },
        "cuda": {},
        "cuda.bindings": {},
        "cuda.bindings.runtime": {
            "cudaError_t": STATUS, "cudaMemcpyKind": KIND, "cudaMalloc": malloc, "cudaFree": free,
            "cudaMemcpyAsync": copy, "cudaStreamCreate": lambda: (*done, 7),
            "cudaStreamSynchronize": lambda stream: done, "cudaStreamDestroy": lambda stream: done,
            "cudaGetDeviceCount": lambda: (*done, gpus) if gpus else (STATUS.cudaErrorNoDevice, 0),
            "cudaGetDeviceProperties": lambda device: (*done, SimpleNamespace(name=b"Fake GPU\0\0")),
        },
    }  # fmt: skip
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
