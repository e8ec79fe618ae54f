"""The ``sdk`` command, which starts a local Ray with fewer processes."""

from ray_grpc_sdk import sdk
from tests.support.small_ray import leave_out_processes

leave_out_processes()
sdk()
