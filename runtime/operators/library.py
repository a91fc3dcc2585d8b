"""Gives ONNX Runtime domains of operators whose kernels are Python objects."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from typing import Any, ClassVar
from weakref import WeakSet

from ...engine.errors import ExecutorError
from . import elf
from .descriptions import Description
from .failures import signals_later
from .kernels import Operator
from .ort_api import REGISTER, Api


class Domain:
    """Holds the operators of a name, and adds them to sessions. There is one domain of a name in a process.

    ONNX Runtime copies neither descriptions nor callbacks, and uses them until the last session is gone, at the
    interpreter's end perhaps. So nothing of a domain is ever freed. Threads may share it.
    """

    _names: ClassVar[set[str]] = set()
    _names_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str) -> None:
        with self._names_lock:
            if name in self._names:
                raise ValueError(f"there is a domain {name} in this process; use that one")
            self._names.add(name)
        self.name = name
        self._lock = threading.Lock()
        self._operators: list[Operator] = []
        self._api: Api | None = None
        self._descriptions: dict[Operator, Description] = {}
        self._handles: dict[frozenset[Operator], int] = {}
        self._wanted: frozenset[Operator] = frozenset()
        self._path = ""
        self._added: WeakSet[Any] = WeakSet()
        self._entry = REGISTER(self._register)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators that were added, in that order."""
        return tuple(self._operators)

    def add(self, *operators: Operator) -> None:
        """Add operators. Sessions made before do not have them.

        Raises:
            ValueError: There is one of that name, provider and types, or one of that name with other numbers of them.
        """
        with self._lock:
            for new in operators:
                for old in (one for one in self._operators if one.name == new.name):
                    if (len(old.inputs), len(old.outputs)) != (len(new.inputs), len(new.outputs)):
                        raise ValueError(
                            f"{self.name}.{new.name} has {len(old.inputs)} inputs and {len(old.outputs)} "
                            "outputs for other types; it must have as many for all"
                        )
                    if (old.provider, old.inputs, old.outputs) == (new.provider, new.inputs, new.outputs):
                        raise ValueError(f"{self.name}.{new.name} is there for these types and {new.provider}")
                self._operators.append(new)

    def add_to(self, session_options: Any, operators: Iterable[Operator] | None = None) -> None:
        """Let the sessions that are made with these options use the operators: all, or those given.

        An operator that is added for other types or another provider than a node needs is an error when the session is
        made: ONNX Runtime does not use the function of that name then. So what cannot run is not to be given.

        Raises:
            ExecutorError: The options have this domain, or ONNX Runtime refuses an operator.
            ValueError: An operator is not of this domain.
        """
        with self._lock:
            wanted = frozenset(self._operators if operators is None else operators)
            if not wanted <= set(self._operators):
                raise ValueError(f"{', '.join(sorted(one.name for one in wanted))}: not all are added to {self.name}")
            if session_options in self._added:
                raise ExecutorError(f"the domain {self.name} was added to these options before")
            if not self._path:
                self._path = elf.library("RegisterCustomOps", ctypes.cast(self._entry, ctypes.c_void_p).value or 0)
            self._wanted = wanted
            try:
                with signals_later():
                    session_options.register_custom_ops_library(self._path)
            except Exception as error:
                raise ExecutorError(f"the operators of {self.name} cannot be added: {error}") from error
            self._added.add(session_options)

    def _register(self, options: int, base: int) -> int | None:
        """Add the wanted operators to options. ONNX Runtime calls it within `add_to`."""
        if self._api is None:
            self._api = Api(base)
        api = self._api
        try:
            if self._wanted not in self._handles:
                self._handles[self._wanted] = self._handle(api)
            api.call("AddCustomOpDomain", options, self._handles[self._wanted])
            return None
        except BaseException as error:
            return api.failure(f"{type(error).__name__}: {error}")

    def _handle(self, api: Api) -> int:
        """Make ONNX Runtime's own domain of the wanted operators."""
        handle = api.address("CreateCustomOpDomain", self.name.encode())
        for operator in (one for one in self._operators if one in self._wanted):
            if operator not in self._descriptions:
                self._descriptions[operator] = Description(api, operator)
            api.call("CustomOpDomain_Add", handle, ctypes.byref(self._descriptions[operator].structure))
        return handle
