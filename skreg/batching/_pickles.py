"""Pickles of nets for other processes: with classes by value, and quick tensors."""

import io
import pickle

import cloudpickle
import torch

__all__ = ["Pickler", "packed", "portable_error", "unpacked"]

_NUMPY_DTYPES = {torch.float32, torch.float64, torch.int64, torch.int32, torch.bool}


class Pickler(cloudpickle.Pickler):
    """Carries classes of a notebook's by value, as joblib does, and tensors quickly."""

    def __init__(self, file):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)

    def reducer_override(self, obj):
        if type(obj) is torch.Tensor and _is_array(obj):
            numbers = bytearray(obj.numpy().tobytes())  # no array: those are shared
            return _tensor, (numbers, obj.dtype, obj.shape)
        return super().reducer_override(obj)


def _tensor(numbers: bytearray, dtype: torch.dtype, shape) -> torch.Tensor:
    return torch.frombuffer(numbers, dtype=dtype).reshape(shape)


def _is_array(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is no more than some numbers that NumPy knows."""
    return (
        tensor.device.type == "cpu"
        and tensor.numel() > 0
        and tensor.layout == torch.strided
        and tensor.dtype in _NUMPY_DTYPES
        and not tensor.requires_grad
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() == tensor.nbytes  # it is no view
    )


def packed(obj) -> bytes:
    """Return an object as bytes, for ``unpacked`` in this process or another."""
    file = io.BytesIO()
    Pickler(file).dump(obj)
    return file.getvalue()


def unpacked(data: bytes):
    """Return what ``packed`` has made bytes of."""
    return pickle.loads(data)


def portable_error(error: BaseException | None) -> BaseException | None:
    """Return an error that can be unpickled, which some classes of errors cannot."""
    if error is None:
        return None
    try:
        unpacked(packed(error))
    except Exception:  # of many kinds, since classes of errors do as they like
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
