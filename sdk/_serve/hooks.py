"""Call hooks of a user's class, such as ``check_health``, as Ray Serve calls them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def call_hook(hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a hook and return its result. A plain function runs in a thread, so that it does not block the event loop.

    Args:
        hook: A bound method, ``async def`` or not.
        *args: Its positional arguments.
        **kwargs: Its keyword arguments.
    """
    if inspect.iscoroutinefunction(hook):
        return await hook(*args, **kwargs)
    return await finish_hook(await asyncio.to_thread(hook, *args, **kwargs))


async def finish_hook(result: Any) -> Any:
    """Return the result of a hook that was called on the event loop; await it if the hook is ``async def``."""
    return await result if inspect.isawaitable(result) else result
