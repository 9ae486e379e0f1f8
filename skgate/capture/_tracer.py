"""`Tracer`: intercepts the torch functions that a module calls and names each by its layer."""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode

from ._operations import operation_name


class Tracer(TorchFunctionMode):
    """Base of the recorders: a context in which the calls of one module are intercepted.

    Function calls are intercepted, not modules, because networks call ``F.relu`` as often as
    ``nn.ReLU``; and above autograd and the dispatcher, because fused kernels hide gates there.
    Modules lend their names to the calls that they make.
    """

    #: Methods called with (operation, function, args, kwargs) in the place of an operation.
    handlers = {}
    #: Functions of the same arguments by which `_run` replaces an operation.
    substitutes = {}

    def __init__(self, module):
        super().__init__()
        self._module = module
        self._stack = [("", module)]
        self._calls = Counter()
        self._hooks = []

    def __enter__(self):
        for name, module in named_parts(self._module):
            enter, leave = self._bracket(name)
            self._hooks += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave, always_call=True),
            ]
        return super().__enter__()

    def __exit__(self, *error):
        for hook in self._hooks:
            hook.remove()
        return super().__exit__(*error)

    def _bracket(self, name):
        def enter(module, _):
            self._stack.append((name, module))

        def leave(*_):
            self._stack.pop()

        return enter, leave

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return self._handle(operation_name(function, args, kwargs), function, args, kwargs)

    def _handle(self, operation, function, args, kwargs):
        handler = self.handlers.get(operation)
        if handler is None:
            return self._run(operation, function, args, kwargs)
        return handler(self, operation, function, args, kwargs)

    def _run(self, operation, function, args, kwargs):
        substitute = self.substitutes.get(operation)
        if substitute is None:
            return function(*args, **kwargs)
        return substitute(operation, function, args, kwargs)

    def _locate(self, operation):
        """Return the layer name of the current call, which is counted, and the calling module."""
        path, module = self._place(operation)
        return self._numbered(path), module

    def _place(self, operation):
        """Return the name of the current call without its number, and the calling module."""
        path, module = self._stack[-1]
        # modules such as nn.ReLU lend their name alone; elsewhere the operation is part of it
        if (
            not path
            or list(module.children())
            or not type(module).__module__.startswith("torch.nn.")
        ):
            path = f"{path}.{operation}" if path else operation
        return path, module

    def _numbered(self, path):
        """Return a name with the number of its call, which is counted."""
        count = self._calls[path]
        self._calls[path] += 1
        return f"{path}:{count}" if count else path


def named_parts(module):
    """Yield the name and module of each part, without the wrappers of ``torch.compile``."""
    for name, part in module.named_modules():
        yield name.replace("_orig_mod.", "").removesuffix("._orig_mod"), part


def tensors_in(args, kwargs):
    """Return the tensors among the arguments of a call."""
    return [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]


def has_floats(args, kwargs):
    """Return whether a call has real numbers; without, it is arithmetic on indices or masks."""
    return any(tensor.is_floating_point() for tensor in tensors_in(args, kwargs))
