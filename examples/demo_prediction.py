"""What the simulator says about the demo's runs, from what they recorded, beside what was measured.

A run's own trace says what is planned from, the all-fast run of the same round how long a step is on this machine at
that time. Nothing else of the runs goes into a prediction.
"""

import json
import statistics
import subprocess

BYTES = ("promoted_bytes", "demoted_bytes")
# How close predictions should come on an idle machine: of step times, and of bytes moved.
STEP_WITHIN = 0.05
BYTES_WITHIN = 0.02


def command(sentinel, trace, step_seconds, fast_bytes, migration_gbps, policies):
    """The command that predicts steps of these policies on the emulated tier, as a list of texts."""
    line = [sentinel, "sim", trace, "--emulated", "--step-seconds", f"{step_seconds:.6f}", "--fast"]
    line += [fast_bytes, "--migration-gbps", migration_gbps, "--policy", ",".join(policies)]
    return [str(part) for part in [*line, "--no-bound", "--json"]]


def predict(*question):
    """Runs `command`; returns a dict of what it says by policy."""
    output = subprocess.run(command(*question), stdout=subprocess.PIPE, check=True).stdout
    return {
        result["policy"]: result for result in json.loads(output.decode())["points"][0]["results"]
    }


def _beside(rounds, mode, predictions):
    """Predicted and measured figures of one mode: medians over the rounds."""
    runs = [runs[mode] for runs in rounds]
    own = [prediction[mode][mode] for prediction in predictions]
    measured = [run.steady_seconds(steps) for run, steps in runs]
    predicted = [result["step_seconds"] for result in own]
    errors = [one / other - 1 for one, other in zip(predicted, measured)]
    figures = {
        "predicted_step_seconds": statistics.median(predicted),
        "measured_step_seconds": statistics.median(measured),
        "prediction_error": statistics.median(errors),
        "prediction_error_min_max": [min(errors), max(errors)],
        "predicted_slow_memory_seconds": statistics.median(
            one["slow_memory_seconds"] for one in own
        ),
        "measured_slow_memory_seconds": statistics.median(
            run.per_step("slow_memory_ns", steps) / 1e9 for run, steps in runs
        ),
    }
    for name in BYTES:
        figures[f"predicted_{name}_per_step"] = statistics.median(one[name] for one in own)
        figures[f"measured_{name}_per_step"] = statistics.median(
            run.per_step(name, steps) for run, steps in runs
        )
    return figures


def _order(seconds):
    """Modes by the time of their step, the fastest first."""
    return sorted(seconds, key=seconds.get)


def prediction_summary(rounds, sentinel, fast_bytes, migration_gbps, planned, others):
    """The simulator beside the runs.

    Args:
      rounds: One dict per round, mode to (run, number of measured steps).
      sentinel: The command-line tool.
      fast_bytes: The fast budget of the runs.
      migration_gbps: The speed of moves of the runs.
      planned: Modes with a plan; their runs have a trace.
      others: Modes without one, whose order is predicted from the trace of the first planned mode.

    Returns:
      A dict with the figures of each planned mode, the order of all modes by step time, predicted and measured, the
      command of one prediction, and a list of what is predicted badly.
    """
    predictions = []
    for runs in rounds:
        all_fast, steps = runs["fast_only"]
        question = (all_fast.steady_seconds(steps), fast_bytes, migration_gbps)
        own = {mode: predict(sentinel, runs[mode][0].trace, *question, [mode]) for mode in planned}
        own["others"] = predict(sentinel, runs[planned[0]][0].trace, *question, others)
        predictions.append(own)
    summary = {mode: _beside(rounds, mode, predictions) for mode in planned}
    measured = {mode: summary[mode]["measured_step_seconds"] for mode in planned}
    predicted = {mode: summary[mode]["predicted_step_seconds"] for mode in planned}
    for mode in others:
        measured[mode] = statistics.median(
            runs[mode][0].steady_seconds(runs[mode][1]) for runs in rounds
        )
        predicted[mode] = statistics.median(
            own["others"][mode]["step_seconds"] for own in predictions
        )
    all_fast, steps = rounds[-1]["fast_only"]
    question = (all_fast.steady_seconds(steps), fast_bytes, migration_gbps)
    summary.update(
        predicted_order=_order(predicted),
        measured_order=_order(measured),
        command=" ".join(
            command("sentinel", rounds[-1][planned[0]][0].trace, *question, planned[:1])
        ),
    )
    summary["missed"] = missed_predictions(summary, planned)
    return summary


def missed_predictions(summary, planned):
    """A sentence for each figure that was predicted worse than it should be on an idle machine."""
    missed = []
    for mode in planned:
        figures = summary[mode]
        error = figures["prediction_error"]
        if abs(error) > STEP_WITHIN:
            missed.append(
                f"the step of {mode} is {error:+.1%} off, should be within {STEP_WITHIN:.0%}"
            )
        for name in BYTES:
            predicted, measured = (
                figures[f"{kind}_{name}_per_step"] for kind in ("predicted", "measured")
            )
            if abs(predicted - measured) > BYTES_WITHIN * measured:
                missed.append(
                    f"{name} of {mode}: {predicted / 1e6:.1f} MB per step, measured {measured / 1e6:.1f}, "
                    f"should be within {BYTES_WITHIN:.0%}"
                )
    if summary["predicted_order"] != summary["measured_order"]:
        missed.append("the order of the modes is another one")
    return missed


def print_prediction(summary, planned):
    """Prints the figures of the planned modes, predicted beside measured."""
    print(
        "\nPredicted by the simulator from the runs' own traces and all-fast steps, beside measured:"
    )
    for mode in planned:
        figures = summary[mode]
        print(
            "{:8s} step {:.3f} s, measured {:.3f} s ({:+.1%}); to fast {:.1f} MB, measured {:.1f}; to slow {:.1f} MB, "
            "measured {:.1f}".format(
                mode,
                figures["predicted_step_seconds"],
                figures["measured_step_seconds"],
                figures["prediction_error"],
                *(
                    figures[f"{kind}_{name}_per_step"] / 1e6
                    for name in BYTES
                    for kind in ("predicted", "measured")
                ),
            )
        )
    print("order    {}".format(" < ".join(summary["predicted_order"])))
    print("measured {}".format(" < ".join(summary["measured_order"])))
    for missed in summary["missed"]:
        print(f"MISSED: {missed}")
    print("again:   {}".format(summary["command"]))
