"""Write ``docs/inventories/*.inv``: where the names of other projects that our pages refer to are documented.

The documentation is built without a network, so Sphinx reads these inventories instead of those that the projects publish.
A name that the build cannot find ("reference target not found") is added below, and the script is run again::

    python docs/make_inventories.py

An entry ``alias=name`` is for a class whose module is not where it is documented: a signature shows
``torch.nn.modules.module.Module``, the page is that of ``torch.nn.Module``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "inventories"

# Project -> page -> names on it. "{name}" in a page's path is the name itself; a name is a class unless a role precedes it.
PAGES: dict[str, dict[str, str]] = {
    "python": {
        "library/functions.html": "int float bool object function:open",
        "library/stdtypes.html": "str bytes dict list tuple set frozenset range",
        "library/constants.html": "data:None data:True data:False",
        "library/typing.html": "data:typing.Any data:typing.Literal data:typing.NamedTuple data:typing.Protocol",
        "library/exceptions.html": """exception:AttributeError exception:Exception exception:FileExistsError
            exception:FileNotFoundError exception:ImportError exception:KeyError exception:ModuleNotFoundError
            exception:NotImplementedError exception:OSError exception:RuntimeError exception:TypeError
            exception:UserWarning exception:ValueError""",
        "library/collections.abc.html": """collections.abc.Callable collections.abc.Collection
            collections.abc.Hashable collections.abc.Iterable collections.abc.Iterator collections.abc.Mapping
            collections.abc.MutableMapping collections.abc.Sequence""",
        "library/abc.html": "abc.ABC",
        "library/collections.html": "collections.Counter",
        "library/contextlib.html": "contextlib.AbstractContextManager",
        "library/datetime.html": "datetime.timedelta",
        "library/pathlib.html": "pathlib.Path Path=pathlib.Path",
        "library/random.html": "random.Random",
        "library/re.html": "re.Pattern",
        "library/json.html": "function:json.dumps function:json.loads",
        "library/warnings.html": "function:warnings.warn",
    },
    "torch": {
        "tensors.html": "torch.Tensor",
        "tensor_attributes.html": "torch.device torch.dtype",
        "generated/{name}.html": """torch.Generator torch._C.Generator=torch.Generator
            torch.nn.Module torch.nn.modules.module.Module=torch.nn.Module
            torch.nn.Embedding torch.nn.modules.sparse.Embedding=torch.nn.Embedding
            torch.nn.Sequential torch.nn.modules.container.Sequential=torch.nn.Sequential
            torch.nn.Parameter torch.nn.parameter.Parameter=torch.nn.Parameter
            torch.nn.parallel.DistributedDataParallel
            function:torch.nn.functional.affine_grid function:torch.nn.functional.normalize""",
        "data.html": """torch.utils.data.Dataset torch.utils.data.dataset.Dataset=torch.utils.data.Dataset
            torch.utils.data.DataLoader torch.utils.data.dataloader.DataLoader=torch.utils.data.DataLoader
            torch.utils.data.Sampler torch.utils.data.sampler.Sampler=torch.utils.data.Sampler""",
        "optim.html": "torch.optim.Optimizer torch.optim.optimizer.Optimizer=torch.optim.Optimizer",
    },
    "numpy": {
        "reference/generated/{name}.html": "numpy.ndarray numpy.dtype",
        "reference/arrays.scalars.html": """numpy.bool numpy.float32 numpy.float64 numpy.int16 numpy.int64 numpy.uint64
            numpy.uint8""",
        "reference/random/legacy.html": "numpy.random.RandomState numpy.random.mtrand.RandomState=numpy.random.RandomState",
        "reference/random/generator.html": """numpy.random.Generator
            numpy.random._generator.Generator=numpy.random.Generator""",
        "reference/typing.html": "data:numpy.typing.ArrayLike data:numpy.typing.NDArray",
    },
    "pandas": {"reference/api/{name}.html": "pandas.DataFrame pd.DataFrame=pandas.DataFrame"},
    "monai": {
        "transforms.html": """monai.transforms.Compose monai.transforms.compose.Compose=monai.transforms.Compose
            monai.transforms.Transform monai.transforms.transform.Transform=monai.transforms.Transform
            monai.transforms.MapTransform monai.transforms.transform.MapTransform=monai.transforms.MapTransform
            monai.transforms.Randomizable monai.transforms.transform.Randomizable=monai.transforms.Randomizable
            monai.transforms.RandomizableTransform
            monai.transforms.transform.RandomizableTransform=monai.transforms.RandomizableTransform""",
        "bundle.html": """monai.bundle.ConfigWorkflow
            monai.bundle.workflows.ConfigWorkflow=monai.bundle.ConfigWorkflow""",
        "metrics.html": """monai.metrics.CumulativeIterationMetric
            monai.metrics.metric.CumulativeIterationMetric=monai.metrics.CumulativeIterationMetric""",
        "inferers.html": "monai.inferers.Inferer monai.inferers.inferer.Inferer=monai.inferers.Inferer",
        "engines.html": """monai.engines.Evaluator monai.engines.evaluator.Evaluator=monai.engines.Evaluator
            monai.engines.SupervisedTrainer monai.engines.SupervisedEvaluator""",
        "handlers.html": """monai.handlers.IgniteMetricHandler
            monai.handlers.ignite_metric.IgniteMetricHandler=monai.handlers.IgniteMetricHandler""",
        "optimizers.html": """monai.optimizers.WarmupCosineSchedule
            monai.optimizers.lr_scheduler.WarmupCosineSchedule=monai.optimizers.WarmupCosineSchedule""",
    },
    "ignite": {
        "generated/{name}.html": "ignite.engine.engine.Engine ignite.metrics.metric.Metric ignite.engine.events.Events",
    },
    "transformers": {
        "main_classes/configuration": """transformers.PreTrainedConfig
            transformers.configuration_utils.PreTrainedConfig=transformers.PreTrainedConfig
            transformers.PretrainedConfig=transformers.PreTrainedConfig""",
        "main_classes/model": """transformers.PreTrainedModel
            transformers.modeling_utils.PreTrainedModel=transformers.PreTrainedModel""",
        "internal/tokenization_utils": """transformers.PreTrainedTokenizerBase
            transformers.tokenization_utils_base.PreTrainedTokenizerBase=transformers.PreTrainedTokenizerBase""",
        "main_classes/tokenizer": """transformers.TokenizersBackend
            transformers.tokenization_utils_tokenizers.TokenizersBackend=transformers.TokenizersBackend
            transformers.PreTrainedTokenizerFast=transformers.TokenizersBackend""",
    },
    "huggingface_hub": {
        "package_reference/mixins": """huggingface_hub.ModelHubMixin
            huggingface_hub.hub_mixin.ModelHubMixin=huggingface_hub.ModelHubMixin""",
    },
}


def entries(pages: dict[str, str]) -> Iterator[str]:
    """The lines of an inventory: name, role, priority, address, name to show."""
    for page, names in pages.items():
        for entry in names.split():
            role, _, rest = entry.rpartition(":")
            alias, _, name = rest.partition("=")
            name = name or alias
            yield f"{alias} py:{role or 'class'} 1 {page.format(name=name)}#{name} -"


def inventory(project: str) -> bytes:
    """The bytes of a project's ``objects.inv``, version 2 of Sphinx's format."""
    header = (
        f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The remainder is compressed using zlib.\n"
    )
    return header.encode() + zlib.compress("\n".join(sorted(entries(PAGES[project]))).encode() + b"\n", 9)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for project in PAGES:
        (FOLDER / f"{project}.inv").write_bytes(inventory(project))
