"""Runs FLUX.1 Kontext [dev] on NVIDIA GPUs, from a checkpoint to an edited picture.

    from kontext_trt import Kontext

    with Kontext.open("bundle") as kontext:
        kontext.edit("cat.png", "make the cat orange", seed=0).save("orange-cat.png")

The public names stand in `__init__.pyi`, each with the module that it comes from. A name is imported when it is first
asked for, so a process that compiles a plan or looks at a machine does not import what makes pictures.
"""

import lazy_loader

from .engine.errors import MissingDependencyError as _MissingDependencyError
from .version import __version__ as __version__

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import a public name. Raises MissingDependencyError if it needs a package that is not installed."""
    try:
        return _named(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == __name__:
            raise
        raise _MissingDependencyError(
            f"{__name__}.{name} needs {error.name}, which is missing; `kontext-trt doctor` says what installs it"
        ) from error
