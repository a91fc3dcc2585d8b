from .engine.bundle.bundle import Bundle as Bundle
from .engine.errors import (
    BudgetError as BudgetError,
)
from .engine.errors import (
    BuildError as BuildError,
)
from .engine.errors import (
    BundleError as BundleError,
)
from .engine.errors import (
    BusyError as BusyError,
)
from .engine.errors import (
    Cancelled as Cancelled,
)
from .engine.errors import (
    CheckpointError as CheckpointError,
)
from .engine.errors import (
    ExecutorError as ExecutorError,
)
from .engine.errors import (
    ExportError as ExportError,
)
from .engine.errors import (
    GpuMemoryError as GpuMemoryError,
)
from .engine.errors import (
    ImageError as ImageError,
)
from .engine.errors import (
    KontextError as KontextError,
)
from .engine.errors import (
    MissingDependencyError as MissingDependencyError,
)
from .engine.errors import (
    NotFiniteError as NotFiniteError,
)
from .engine.errors import (
    PlanError as PlanError,
)
from .engine.errors import (
    QuantizationError as QuantizationError,
)
from .engine.errors import (
    RequestError as RequestError,
)
from .engine.errors import (
    TargetError as TargetError,
)
from .engine.errors import (
    UntrustedPlanError as UntrustedPlanError,
)
from .runtime.executors.options import AnyExecutor as AnyExecutor
from .runtime.executors.options import Device as Device
from .runtime.executors.options import OnnxRuntimeOptions as OnnxRuntimeOptions
from .runtime.executors.options import TensorRtOptions as TensorRtOptions
from .runtime.executors.options import WhenBusy as WhenBusy
from .runtime.inputs.placement import Fit as Fit
from .runtime.inputs.placement import Placement as Placement
from .runtime.inputs.prompts import PromptCutWarning as PromptCutWarning
from .runtime.inputs.request import Request as Request
from .runtime.inputs.request import Sampling as Sampling
from .runtime.kontext import Kontext as Kontext
from .runtime.outputs.result import Output as Output
from .runtime.outputs.result import Result as Result
from .version import __version__ as __version__
