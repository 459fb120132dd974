"""A two-layer LSTM language model with the shape of the large PTB model, on synthetic tokens.

Zaremba, Sutskever and Vinyals, "Recurrent Neural Network Regularization" (2014), large model: two layers of 1500 units,
35 unrolled steps, 10,000 words, 65% of the units dropped between layers, gradients clipped to a norm of 10, plain
gradient descent, and a state that goes from each step to the next. The words are not the Penn Treebank: they are drawn
with a fixed seed, more frequent ones more often, so the loss shows that training works and nothing about language.
"""

import numpy as np
import tensorflow as tf
import training

INITIAL_RANGE = 0.04
KEEP = 0.35
CLIP_NORM = 10.0


def parse_arguments():
    """Reads the command line."""
    parser = training.parser(__doc__, batch=20)
    add = parser.add_argument
    add("--hidden", type=training.positive, default=1500, help="units per layer (default 1500)")
    add("--layers", type=training.positive, default=2, help="layers of cells (default 2)")
    add("--unroll", type=training.positive, default=35, help="time steps (default 35)")
    add("--vocabulary", type=training.positive, default=10000, help="words (default 10000)")
    # The published 1.0 overshoots on words without an order to be learned.
    add("--learning-rate", type=float, default=0.3, help="of plain gradient descent")
    return parser.parse_args()


def words(arguments):
    """Yields batches of (batch, unroll + 1) word numbers without end; the last word of one is the first of the next."""
    random = np.random.RandomState(arguments.seed)
    shape = arguments.batch, arguments.unroll
    # Frequency falls with rank, as Zipf's law has it for words.
    weights = 1.0 / np.arange(1, arguments.vocabulary + 1)
    limits = np.cumsum(weights / weights.sum())
    last = np.zeros((arguments.batch, 1), np.int32)
    while True:
        ranks = np.searchsorted(limits, random.uniform(size=shape)).astype(np.int32)
        drawn = np.minimum(ranks, arguments.vocabulary - 1)
        window = np.concatenate([last, drawn], axis=1)
        last = window[:, -1:]
        yield window


def unrolled(inputs, arguments):
    """Runs the cells over a list of (batch, hidden) inputs.

    The mark stands on the top layer's recurrent output, which is on the way of every later time step's value and, in
    the backward pass, of every earlier one's gradient: layers of the trace are time steps in both directions.

    Returns:
      The outputs, one per time step, and pairs (state variable, its value after the last time step).
    """
    mark = training.marker(arguments)
    shape = [arguments.batch, arguments.hidden]
    cells, states, variables = [], [], []
    for layer in range(arguments.layers):
        cells.append(tf.nn.rnn_cell.BasicLSTMCell(arguments.hidden, name=f"cell{layer}"))
        variables += [
            tf.get_variable(f"{part}{layer}", shape, trainable=False) for part in ("c", "h")
        ]
        states.append(tf.nn.rnn_cell.LSTMStateTuple(*variables[-2:]))
    outputs = []
    for time, x in enumerate(inputs):
        with tf.name_scope(f"time{time}"):
            for layer, cell in enumerate(cells):
                x, states[layer] = cell(tf.nn.dropout(x, KEEP), states[layer])
            x = mark(x)
            states[-1] = tf.nn.rnn_cell.LSTMStateTuple(states[-1].c, x)
            outputs.append(tf.nn.dropout(x, KEEP))
    return outputs, list(zip(variables, [part for state in states for part in state]))


def build(arguments):
    """Returns the placeholder of the words, the training operation and the loss per word."""
    tf.set_random_seed(arguments.seed)
    initializer = tf.random_uniform_initializer(-INITIAL_RANGE, INITIAL_RANGE)
    window = tf.placeholder(tf.int32, [arguments.batch, arguments.unroll + 1], "words")
    with tf.variable_scope("lstm", initializer=initializer):
        embedding = tf.get_variable("embedding", [arguments.vocabulary, arguments.hidden])
        inputs = tf.unstack(tf.nn.embedding_lookup(embedding, window[:, :-1]), axis=1)
        outputs, states = unrolled(inputs, arguments)
        weights = tf.get_variable("softmax", [arguments.hidden, arguments.vocabulary])
        bias = tf.get_variable("bias", [arguments.vocabulary])
        logits = tf.matmul(tf.concat(outputs, axis=0), weights) + bias
    targets = tf.reshape(tf.transpose(window[:, 1:]), [-1])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    # Summed over time and averaged over the batch, as published.
    cost = tf.reduce_sum(losses) / arguments.batch
    weights = tf.trainable_variables()
    # Gated, as optimizers do by default: each time step's gradient of a weight is there before the time step before it
    # goes on, and can be added up. Otherwise those of all time steps may be kept to the end, which takes gigabytes.
    gradients = tf.gradients(cost, weights, gate_gradients=True)
    gradients, _ = tf.clip_by_global_norm(gradients, CLIP_NORM)
    optimizer = tf.train.GradientDescentOptimizer(arguments.learning_rate)
    update = optimizer.apply_gradients(zip(gradients, weights))
    # The backward pass still reads the state that the step began with.
    with tf.control_dependencies([update]):
        carry = [tf.assign(variable, value) for variable, value in states]
    return window, tf.group(*carry), cost / arguments.unroll


def main():
    """Trains and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    window, operation, loss = build(arguments)
    feeds = ({window: batch} for batch in words(arguments))
    training.run(arguments, operation, loss, feeds)


if __name__ == "__main__":
    main()
