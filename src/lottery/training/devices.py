"""The devices a run uses, and how exactly it repeats."""

import functools
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework.config import is_op_determinism_enabled

from lottery.config import Training
from lottery.errors import ClusterError, ConfigError
from lottery.options import stepping
from lottery.training import cluster
from lottery.training.setting import Setting
from lottery.training.telemetry import cores

# Seconds: for all processes of a job to begin, and of silence after which one counts as dead.
BEGIN_TIMEOUT, HEARTBEAT_TIMEOUT = 900, 60

_strategies: dict[str, Any] = {}


def strategy(name: str) -> Any:
    """The ``tf.distribute`` strategy: ``one`` device, ``mirrored`` over all GPUs of this machine,
    ``multiworker`` over those of all processes of the job, or ``auto``, the largest there is.

    The object is reused within a process, since two mirrored strategies in one do not work.
    Raises :class:`ConfigError` if a job of several processes would use one only, or the reverse.
    """
    task = cluster.task()
    if task is None and name == "multiworker":
        raise ConfigError(
            "trainer.strategy=multiworker needs several processes: a sweep with "
            "hydra/launcher=submitit_slurm hydra.launcher.nodes=2, srun, or TF_CONFIG"
        )
    if task is not None and name not in ("auto", "multiworker"):
        raise ConfigError(
            f"trainer.strategy={name} would leave all but one of the {len(task.addresses)} "
            "processes of this job idle: take auto, or hydra.launcher.nodes=1"
        )
    kind = name
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        kind = "multiworker" if task else "mirrored" if several else "one"
    if kind not in _strategies:
        _grow_memory()
        if kind == "multiworker":
            assert task is not None
            _strategies[kind] = _multiworker(task)
        elif kind == "mirrored":
            _strategies[kind] = tf.distribute.MirroredStrategy()
        else:
            _strategies[kind] = tf.distribute.get_strategy()
    return _strategies[kind]


def place(strategy: Any) -> tuple[int, int]:
    """This process's rank among those that a strategy spans, and their number."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 0, 1
    return resolver.task_id, sum(map(len, resolver.cluster_spec().as_dict().values()))


def local_devices(strategy: Any) -> tuple[str, ...]:
    """The devices of this process's replicas, by rank; ``""`` where TensorFlow chooses."""
    # The strategy of a single device has no list of them.
    replicas = strategy.num_replicas_in_sync
    return ("",) if replicas == 1 else tuple(strategy.extended.worker_devices)


def gpu() -> str | None:
    """The GPU that a single replica trains on; None where there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    return gpus[0].name if gpus else None


def _multiworker(task: cluster.Task) -> Any:
    """Meet the other processes. Raises :class:`ClusterError` if they do not come."""
    tf.get_logger().setLevel("ERROR")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(task.addresses)}),
        task_type="worker",
        task_id=task.rank,
        rpc_layer="grpc",
    )
    jobs = [context.coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=1)]
    jobs[0].num_tasks = len(task.addresses)
    context.context().configure_coordination_service(
        "standalone",
        "/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * BEGIN_TIMEOUT,
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_TIMEOUT,
        coordinated_jobs=jobs,
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (tf.errors.OpError, RuntimeError) as error:
        raise ClusterError(
            f"process {task.rank} of {len(task.addresses)} at {task.addresses[task.rank]} cannot "
            f"meet the others: {str(error).splitlines()[0]}"
        ) from error


def configure(*, precision: str, deterministic: bool | None) -> None:
    """Prepare this process for one more run, whatever ran in it before.

    ``deterministic=None`` makes runs repeatable bit for bit where there is no GPU; on GPUs some
    deterministic kernels are slow or missing. Raises :class:`ConfigError` for a precision that a
    GPU here lacks.
    """
    # A sweep in one process traces the same functions again for each job, as it should.
    tf.get_logger().setLevel("ERROR")
    keras.backend.clear_session()
    keras.config.set_dtype_policy(precision)
    gpus = tf.config.list_physical_devices("GPU")
    _grow_memory()
    for details in map(tf.config.experimental.get_device_details, gpus):
        check_precision(
            precision, details.get("device_name", "the GPU"), details.get("compute_capability")
        )
    if deterministic or (deterministic is None and not gpus):
        tf.config.experimental.enable_op_determinism()


def check_precision(precision: str, device: str, capability: tuple[int, int] | None) -> None:
    """Raise :class:`ConfigError` if a GPU of this CUDA compute capability lacks a precision.

    Before Ampere (8.0) there are no bfloat16 instructions; before Volta (7.0) float16 is no faster
    than float32, but it works.
    """
    if precision == "mixed_bfloat16" and capability is not None and capability < (8, 0):
        version = ".".join(map(str, capability))
        raise ConfigError(
            f"trainer.precision=mixed_bfloat16 needs compute capability 8.0, and {device} has "
            f"{version}: take mixed_float16"
        )


def prepare(config: Training) -> Any:
    """The strategy of a run, in a process configured for it and checked to be able to do it.

    Raises what :func:`strategy`, :func:`configure` and :func:`check_batch` raise, and
    :class:`ConfigError` for callbacks that act in a job of several processes.
    """
    trainer = config.trainer
    if cluster.task() is not None and (acts := stepping(config.callback)):
        names = ", ".join(choice.name for choice in acts)
        raise ConfigError(
            f"callback={names} may change weights, and only the first process of several runs it, "
            "so they would differ: take hydra.launcher.nodes=1, or say watches_only=True in its "
            "class if it changes none"
        )
    configure(precision=trainer.precision, deterministic=trainer.deterministic)
    chosen = strategy(trainer.strategy)
    replicas = chosen.num_replicas_in_sync
    check_batch(trainer.batch_size, replicas, in_pairs=config.data.mixup > 0)
    if trainer.sync_batch_norm and trainer.jit_compile and replicas > 1:
        raise ConfigError(
            "trainer.sync_batch_norm=true and trainer.jit_compile=true exclude each other on "
            "several devices: XLA cannot compile across them"
        )
    return chosen


def setting(strategy: Any, *, jit_compile: bool) -> Setting:
    """What a process that was configured trains on with this strategy."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name = details.get("device_name", "GPU")
    else:
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        threads = threads or cores()  # among which sums are divided
        name = f"{_cpu()}, {threads} thread{'' if threads == 1 else 's'}"
    return Setting(
        replicas=strategy.num_replicas_in_sync,
        devices=name,
        deterministic=is_op_determinism_enabled(),
        jit_compile=jit_compile,
        tensorflow=tf.__version__,
    )


@functools.cache
def _cpu() -> str:
    """What Linux calls this machine's processor: another one rounds otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def check_batch(batch_size: int, replicas: int, *, in_pairs: bool = False) -> None:
    """Raise :class:`ConfigError` unless every replica gets the same number of examples.

    ``in_pairs``: an even one on several replicas, since mixup blends pairs of examples.
    """
    if in_pairs and replicas > 1 and not batch_size % replicas and batch_size // replicas % 2:
        raise ConfigError(
            f"data.mixup blends pairs of examples, and trainer.batch_size={batch_size} over "
            f"{replicas} devices gives each an odd number: take {batch_size + replicas}"
        )
    if batch_size % replicas:
        below = batch_size // replicas * replicas
        nearest = f"{below} or {below + replicas}" if below else f"{replicas}"
        raise ConfigError(
            f"trainer.batch_size={batch_size} does not divide over {replicas} devices: "
            f"take {nearest}, or trainer.strategy=one"
        )


def _grow_memory() -> None:
    """Have GPUs give memory as it is needed; must come before anything uses one."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # already in use by an earlier run of this process, with growth on
            return
