"""The errors a user can cause, each one readable line."""


class LotteryError(Exception):
    """Something the user can act on; shown as one line, without a traceback."""


class ConfigError(LotteryError):
    """The configuration asks for something impossible."""


class DataError(LotteryError):
    """The data set is missing, damaged or unfit for the request."""


class StoreError(LotteryError):
    """The run store cannot be used."""


class ClusterError(LotteryError):
    """Several processes cannot train together, or one of them is gone."""


class CheckpointError(LotteryError):
    """A checkpoint is damaged or does not fit the network."""


class DamagedError(LotteryError):
    """A file is not what was written."""


class TicketError(LotteryError):
    """A ticket file is damaged, of another version, or does not fit what is asked of it."""


class ResultError(LotteryError):
    """A file of results is damaged, or of another version of this program."""


class MaskError(LotteryError):
    """An optimizer moved what a mask holds at zero."""


class DivergedError(LotteryError):
    """The loss is no longer a finite number."""


class StoppedError(BaseException):
    """A signal asked the run to stop; its state is saved, the same command goes on from there.

    Like :class:`KeyboardInterrupt` no :class:`Exception`: it may be raised anywhere, and what goes
    on after an error, such as :mod:`logging` while it writes a line, must not go on after a stop.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class ExportError(LotteryError):
    """A network cannot be written in a format, or a file of one cannot be run."""


class BrowserError(ExportError):
    """What runs a file in a browser is missing, or failed."""
