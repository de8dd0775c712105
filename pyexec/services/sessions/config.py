"""The operator's settings for interpreter sessions."""

from attrs import frozen

from pyexec.domain.output_files import FileLimits
from pyexec.domain.session_request import SessionLimits
from pyexec.domain.spec import Policy


@frozen(kw_only=True)
class SessionsConfig:
    """The operator's limits. `leave_open` is True if another replica can adopt."""

    replica: str
    policy: Policy
    limits: SessionLimits
    file_limits: FileLimits
    leave_open: bool
