"""Random numbers that belong to one net, with torch's global generators untouched."""

import pickle
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch

# torch has one default generator for all threads. Whoever draws from it holds this
# lock, so that nets that are trained in threads do not draw each other's numbers.
_GENERATORS = threading.RLock()


def draw_seed(random_state) -> int:
    """Return the seed of a net; an integer is its own seed."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(random_state.randint(np.iinfo(np.int32).max))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's shuffling, dropout and augmentation.

    It depends on nothing but its arguments: k calls of ``partial_fit`` for one epoch
    each draw what one ``fit`` of k epochs draws.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def make_generator(seed: int, device="cpu") -> torch.Generator:
    """Return a generator that draws what torch's own one would, if seeded so."""
    generator = torch.Generator(device)
    generator.manual_seed(seed)
    return generator


@contextmanager
def borrowed(
    generator: torch.Generator,
    device: torch.device,
    of_device: torch.Generator | None = None,
) -> Iterator[None]:
    """Let torch's own generators draw what others would draw next.

    Parameters
    ----------
    generator : torch.Generator
        Of the CPU.
    device : torch.device
    of_device : torch.Generator, default=None
        Of `device`, if that is another one; None seeds torch's own one with what
        `generator` draws.
    """
    accelerators = [] if device.type == "cpu" else [device]
    with (
        _GENERATORS,
        torch.random.fork_rng(accelerators, device_type=_fork_type(device)),
    ):
        for accelerator in accelerators:
            module = torch.get_device_module(accelerator)
            if of_device is not None:
                module.set_rng_state(of_device.get_state(), device)
                continue
            seed = torch.randint(2**62, (), generator=generator).item()
            with module.device(accelerator):
                module.manual_seed(seed)
        torch.default_generator.set_state(generator.get_state())
        yield
        generator.set_state(torch.default_generator.get_state())
        if accelerators and of_device is not None:
            module = torch.get_device_module(device)
            of_device.set_state(module.get_rng_state(device))


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU; on leaving, put back the state it had.

    It takes a tenth of the time of `seeded`, for code that draws from torch alone.
    """
    generator = torch.default_generator
    with _GENERATORS:
        state = generator.get_state()
        try:
            generator.manual_seed(seed)
            yield
        finally:
            generator.set_state(state)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, NumPy and random; on leaving, put back the states they had."""
    accelerators = [] if device.type == "cpu" else [device]
    with (
        _GENERATORS,
        torch.random.fork_rng(accelerators, device_type=_fork_type(device)),
    ):
        numpy_state, python_state = np.random.get_state(), random.getstate()
        try:
            # torch.manual_seed would also seed devices that this net does not use.
            torch.default_generator.manual_seed(seed)
            for accelerator in accelerators:
                with torch.get_device_module(accelerator).device(accelerator):
                    torch.get_device_module(accelerator).manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def random_states() -> bytes:
    """Return the states of the generators of NumPy and of ``random``, as one."""
    return pickle.dumps((np.random.get_state(), random.getstate()))


def _fork_type(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type
