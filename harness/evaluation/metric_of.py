"""The metric that a task names: in its own file, shipped, or installed as a plugin."""

from __future__ import annotations

import sys

from harness import error_location, registry, user_code
from harness.errors import BadInput
from harness.metrics import LEFT_OUT, SHIPPED, WRONG, Metric
from harness.task import Task


def metric_of(task: Task | type[Task]) -> Metric:
    """The metric of a task. Raises BadInput for a name that leads nowhere, or a metric that breaks its contract."""
    cls = task if isinstance(task, type) else type(task)
    name = task.metric
    if name in SHIPPED:
        return SHIPPED[name]()
    # A task that ``under`` has changed is defined in no module of its own, but bears the module of the task's file.
    beside = vars(sys.modules[cls.__module__]).values() if cls.__module__ in sys.modules else ()
    own = [c for c in beside if isinstance(c, type) and issubclass(c, Metric) and getattr(c, "name", None) == name]
    try:
        found = own[0] if own else registry.find(registry.METRICS, name)
    except BadInput as error:
        raise BadInput(
            f"{error_location.of(cls, 'metric')}: task {cls.name}: {error}; write class MyMetric(Metric) with "
            f"name = {name!r} in the task's file, with from harness.metrics import Metric"
        ) from None
    for part, known in (("errors_count_as", (WRONG, LEFT_OUT)), ("unit", ("%", ""))):
        if getattr(found, part) not in known:
            where = error_location.of(found, part)
            raise BadInput(f"{where}: {part} of metric {name} is {getattr(found, part)!r}; it is one of {known}")
    return found()


def code_of(task: Task) -> dict[str, str]:
    """What stands for the code of a metric that does not ship; the protocol covers it."""
    code = user_code.identity(type(metric_of(task)))
    return {} if code == user_code.OURS else {"metric_code": code}
