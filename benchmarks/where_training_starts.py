"""Loss and gradient where tickets start: of each point of sweeps, before its training.

    python benchmarks/where_training_starts.py outputs/prune/<sweep> …

The loss is that of all validation images, the norm that of its gradient by biases and surviving
weights; means over seeds.
"""

import argparse
import statistics
from pathlib import Path

from lottery import choices, tickets
from lottery.analysis import collect, selection
from lottery.analysis.grids import label
from lottery.runs import Run
from lottery.trainings import load_data


def start(run: Run) -> tuple[float, float]:
    """Loss and norm of the gradient of a ticket, before its training."""
    import tensorflow as tf

    ticket = tickets.of_run(run)
    model, data = ticket.model("rewound"), load_data(choices.source.of(run.config["data"]))
    ((images, labels, _),) = data.validation.evaluation(data.validation.size)
    with tf.GradientTape() as tape:
        logits = model(ticket.normalised(images.numpy()))
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    gradients = tape.gradient(loss, model.trainable_variables)
    kept = [
        gradient * ticket.mask.get(v.path, 1)
        for gradient, v in zip(gradients, model.trainable_variables, strict=True)
    ]
    return float(loss), float(tf.linalg.global_norm(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweeps", type=Path, nargs="+")
    print("| tickets | weights left | seeds | loss | gradient norm |\n|---|---|---|---|---|")
    for sweep in parser.parse_args().sweeps:
        for point in selection.points(collect.from_sweep(sweep)):
            if not point.done:
                continue
            runs = [Run(c.store / "ticket" / str(c.ticket["key"])) for c in point.done]
            losses, norms = zip(*map(start, runs), strict=True)
            name = label(selection.Judged(point, None, True)) or "tickets"
            print(
                f"| {name} | {100 * point.density:.3g} % | {len(runs)} "
                f"| {statistics.mean(losses):.2f} | {statistics.mean(norms):.2f} |"
            )


if __name__ == "__main__":
    main()
