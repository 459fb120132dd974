"""BERT pre-training's masked language model on synthetic tokens: an encoder of our own, base by default.

Devlin et al., "BERT" (2019): learned positions, post-norm blocks of self-attention and a GELU feed-forward layer of
four times the width, 15% of the tokens to be predicted, dropout of 10%, Adam. Base has 12 layers of 768 with 12 heads;
large is `--layers 24 --hidden 1024 --heads 16`. Simplified: there is no next-sentence task and so no segments, the
output weights are their own instead of the embedding's, and every sequence is full. Tokens are drawn with a fixed seed.
"""

import numpy as np
import tensorflow as tf
import training

INITIAL_DEVIATION = 0.02
KEEP = 0.9
PREDICTED_SHARE = 0.15
NORM_EPSILON = 1e-12
# The number that stands for a token that is to be predicted.
MASK = 0


def parse_arguments():
    """Reads the command line."""
    parser = training.parser(__doc__, batch=8)
    add = parser.add_argument
    add("--layers", type=training.positive, default=12, help="blocks (default 12)")
    add("--hidden", type=training.positive, default=768, help="width (default 768)")
    add("--heads", type=training.positive, default=12, help="attention heads (default 12)")
    add("--length", type=training.positive, default=128, help="tokens per sequence (default 128)")
    add("--vocabulary", type=training.positive, default=30522, help="tokens (default 30522)")
    add("--learning-rate", type=float, default=1e-4, help="Adam's step size")
    arguments = parser.parse_args()
    if arguments.hidden % arguments.heads:
        parser.error(f"--hidden: {arguments.hidden} is not a multiple of --heads {arguments.heads}")
    return arguments


def predicted(arguments):
    """Tokens per sequence that are to be predicted."""
    return max(1, int(PREDICTED_SHARE * arguments.length))


def sequences(arguments):
    """Yields (tokens with masks, places of the masks in the flattened batch, tokens there) without end."""
    random = np.random.RandomState(arguments.seed)
    batch, length, count = arguments.batch, arguments.length, predicted(arguments)
    while True:
        tokens = random.randint(MASK + 1, arguments.vocabulary, (batch, length)).astype(np.int32)
        chosen = [np.sort(random.permutation(length)[:count]) + length * i for i in range(batch)]
        places = np.concatenate(chosen).astype(np.int32)
        flat = tokens.reshape(-1)
        answers = flat[places]
        flat[places] = MASK
        yield tokens, places, answers


def normal():
    """The published distribution of fresh weights."""
    return tf.truncated_normal_initializer(stddev=INITIAL_DEVIATION)


def dense(name, x, size):
    """A layer of weights and bias on x (N, features)."""
    with tf.variable_scope(name):
        weights = tf.get_variable("weights", [x.shape[-1].value, size], initializer=normal())
        bias = tf.get_variable("bias", [size], initializer=tf.zeros_initializer())
        return tf.nn.bias_add(tf.matmul(x, weights), bias)


def norm(name, x):
    """Layer norm over the features of x (N, features)."""
    size = x.shape[-1].value
    with tf.variable_scope(name):
        scale = tf.get_variable("scale", [size], initializer=tf.ones_initializer())
        offset = tf.get_variable("offset", [size], initializer=tf.zeros_initializer())
        mean, variance = tf.nn.moments(x, [1], keep_dims=True)
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, NORM_EPSILON)


def gelu(x):
    """The Gaussian error linear unit, by the error function."""
    return 0.5 * x * (1.0 + tf.erf(x / np.float32(np.sqrt(2.0))))


def attention(x, arguments):
    """Self-attention over x (batch x length, hidden), of the same shape."""
    depth = arguments.hidden // arguments.heads
    split = [arguments.batch, arguments.length, arguments.heads, depth]

    def heads(name):
        return tf.transpose(tf.reshape(dense(name, x, arguments.hidden), split), [0, 2, 1, 3])

    scores = tf.matmul(heads("query"), heads("key"), transpose_b=True)
    shares = tf.nn.dropout(tf.nn.softmax(scores / np.float32(np.sqrt(depth))), KEEP)
    mixed = tf.transpose(tf.matmul(shares, heads("value")), [0, 2, 1, 3])
    return dense("output", tf.reshape(mixed, [-1, arguments.hidden]), arguments.hidden)


def encoder(tokens, arguments, mark):
    """Returns the encoded tokens (batch x length, hidden); a layer is an attention or a feed-forward part."""
    with tf.variable_scope("embeddings"):
        shape = [arguments.vocabulary, arguments.hidden]
        table = tf.get_variable("tokens", shape, initializer=normal())
        shape = [arguments.length, arguments.hidden]
        positions = tf.get_variable("positions", shape, initializer=normal())
        x = tf.reshape(tf.nn.embedding_lookup(table, tokens) + positions, [-1, arguments.hidden])
        x = mark(tf.nn.dropout(norm("norm", x), KEEP))
    for layer in range(arguments.layers):
        with tf.variable_scope(f"layer{layer}"):
            with tf.variable_scope("attention"):
                x = mark(norm("norm", x + tf.nn.dropout(attention(x, arguments), KEEP)))
            with tf.variable_scope("feed"):
                inner = gelu(dense("inner", x, 4 * arguments.hidden))
                outer = tf.nn.dropout(dense("outer", inner, arguments.hidden), KEEP)
                x = mark(norm("norm", x + outer))
    return x


def build(arguments):
    """Returns the placeholders of tokens, places and answers, the training operation and the loss."""
    tf.set_random_seed(arguments.seed)
    tokens = tf.placeholder(tf.int32, [arguments.batch, arguments.length], "tokens")
    count = arguments.batch * predicted(arguments)
    places = tf.placeholder(tf.int32, [count], "places")
    answers = tf.placeholder(tf.int32, [count], "answers")
    x = encoder(tokens, arguments, training.marker(arguments))
    with tf.variable_scope("predict"):
        x = norm("norm", gelu(dense("transform", tf.gather(x, places), arguments.hidden)))
        logits = dense("vocabulary", x, arguments.vocabulary)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=answers, logits=logits)
    loss = tf.reduce_mean(losses)
    operation = tf.train.AdamOptimizer(arguments.learning_rate).minimize(loss)
    return (tokens, places, answers), operation, loss


def main():
    """Trains and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    inputs, operation, loss = build(arguments)
    feeds = (dict(zip(inputs, values)) for values in sequences(arguments))
    training.run(arguments, operation, loss, feeds)


if __name__ == "__main__":
    main()
