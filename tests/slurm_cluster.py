"""A SLURM cluster of several nodes on one machine: for the tests, or to try things by hand.

By hand, as root::

    eval "$(python tests/slurm_cluster.py start --folder /tmp/cluster)"
    sinfo; python train.py -m ... hydra/launcher=submitit_slurm
    python tests/slurm_cluster.py stop --folder /tmp/cluster

In tests: ``with Cluster(folder) as cluster: subprocess.run(..., env=cluster.environment)``.

Every file lies in the folder. One link in /tmp leads there, since the path of a unix socket may
have 108 characters and a test's folder has more. All daemons run as root: munged and mariadbd then
ask nothing of the folders above theirs. ``start`` keeps a guardian process waiting on a pipe, which
stops the cluster when its owner dies, however it dies.
"""

import argparse
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import psutil
import pytest

DAEMONS = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd"}
LINKS = Path("/tmp")

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
# A requeued job waits for the expiry of its old credential before it starts again, 120 s unless
# told. Not much shorter: a step that takes longer to launch on a busy machine fails.
AuthInfo=socket={link}/munge.socket,cred_expire={requeue_delay}
StateSaveLocation={link}/state
SlurmdSpoolDir={link}/spool/%n
SlurmctldPidFile={link}/slurmctld.pid
SlurmdPidFile={link}/%n.pid
SlurmctldLogFile={link}/log/slurmctld.log
SlurmdLogFile={link}/log/%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
MailProg=/bin/true
MpiDefault=none

# Signals go to all of a step's descendants, those in sessions of their own too, as with a site's
# cgroups; only those whose parent has gone (daemons) escape, which cgroups would catch.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={link}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos

# Dead nodes are noticed soon, if kill_node does not tell, and come back by themselves.
SlurmdTimeout={node_timeout}
SlurmctldTimeout=10
ReturnToService=2
TCPTimeout=2
InactiveLimit=0
KillWait=3
CompleteWait=0
OverTimeLimit=0
UnkillableStepTimeout=20
MinJobAge=600
MaxJobCount=10000
MaxArraySize={max_array_size}
JobRequeue=1

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# A preempted job first gets the signal that it asked for (--signal, USR2 for submitit) and SIGCONT,
# GraceTime later SIGCONT and SIGTERM, KillWait later SIGKILL. Without preempt_send_user_signal the
# first is SIGTERM, which submitit ignores: the job learns nothing.
# At its time limit it gets the same, but the signal comes up to 60 s earlier than asked for, since
# slurmctld looks every 30 s: with --time=1 --signal=USR2@40 perhaps in the first second.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

# More cores and memory than the machine has: jobs ask for a real node's and use little.
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=1000
NodeName=DEFAULT CPUs=8 RealMemory=256000 Gres=gpu:4
{nodes}
PartitionName=DEFAULT Nodes=ALL State=UP MaxTime=UNLIMITED
PartitionName=gpu Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
AuthInfo=socket={link}/munge.socket
PidFile={link}/slurmdbd.pid
LogFile={link}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mysql}
StorageUser=root
StorageLoc=slurm
"""


class ClusterError(RuntimeError):
    pass


class Cluster:
    """Nodes n1, n2, ... with 8 CPUs and 4 GPUs (of no use) each, and real accounting."""

    def __init__(
        self,
        folder: Path | str,
        nodes: int = 4,
        grace: int = 20,
        requeue_delay: int = 5,
        node_timeout: int = 8,
        max_array_size: int = 21,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.nodes = [f"n{number + 1}" for number in range(nodes)]
        self.grace, self.requeue_delay, self.node_timeout = grace, requeue_delay, node_timeout
        self.max_array_size = max_array_size
        self.link = LINKS / f"slurm-{hashlib.sha1(bytes(self.folder)).hexdigest()[:10]}"
        self.environment = {"SLURM_CONF": str(self.link / "slurm.conf")}
        # The variables of an outer allocation would name nodes and jobs that are not here.
        self._inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        self._started: dict[str, subprocess.Popen[bytes]] = {}  # by the name of their logs
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Life

    def start(self, guarded: bool = True) -> None:
        """Returns when every node is idle. ``guarded``: stops when this process ends."""
        if os.geteuid() != 0:
            raise ClusterError("only root can start a SLURM cluster")
        self.stop()  # what is left of an earlier one
        try:
            self._guardian = subprocess.Popen(
                [sys.executable, __file__, "guard", "--folder", self.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._configure()
            self._start_accounting()
            self._spawn("slurmctld", "slurmctld", "-D")
            for node in self.nodes:
                self.revive_node(node)
            self._ready("slurmctld", lambda: set(self.node_states().values()) == {"idle"})
            if not guarded:
                self._dismiss_guardian()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill all daemons and jobs, and see that none is left."""
        deadline = time.monotonic() + 20
        while left := list(self.processes()):
            self._kill(left)
            if time.monotonic() > deadline:
                raise ClusterError(f"processes that cannot be killed: {left}")
        self._started.clear()
        self.link.unlink(missing_ok=True)
        self._dismiss_guardian()

    def limit_submissions(self, most: int | None) -> None:
        """Set MaxSubmitJobs of the only user; None: no limit. Returns when it holds."""
        value = -1 if most is None else most
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={value}")
        size = self.max_array_size if most is None else most + 1
        trial = "sbatch", "--test-only", f"--array=0-{size - 1}", "--wrap=true", "--partition=gpu"

        def holds() -> bool:
            try:
                self.run(*trial, "--output=/dev/null")
            except ClusterError as error:
                return most is not None and "AssocMaxSubmitJobLimit" in str(error)
            return most is None

        self.wait_until(holds, 30)

    def kill_node(self, node: str, told: bool = True) -> None:
        """A power failure: the node's daemon and all processes of jobs there end at once.

        ``told``: as by a site's monitoring; the controller itself needs half a minute to notice.
        """
        while left := list(self.processes(node)):
            self._kill(left)
        if told:
            self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=1)
        for child in self._started.values():
            child.poll()

    def revive_node(self, node: str) -> None:
        self._spawn(f"{node}.start", "slurmd", "-D", "-N", node)

    # Questions

    def run(self, *command: str, timeout: float = 60) -> str:
        """The output of one of SLURM's commands (or any other with its environment)."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._inherited | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"{shlex.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Of each node: idle, mixed, allocated, down, ...; a ``*`` means that it is silent."""
        words = self.run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T").split()
        return dict(zip(words[::2], words[1::2], strict=True))

    def queue(self) -> list[dict[str, str]]:
        """Every job and array task that waits or runs."""
        fields = {"job": "%i", "state": "%T", "node": "%N", "partition": "%P", "reason": "%r"}
        fields |= {"name": "%j", "dependency": "%E"}
        lines = self.run("squeue", "-h", "-r", "-o", "\t".join(fields.values())).splitlines()
        return [dict(zip(fields, line.split("\t"), strict=True)) for line in lines]

    def accounting(self, job: str) -> list[str]:
        """Every state of a job or array task (``7``, ``7_0``), oldest attempt first."""
        columns = "-o", "JobID,State"
        lines = self.run("sacct", "-n", "-P", "-X", "-D", *columns, "-j", job).splitlines()
        return [state for name, _, state in (line.partition("|") for line in lines) if name == job]

    def wait_until(self, predicate: Callable[[], object], timeout: float = 60) -> float:
        """The seconds until it held."""
        begin = time.monotonic()
        while not predicate():
            if time.monotonic() - begin > timeout:
                raise ClusterError(
                    f"not within {timeout} s; queue: {self.queue()}; nodes: {self.node_states()}"
                )
            time.sleep(0.2)
        return time.monotonic() - begin

    def processes(self, node: str | None = None) -> Iterator[psutil.Process]:
        """Those of this cluster, or only of one node: daemons by open logs, jobs by environment."""
        name = f"{node or '*'}.*"
        logs = self.folder / "log"
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if Path(process.exe()).name.removesuffix("-wlm") in DAEMONS:  # Debian's suffix
                    files = [Path(file.path) for file in process.open_files()]
                    if any(file.parent == logs and file.match(name) for file in files):
                        yield process
                    continue
                variables = process.environ()
                if (
                    variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                    and "SLURM_JOB_ID" in variables
                    and variables.get("SLURMD_NODENAME") in ([node] if node else self.nodes)
                ):
                    yield process

    # Parts

    def _configure(self) -> None:
        for name in "log", "state", "spool":
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in "log", "state", *(f"spool/{node}" for node in self.nodes):
            (self.folder / name).mkdir(parents=True)
        self.link.symlink_to(self.folder)
        for number in range(4):  # only of devices do jobs see CUDA_VISIBLE_DEVICES
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        key = self.folder / "munge.key"
        key.unlink(missing_ok=True)
        key.touch(0o400)
        key.write_bytes(os.urandom(1024))

        self._mysql_port, dbd, ctld, *ports = free_ports(3 + len(self.nodes))
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            for node, port in zip(self.nodes, ports, strict=True)
        ]
        values = {
            "host": host,
            "link": self.link,
            "ctld": ctld,
            "dbd": dbd,
            "mysql": self._mysql_port,
            "nodes": "\n".join(nodes),
            "grace": self.grace,
            "requeue_delay": self.requeue_delay,
            "node_timeout": self.node_timeout,
            "max_array_size": self.max_array_size,
        }
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format_map(values))
        gres = f"NodeName={','.join(self.nodes)} Name=gpu File={self.link}/gpu[0-3]\n"
        (self.folder / "gres.conf").write_text(gres)
        dbd_conf = self.folder / "slurmdbd.conf"
        dbd_conf.touch(0o600)
        dbd_conf.write_text(SLURMDBD_CONF.format_map(values))

    def _start_accounting(self) -> None:
        link = self.link
        self._spawn(
            "munged", "munged", "--foreground", "--force", f"--key-file={link}/munge.key",
            f"--socket={link}/munge.socket", f"--pid-file={link}/munged.pid",
            f"--seed-file={link}/munged.seed", f"--log-file={link}/log/munged.log",
        )  # fmt: skip
        self._ready("munged", (link / "munge.socket").exists)

        shutil.rmtree(self.folder / "mysql", ignore_errors=True)
        (self.folder / "tmp").mkdir(exist_ok=True)  # two in /tmp use tables of the same name
        where = [f"--datadir={link}/mysql", f"--tmpdir={link}/tmp", "--user=root"]
        where.append("--innodb-log-file-size=8M")
        self.run(
            "mariadb-install-db", "--no-defaults", *where, "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip
        self._spawn(
            "mariadbd", "mariadbd", "--no-defaults", *where, f"--socket={link}/mysql.socket",
            f"--pid-file={link}/mariadbd.pid", f"--port={self._mysql_port}",
            "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
        )  # fmt: skip
        self._ready("mariadbd", (link / "mysql.socket").exists)

        self._spawn("slurmdbd", "slurmdbd", "-D")
        add = "sacctmgr", "-i", "add", "cluster", "test"
        self._ready("slurmdbd", lambda: self.run(*add) or True)

    def _dismiss_guardian(self) -> None:
        if self._guardian:
            self._guardian.kill()
            self._guardian.communicate()
            self._guardian = None

    def _spawn(self, log: str, *command: str) -> None:
        path = f"{self._inherited['PATH']}:/usr/sbin:/sbin"
        with (self.folder / "log" / f"{log}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._inherited | self.environment | {"PATH": path},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started[log] = process

    def _ready(self, daemon: str, condition: Callable[[], object], timeout: float = 60) -> None:
        """Wait for what shows that the daemon can be used."""
        deadline = time.monotonic() + timeout
        problem = ""
        while True:
            try:
                if condition():
                    return
            except ClusterError as error:
                problem = str(error)
            ended = [name for name, each in self._started.items() if each.poll() is not None]
            if ended or time.monotonic() > deadline:
                what = f"{ended[0]} ended" if ended else f"{daemon} is not ready"
                name = ended[0].removesuffix(".start") if ended else daemon
                logs = sorted((self.folder / "log").glob(f"{name}.*"))
                tails = [log.read_text(errors="replace")[-1500:] for log in logs]
                raise ClusterError("\n".join([what, problem, *tails]))
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests: leave its nodes up and its queue empty."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a SLURM cluster")
    subprocess.run([Path(__file__).with_name("install_slurm.sh")], check=True)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="prints what the shell needs: eval it")
    start.add_argument("--nodes", type=int, default=4)
    for each in start, commands.add_parser("stop"), commands.add_parser("guard"):
        each.add_argument("--folder", type=Path, required=True)
    commands.add_parser("status", help="lists the clusters that were not stopped")
    options = parser.parse_args(arguments)

    if options.command == "start":
        subprocess.run([Path(__file__).with_name("install_slurm.sh")], check=True, stdout=2)
        running = Cluster(options.folder, options.nodes)
        running.start(guarded=False)
        for name, value in running.environment.items():
            print(f"export {name}={shlex.quote(value)}")
    elif options.command == "stop":
        Cluster(options.folder).stop()
    elif options.command == "guard":
        for name in "SIGINT", "SIGTERM", "SIGHUP":
            signal.signal(signal.Signals[name], signal.SIG_IGN)
        sys.stdin.read()  # until the owner closes it or dies
        Cluster(options.folder).stop()
    else:
        for link in sorted(LINKS.glob("slurm-*")):
            if link.is_symlink():
                alive = len(list(Cluster(link.readlink()).processes()))
                print(f"{link.readlink()}: {alive} processes, SLURM_CONF={link}/slurm.conf")


if __name__ == "__main__":
    main()
