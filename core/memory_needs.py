"""What a battle holds in memory, component by component: arithmetic on a model's shape. It loads nothing.

Bytes of activations are those that autograd keeps of core/forge/qwen3.py's eager forward on a CPU, and what a pass needs
beyond them was counted from allocations there; tests count both again. Compiled kernels keep a quarter to two fifths
less, torch's fused norms on a GPU keep less, too: there the plan is an upper bound. Figures for a GPU's own needs
(context, slack, attention) are assumptions, marked as such.
"""

from dataclasses import dataclass
from pathlib import Path

from core.durable import read_json
from core.errors import UserError

GIB = 1 << 30
PACK_TOKENS = {"cpu": 2048, "cuda": 4096}  # measured on two cores: 512 to 4096 tokens, 2048 are the fastest
LOGITS_AT_ONCE = 1 << 26  # as in core/forge/loss.py
COMPARED_AT_ONCE, LEAST_COMPARED = 1 << 21, 256  # as in core/forge/divergence.py
ANSWERED_AT_ONCE = 16_384  # tokens, as in core/forge/generate.py
SHORT = {"fp32": 640, "bf16": 1024}  # as in core/forge/attend.py
CUDA_CONTEXT = int(0.7 * GIB)  # assumed: context, kernels, cuBLAS workspaces
CUDA_SLACK = 0.05  # assumed: blocks that are reserved and not filled
CUDA_STEP = 14 * 4 << 22  # RealmAdamW's intermediate results: 14 float32 of a piece
CPU_PROCESS = 420_000_000  # Python, torch, transformers, accelerate, after a first step; measured
CPU_HOLES = 0.35  # of a pass's blocks in the C library's heap: the holes they leave; measured, 0.15 to 0.8
CPU_HOLES_AGAIN = 2.0  # of a layer that is computed again, likewise; measured, 1.5 to 2.2
HEAP_BLOCK, MAPPED_BLOCK = 32 << 20, 2 << 20  # blocks above it are mapped one by one and leave no hole
MAPPED_HEAP = {"GLIBC_TUNABLES": f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={MAPPED_BLOCK}"}
CUDA, CPU = "cuda", "cpu"


@dataclass(frozen=True)
class Shape:
    """A Qwen3's numbers, as in its config.json."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    biased: bool = False

    @classmethod
    def read(cls, folder: Path) -> "Shape":
        """The shape of the model in `folder`. Raises UserError where it has none or is no Qwen3."""
        values = read_json(folder / "config.json")
        if not isinstance(values, dict):
            raise UserError(f"{folder} has no config.json that can be read; give the folder of a model")
        if values.get("model_type") != "qwen3":
            raise UserError(f"{folder}: model_type is {values.get('model_type')!r}; a hero is a qwen3 model")
        values = {"head_dim": 128} | values  # transformers' default
        names = {
            "hidden": "hidden_size",
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "kv_heads": "num_key_value_heads",
            "intermediate": "intermediate_size",
            "vocabulary": "vocab_size",
            "head_dim": "head_dim",
        }
        numbers = {ours: values.get(theirs) for ours, theirs in names.items()}
        for ours, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise UserError(f"{folder}: {names[ours]} = {number!r} in config.json must be a positive integer")
        return cls(
            **numbers, tied=values.get("tie_word_embeddings") is True, biased=values.get("attention_bias") is True
        )

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def layer_matrices(self) -> int:
        """Elements of one layer's seven matrices."""
        return self.hidden * (2 * self.query + 2 * self.key + 3 * self.intermediate)

    @property
    def vectors(self) -> int:
        """Elements of all norms and biases."""
        biases = self.query + 2 * self.key + self.hidden if self.biased else 0
        return self.layers * (2 * self.hidden + 2 * self.head_dim + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return (1 if self.tied else 2) * self.embedding + self.layers * self.layer_matrices + self.vectors


@dataclass(frozen=True)
class Means:
    """How a battle is fought within its memory.

    `weights`, `compute`, `moments`: fp32, bf16 or 8bit (moments only); `rounding`: RealmAdamW's, "none" for fp32 weights;
    `release`: each tensor's step as soon as its gradient is there, one pass a step; `recompute_every`: every n-th
    layer is computed again in the backward pass, 0 none; `pack_tokens`: tokens of a pass at most; `mapped`: the process
    is started with `MAPPED_HEAP` in its environment (less memory on the CPU, up to a quarter more time).
    """

    weights: str = "fp32"
    compute: str = "bf16"
    rounding: str = "none"
    moments: str = "fp32"
    release: bool = False
    recompute_every: int = 0
    pack_tokens: int = 4096
    mapped: bool = False

    @property
    def autocast(self) -> bool:
        return (self.weights, self.compute) == ("fp32", "bf16")

    @property
    def stream(self) -> int:
        """Bytes of a number between layers."""
        return 2 if self.weights == "bf16" else 4

    @property
    def size(self) -> int:
        """Bytes of a number that matrices multiply."""
        return 2 if self.compute == "bf16" else 4


@dataclass(frozen=True)
class Beside:
    """What a school holds in memory beside hero and optimizer.

    `other`: a `teacher` or the `parent`, which is as the hero; `shape`, `weights`: a teacher's, and the bytes of its weights;
    `numbers`: that live of each logit beside a teacher; `answers`: tokens whose keys and values are held while the hero answers
    in a step, before its passes.
    """

    other: str = ""
    shape: Shape | None = None
    weights: int = 0
    numbers: int = 3
    answers: int = 0


ALONE = Beside()


@dataclass(frozen=True)
class Component:
    """Some bytes. `counts`: whether they are there at the peak; `host`: in main memory beside a GPU."""

    name: str
    bytes: int
    counts: bool = True
    host: bool = False


def total(components: tuple[Component, ...]) -> int:
    """Bytes at the peak, on the device that the plan is for."""
    return sum(component.bytes for component in components if component.counts and not component.host)


def components(
    shape: Shape,
    means: Means,
    max_length: int,
    target: str = CUDA,
    snapshot: bool = True,
    beside: Beside = ALONE,
) -> tuple[Component, ...]:
    """All that is in memory at the peak of a battle. `snapshot`: checkpoints are written from a copy in main memory; `beside`:
    what its school holds."""
    state, passing = _State(shape, means), _Pass(shape, means, max_length, target, beside)
    loss, said = passing.loss_is_widest, answers(shape, means, beside)
    passes = state.gradients + passing.copies + passing.kept + max(passing.loss, passing.backward + passing.attention)
    trains = said <= passes  # answers are written when the gradients of the step before are gone
    found = [
        Component(f"weights, {means.weights}", state.weights),
        Component("weights' copies in bf16", passing.copies, trains),
        Component("gradients", state.gradients, trains),
        Component(f"moments, {means.moments}", state.moments),
        Component("remainders of bf16 weights", state.remainders),
        Component(f"{beside.other}'s weights", beside.weights or (state.weights if beside.other else 0)),
        Component(f"keys and values of {beside.answers} tokens of answers", said, not trains),
        Component(f"activations of {passing.tokens} tokens", passing.kept, trains),
        Component(f"loss, {passing.rows} rows of logits", passing.loss, trains and loss),
        Component("backward pass of a layer", passing.backward, trains and not loss),
        Component("attention", passing.attention, trains and not loss),
    ]
    if target == CUDA:
        found.append(Component("allocator's slack", int(CUDA_SLACK * total(tuple(found)))))
        found.append(Component("CUDA context", CUDA_CONTEXT))
    else:
        found.append(Component("holes in the heap", int(passing.holes), trains))
        found.append(Component("process", CPU_PROCESS))
    if snapshot:
        copied = state.weights + state.moments + state.remainders
        found.append(Component("snapshot for a checkpoint", copied, host=target == CUDA))
    return tuple(component for component in found if component.bytes)


@dataclass(frozen=True)
class _State:
    """What stays from step to step, and the gradients that packs of a step add up in."""

    shape: Shape
    means: Means

    @property
    def size(self) -> int:
        return 4 if self.means.weights == "fp32" else 2

    @property
    def weights(self) -> int:
        return self.shape.parameters * self.size

    @property
    def gradients(self) -> int:
        """All of them, or one matrix where they are released; the embedding's is counted in the pass."""
        shape = self.shape
        return shape.hidden * shape.intermediate * self.size if self.means.release else self.weights

    @property
    def moments(self) -> int:
        """Vectors keep fp32, codes of 8 bits have a scale for each 256 (core/forge/adamw.py)."""
        each = {"fp32": 8.0, "bf16": 4.0, "8bit": 2 * (1 + 4 / 256)}[self.means.moments]
        return int(each * (self.shape.parameters - self.shape.vectors)) + 8 * self.shape.vectors

    @property
    def remainders(self) -> int:
        kept = {"none": 0, "stochastic": self.shape.vectors, "kahan": self.shape.parameters}
        return 2 * kept[self.means.rounding]


def layer_activations(shape: Shape, means: Means) -> int:
    """Bytes per token that a layer leaves for its backward pass, but for attention's own.

    Norms: what goes in and what is normalised, in fp32. Matrices: hidden states before attention and before the MLP,
    q, k and v for attention, its output; the MLP's gate, its SiLU, up, and their product.
    """
    hidden, query, key, wide = shape.hidden, shape.query, shape.key, shape.intermediate
    scales = 2 + shape.heads + shape.kv_heads  # one a norm
    return 4 * (4 * hidden + 2 * query + 2 * key + scales) + means.size * (2 * hidden + 2 * query + 2 * key + 4 * wide)


def attention_activations(shape: Shape, means: Means, max_length: int, target: str) -> int:
    """Bytes per token that a layer's attention leaves: log-sums on a GPU, the probabilities of short rows on a CPU.

    How long rows are is not known beforehand: planned are those that cost most, as long as they may be up to `SHORT`.
    Longer ones leave log-sums and a copy of their output, which is less.
    """
    if target == CUDA:
        return 4 * shape.heads
    return means.size * shape.heads * min(max_length, SHORT[means.compute])


def other_activations(shape: Shape, means: Means) -> int:
    """Bytes per token that is left outside the layers, all being labels: the last norm, rotary angles, numbers."""
    return 8 * shape.hidden + 2 * means.stream * shape.head_dim + 20


def answers(shape: Shape, means: Means, beside: Beside) -> int:
    """Bytes of all layers' keys and values, and of the wider of one layer's once more, as it grows by a token, and of an MLP
    that reads the prompts."""
    return beside.answers * means.stream * (2 * shape.key * shape.layers + max(2 * shape.key, 3 * shape.intermediate))


@dataclass(frozen=True)
class _Pass:
    """What comes and goes with the widest pass, when gradients of others are there already."""

    shape: Shape
    means: Means
    max_length: int
    target: str
    beside: Beside = ALONE

    @property
    def tokens(self) -> int:
        return max(self.means.pack_tokens, self.max_length)

    @property
    def rows(self) -> int:
        """Label positions whose logits exist at once."""
        if self.beside.shape:
            return min(self.tokens, max(LEAST_COMPARED, COMPARED_AT_ONCE // self._vocabulary))
        return min(self.tokens, max(1, LOGITS_AT_ONCE // self.shape.vocabulary))

    @property
    def _vocabulary(self) -> int:
        return max(self.shape.vocabulary, self.beside.shape.vocabulary)

    @property
    def again(self) -> int:
        """Layers that are computed again: the first and every n-th after it."""
        return -(-self.shape.layers // self.means.recompute_every) if self.means.recompute_every else 0

    @property
    def layer(self) -> int:
        return self.tokens * layer_activations(self.shape, self.means) + self.probabilities

    @property
    def probabilities(self) -> int:
        return self.tokens * attention_activations(self.shape, self.means, self.max_length, self.target)

    @property
    def states(self) -> int:
        """Hidden states at label positions, all being labels; their gradient."""
        return self.tokens * self.shape.hidden * self.means.size

    @property
    def copies(self) -> int:
        """Autocast's copies of the weights of those layers that are not computed again."""
        return 2 * (self.shape.layers - self.again) * self.shape.layer_matrices if self.means.autocast else 0

    @property
    def kept(self) -> int:
        """Activations at the end of the forward pass; of a layer that is computed again only its input."""
        inputs = self.again * self.means.stream * self.shape.hidden
        outside = inputs + other_activations(self.shape, self.means)
        return (self.shape.layers - self.again) * self.layer + self.tokens * outside

    @property
    def loss(self) -> int:
        """The head's forward and backward in one: states, autocast's copy of its weights, and the wider of a chunk's
        logits, twice in fp32, and of their gradient beside the head's; with chunks, the gradients of those before.
        """
        shape, means = self.shape, self.means
        if self.beside.shape:
            return self._divergence(self.beside.shape)
        logits, head = self.rows * shape.vocabulary, shape.embedding * means.size
        before = head + self.states if self.rows < self.tokens else 0
        in_fp32 = 8 if means.compute == "fp32" else 2 + 8
        copy = 2 * shape.embedding if means.autocast else 0
        return self.states + copy + max(before + in_fp32 * logits, head + means.size * logits)

    def _divergence(self, teacher: Shape) -> int:
        """The teacher's states beside the hero's, both heads' copies, a few numbers a logit in fp32, the head's gradient, and with
        chunks the gradients of those before."""
        shape, means = self.shape, self.means
        theirs, copies = self.tokens * teacher.hidden * means.size, 2 * (shape.embedding + teacher.embedding)
        before = shape.embedding * means.size + self.states if self.rows < self.tokens else 0
        wide = max(
            4 * self.beside.numbers * self.rows * self._vocabulary, (4 + 2 * means.size) * self.rows * self._vocabulary
        )
        return self.states + theirs + (copies if means.autocast else 0) + before + wide

    @property
    def backward(self) -> int:
        """The widest of: its beginning, when the head's gradient becomes one of the weights' type; gradients of
        activations, beside the last layer if it is computed again (an earlier one takes the place of those after it);
        its end, when the embedding's gradient is there. A tied head's waits for that. A step in their midst.
        """
        shape, means = self.shape, self.means
        head, embedding = shape.embedding * means.size, shape.embedding * (4 if means.weights == "fp32" else 2)
        waiting = embedding if shape.tied else 0
        begin = head + (embedding if means.autocast else 0) + 2 * self.states
        last_again = means.recompute_every and (shape.layers - 1) % means.recompute_every == 0
        again = self.layer + (2 * shape.layer_matrices if means.autocast else 0) if last_again else 0
        gradients = self.tokens * (shape.intermediate + 2 * shape.hidden) * means.size
        step = CUDA_STEP if means.release and self.target == CUDA else 0
        return step + max(begin, waiting + gradients + again, waiting + embedding - self.kept)

    @property
    def attention(self) -> int:
        """Assumed: a longest row's fp32 gradient of q, and gradients of k and v for each query head. On a CPU it needs
        about what the layer's MLP needed, which is gone."""
        return 8 * self.max_length * self.shape.query if self.target == CUDA else 0

    @property
    def loss_is_widest(self) -> bool:
        return self.loss > self.backward + self.attention

    @property
    def holes(self) -> float:
        """Bytes lost between the blocks of a pass that are small enough for the C library's heap."""
        shape, block = self.shape, MAPPED_BLOCK if self.means.mapped else HEAP_BLOCK
        widths = ((shape.hidden, 6), (shape.query, 4), (shape.key, 4), (shape.intermediate, 4))
        small = 4 * self.tokens * sum(width * count for width, count in widths if 4 * self.tokens * width <= block)
        row = min(self.max_length, SHORT[self.means.compute])
        small += self.probabilities if self.means.size * shape.heads * row**2 <= block else 0
        share = min(1.0, small / self.layer)
        logits = self.loss if self.loss_is_widest and 4 * self.rows * shape.vocabulary <= block else 0
        passing = self.kept + (0 if self.loss_is_widest else self.backward)
        again = self.layer if self.means.recompute_every else 0
        return CPU_HOLES * (share * passing + logits) + CPU_HOLES_AGAIN * share * again
