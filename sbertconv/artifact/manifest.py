"""The manifest of a converted folder as types: each key with its range and its meaning. These types make
docs/manifest.md, and every manifest that is written or read is checked against them.

A key without a mark is stable: a folder of the same format version has it with this meaning. Other keys may change.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from sbertconv.artifact.graph_inputs import given_inputs
from sbertconv.artifact.kinds import ACTIVATIONS, EXACT, MODEL_CLASSES, SPARSE_OUTPUTS


def one_of(*names: str) -> str:
    """The pattern of names that are compared as strings everywhere else."""
    return f"^({'|'.join(names)})$"


FORMAT_VERSION = 1
INTERNAL = "internal"  # a key that tools should not read
PATH = r"^[^\x00]{1,1000}$"
NAME = r"^(?!\.{1,2}$)(?![A-Za-z]:)[^/\\\x00-\x1f]{1,100}$"  # becomes part of file names
FORM = one_of("onnx", "openvino", "keras", "saved_model", "litert", "torch", "tensorrt")
ENGINE = one_of("onnxruntime", "openvino", "keras", "tensorflow", "litert", "torch", "tensorrt")
PATTERNS = {
    PATH: "path",
    NAME: "name that a file can have",
    **{one: f"known name (have: {', '.join(one[2:-2].split('|'))})" for one in (FORM, ENGINE)},
}


def key(description: str, **limits: Any) -> msgspec.Meta:
    """What a key means, and the range of its values."""
    return msgspec.Meta(description=description, **limits)


def internal(description: str, **limits: Any) -> msgspec.Meta:
    """The same of a key that may change in any version."""
    return msgspec.Meta(description=description, extra={INTERNAL: True}, **limits)


Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Forwarded = Annotated[int, msgspec.Meta(ge=1, le=2**20)]  # tokens of a text with a vector that was compared
MOST_UNWEIGHTED = 10_000  # which are looked through for every token
LARGEST_EDGE = 4096  # pixels that an image becomes; models take 224 to 1024
MOST_ENLARGED = 2**20  # pixels that an image of any size becomes: a small one must not take all memory
Edge = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_EDGE)]
# Bounds refuse NaN too
Value = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Divisor = Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)]
Hertz = Annotated[float, msgspec.Meta(ge=0, le=500_000)]
Samples = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Frames = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Filter = Annotated[int, msgspec.Meta(ge=0, le=5)]
Path = Annotated[str, msgspec.Meta(pattern=PATH)]
Name = Annotated[str, msgspec.Meta(pattern=NAME)]
Side = Literal["left", "right"]
Fill = Literal["zeros", "repeat", "repeat and zeros"]
Task = Annotated[str, msgspec.Meta(max_length=200)]
FormatName = Annotated[str, msgspec.Meta(pattern=FORM)]
EngineName = Annotated[str, msgspec.Meta(pattern=ENGINE)]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=2**24)]  # of a vector: of a sparse one, the tokens of a vocabulary
LONGEST_PROMPT = 1 << 16  # characters, that stand before every text
MOST_PROMPTS = 1000  # of which each is compared
Prompt = Annotated[str, msgspec.Meta(max_length=LONGEST_PROMPT)]
Axis = Positive | Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Tensor(TypedDict):
    """One input or output of a graph."""

    name: Annotated[Name, key("the name that the graph knows it by")]
    dtype: Annotated[str, key("its element type: `int64`, `int32`, `float32`, `string`, ...", pattern=r"^[a-z0-9]+$")]
    shape: Annotated[list[Axis], key("its axes: a number, or the name of one that varies", max_length=8)]
    below: NotRequired[Annotated[Positive, key("of an input, what its numbers are smaller than: the rows of a table")]]
    in_graph: NotRequired[Annotated[Name, key("its name in the graph's file, where that is another")]]


class QueryExpansion(TypedDict):
    """The filling of short queries with a token of their own, see `Transformer` of sentence-transformers."""

    strategy: Annotated[str, key("`fixed`, or another name of the library's")]
    attend: Annotated[bool, key("whether the attention mask covers the filled places")]
    length: Annotated[Forwarded, key("tokens that a query is filled up to")]
    token_id: Annotated[Count, key("the token that fills")]


class Slot(TypedDict):
    """A place in a chat template."""

    slot: Annotated[str, key("the text that goes there")]


class Template(TypedDict):
    """A chat template for one combination of texts."""

    slots: Annotated[list[str], key("the texts that it takes")]
    pieces: Annotated[list[Prompt | Slot], key("strings, and the places of the texts between them", max_length=1000)]


class TokenizerSection(TypedDict):
    """The way from texts to tensors."""

    kind: Annotated[Literal["fast", "chat", "whitespace", "phrase"], key("how the file is read")]
    file: Annotated[Path, key("the tokenizer's file, relative to the folder")]
    tensors: Annotated[list[Literal["input_ids", "token_type_ids", "attention_mask"]], key("its outputs in order")]
    max_length: Annotated[Positive | None, key("the limit in tokens, special ones included; null: none")]
    task_max_length: Annotated[dict[Task, Positive], key("task -> its limit, where that is another")]
    cut: Annotated[
        Literal["truncate", "slice"],
        key("`truncate` keeps special tokens, `slice` cuts them too"),
    ]
    truncation_side: Annotated[Side, key("the side where a long text is cut")]
    padding_side: Annotated[Side, key("the side where a short text is filled")]
    pad_id: Annotated[Count, key("the token that fills short texts")]
    pad_type_id: Annotated[Count, key("its token type")]
    special_ids: Annotated[list[Count], key("the special tokens")]
    add_special_tokens: Annotated[bool, key("whether the post-processor's tokens are added")]
    split_special_tokens: Annotated[bool, key("whether special tokens in a text are words like any other")]
    do_lower_case: Annotated[bool, key("whether texts are lowered before")]
    query_expansion: Annotated[QueryExpansion | None, key("how queries are filled up; null: like all texts")]
    templates: NotRequired[Annotated[list[Template], key("the chat templates, for the kind `chat`")]]
    message_format: NotRequired[
        Annotated[Literal["flat", "structured"], key("for the kind `chat`, how it has the content of messages")]
    ]
    restore_suffix: NotRequired[
        Annotated[bool, key("for the kind `chat`, whether a text over the limit keeps the template's end")]
    ]


class PatchSection(TypedDict):
    """The patches that an image is cut into, of any number up to a largest."""

    size: Annotated[Edge, key("the edge of a patch, in pixels")]
    most: Annotated[int, key("the largest number; an image is resized to have nearly as many", ge=1, le=65536)]


class GridSection(TypedDict):
    """The tokens that an image becomes, of any number: groups of its patches."""

    size: Annotated[Edge, key("the edge of a patch, in pixels")]
    merge: Annotated[int, key("how many patches on each side become a token together", ge=1, le=64)]
    frames: Annotated[int, key("how often a patch repeats the image, as a film that stands still", ge=1, le=64)]
    least: Annotated[int, key("the fewest pixels of an image, to which it is enlarged", ge=1, le=MOST_ENLARGED)]
    most: Annotated[int, key("the most pixels of an image, to which it is reduced", ge=1, le=LARGEST_EDGE**2)]
    place: Annotated[int, key("where in `tokens` the one stands that is repeated for every group", ge=0)]
    longest: Annotated[Positive | None, key("the most tokens of an image, with those around it; null: any number")]


class ImageSection(TypedDict):
    """The way from images to pixel values: resize, center crop, rescale, normalize, in this order."""

    do_convert_rgb: Annotated[bool | None, key("whether images are converted to RGB")]
    do_resize: Annotated[bool | None, key("whether images are resized")]
    size: Annotated[dict[str, Edge] | None, key("`shortest_edge`, or `height` and `width`, in pixels")]
    resample: Annotated[Filter | None, key("Pillow's number of the filter")]
    do_center_crop: Annotated[bool | None, key("whether the middle is cut out")]
    crop_size: Annotated[dict[str, Edge] | None, key("`height` and `width`, in pixels")]
    do_rescale: Annotated[bool | None, key("whether pixels are multiplied")]
    rescale_factor: Annotated[Value | None, key("by this")]
    do_normalize: Annotated[bool | None, key("whether the mean is taken off and the rest divided")]
    image_mean: Annotated[list[Value] | Value | None, key("the mean of each channel")]
    image_std: Annotated[list[Divisor] | Divisor | None, key("the divisor of each channel")]
    patches: NotRequired[Annotated[PatchSection, key("the patches that an image is cut into, in the place of `size`")]]
    grid: NotRequired[Annotated[GridSection, key("the tokens that an image becomes, in the place of `size`")]]
    tokens: NotRequired[
        Annotated[dict[Name, list[int]], key("what the model is given with every image, as constants of the graph")]
    ]
    prompt: NotRequired[
        Annotated[str | None, key("the prompt before every image, for models that take an image as a message")]
    ]


class MelSection(TypedDict):
    """The mel filters of a spectrogram: triangles between points that lie evenly on the scale."""

    filters: Annotated[int, key("how many", ge=1, le=1024)]
    lowest: Annotated[Hertz, key("where the first one begins, in Hz")]
    highest: Annotated[Hertz, key("where the last one ends, in Hz")]
    scale: Annotated[Literal["htk", "kaldi", "slaney"], key("the formula from Hz to mel")]
    in_mel: Annotated[bool, key("whether the triangles are straight on that scale, not in Hz")]
    by_area: Annotated[bool, key("whether each is divided by half its width")]


class RowSection(TypedDict):
    """The rows that the frames of a sound become, of any number. A call takes sounds of as many rows: each has the
    vector that it has alone.
    """

    frames: Annotated[int, key("frames that become a row together", ge=1, le=64)]
    filler: Annotated[Value, key("what fills the last row, which only counts where it is full")]
    normalized: Annotated[bool, key("whether each filter's mean is taken off and the rest divided by its deviation")]
    shortest: Annotated[Samples, key("the fewest samples of which the model makes a row that counts")]


class SoundSection(TypedDict):
    """The way from the samples of a sound to a spectrogram: fill, frames, Fourier transform, mel filters, logarithm."""

    tensors: Annotated[
        list[Name],
        key("the input of the graph; with `rows` also the mask of those that count", min_length=1, max_length=2),
    ]
    layout: Annotated[list[Literal["channel", "frames", "filters"]], key("its axes", min_length=2, max_length=3)]
    sampling_rate: Annotated[int, key("samples per second", ge=1, le=1_000_000)]
    scale: NotRequired[Annotated[Divisor, key("what samples are multiplied by; left out: 1")]]
    samples: Annotated[Samples | None, key("a sound is cut and filled to so many; null: not")]
    fill: Annotated[Fill, key("by what")]
    longer: Annotated[Literal["cut", "refuse"], key("what becomes of a longer one")]
    frame_length: Annotated[int, key("samples of a frame, under a window", ge=2, le=65536)]
    hop_length: Annotated[int, key("samples from one to the next", ge=1, le=65536)]
    fft_length: Annotated[int, key("samples of a Fourier transform; a frame is filled with zeros", ge=2, le=65536)]
    window: NotRequired[Annotated[Literal["hann", "povey"], key("its shape; left out: `hann`")]]
    periodic: Annotated[bool, key("whether the window is that of a longer frame without its last sample")]
    center: Annotated[bool, key("whether half a frame is mirrored at both ends first")]
    remove_dc: Annotated[bool, key("whether the mean of a frame is taken off")]
    preemphasis: Annotated[float, key("the part of the sample before that is taken off", ge=0, lt=1)]
    mel: Annotated[MelSection, key("the filters of the powers")]
    floor: Annotated[float, key("the smallest power", gt=0, le=1)]
    logarithm: Annotated[Literal["log", "log10", "dB"], key("of the filtered powers")]
    drop_last_frame: Annotated[bool, key("whether the last frame is left out")]
    frames: Annotated[Frames | None, key("frames are cut and filled with zeros to so many; null: not")]
    range: Annotated[Value | None, key("how far below the largest value the smallest may be")]
    mean: Annotated[Value, key("what is taken off")]
    divisor: Annotated[Divisor, key("what the rest is divided by")]
    rows: NotRequired[Annotated[RowSection, key("the rows that frames become, in the place of `samples` and `frames`")]]


class WaveSection(TypedDict):
    """The way from the samples of a sound to those that a graph takes. A call takes sounds of one length: each has the
    vector that it has alone.
    """

    tensors: Annotated[list[Name], key("the input of the graph", min_length=1, max_length=1)]
    sampling_rate: Annotated[int, key("samples per second", ge=1, le=1_000_000)]
    normalized: Annotated[bool, key("whether the mean is taken off and the rest divided by the deviation")]
    shortest: Annotated[Samples, key("the fewest samples of which the model makes a frame")]


class Attention(TypedDict):
    """The attentions of a graph."""

    found: Annotated[Count, key("attentions that were recognised")]
    fused: Annotated[Count, key("attentions that became one operator")]


class ShapeRange(TypedDict):
    """The shapes that a TensorRT plan is built for."""

    min: Annotated[list[Positive], key("the smallest shape", min_length=1)]
    opt: Annotated[list[Positive], key("the shape that it is tuned for", min_length=1)]
    max: Annotated[list[Positive], key("the largest shape", min_length=1)]


class GraphSection(TypedDict):
    """One graph: a route of the model."""

    name: Annotated[Name, key("the route's name")]
    formats: Annotated[dict[FormatName, Path], key("format -> its file", min_length=1)]
    data: NotRequired[Annotated[list[Path], key("files with external data, beside the graph")]]
    tracer: NotRequired[Annotated[str, internal("the exporter that traced it")]]
    attention: NotRequired[Annotated[Attention, internal("how many attentions are fused")]]
    profile: NotRequired[Annotated[dict[Name, ShapeRange], key("every input -> its shapes, for TensorRT")]]
    chooses_tokens: NotRequired[Annotated[bool, internal("whether it takes the best of the tokens, by scores")]]
    sides: NotRequired[Annotated[list[str], internal("lines of the model with a branch on data: one side is in it")]]
    guarded: NotRequired[Annotated[list[Count], internal("lengths that the trace's guards name, which were compared")]]
    longest: NotRequired[
        Annotated[Samples, key("of sounds of any length, the most samples that the graph is right for")]
    ]
    modality: Annotated[Literal["text", "image", "audio"], key("what it takes")]
    tasks: Annotated[list[Task | None], key("the tasks that lead to it; empty: every one; null: when none is said")]
    inputs: Annotated[list[Tensor], key("its inputs in order", min_length=1)]
    outputs: Annotated[list[Tensor], key("its outputs in order", min_length=1)]
    tokenizer: Annotated[TokenizerSection | None, key("for texts, how they become tensors")]
    image: Annotated[ImageSection | None, key("for images, how they become pixel values")]
    sound: NotRequired[Annotated[SoundSection, key("for sounds, how they become spectrograms")]]
    wave: NotRequired[Annotated[WaveSection, key("for sounds that stay waves, how their samples become the graph's")]]
    text: NotRequired[Annotated[dict[str, Any], internal("the size of the tokenizer inside the graph")]]


class File(TypedDict):
    """A file of the folder."""

    size: Annotated[int, key("bytes", ge=0, le=2**63 - 1)]
    sha256: Annotated[str, key("its hash, in hex", pattern="^[0-9a-f]{64}$")]


class Origin(TypedDict):
    """The model that was converted."""

    name: Annotated[str, key("its name or path")]
    revision: Annotated[str | None, key("its revision on the Hub")]
    license: NotRequired[Annotated[str | None, key("the license that its README.md names")]]


class TokenPooling(TypedDict):
    """A merging of token vectors after the graph."""

    pool_factor: NotRequired[Annotated[float, key("one vector stays of this many", ge=1)]]
    num_protected_tokens: NotRequired[Annotated[Count, key("leading tokens that are not merged")]]
    normalize_embeddings: NotRequired[Annotated[bool, key("whether vectors are divided by their length")]]
    tasks: NotRequired[Annotated[str | list[str], key("the tasks in which it applies")]]


class WeightsOrigin(TypedDict):
    """The place of a Keras layer's weights in the files of the PyTorch model."""

    file: Annotated[Path, key("the safetensors file")]
    prefix: Annotated[str, key("what its keys begin with")]
    shapes: Annotated[dict[str, list[Count]], key("weight -> its shape in PyTorch")]


class GateSection(TypedDict):
    """The quality that a smaller precision had to reach."""

    min_cosine: Annotated[float, key("of every text's vector with the original's; of logits, of every list's")]
    min_spearman: Annotated[float, key("of all similarities, or all logits, in their order")]
    min_top10: Annotated[float, key("mean share of the ten nearest, or first, that stay")]
    reason: NotRequired[Annotated[str, key("why these numbers")]]


class CheckSection(TypedDict):
    """One comparison of one list of texts."""

    name: Annotated[str, key("what was compared")]
    max_abs_diff: Annotated[float | None, key("the largest difference; null: of other shapes, or no number")]
    texts: Annotated[Count, key("how many")]
    worst_text: NotRequired[Annotated[str, key("the text that it came from")]]


class QualitySection(TypedDict):
    """What a smaller precision keeps of the original."""

    of: Annotated[Literal["sentences", "lists"], key("what was compared, for vectors or for logits")]
    passed: Annotated[bool, key("whether it reaches the gate")]
    run: Annotated[str, key("the engine, where there were several")]
    texts: Annotated[Count, key("how many")]
    gate: Annotated[GateSection, key("what was asked for")]
    min_cosine: Annotated[float, key("the smallest")]
    mean_cosine: Annotated[float, key("of all texts")]
    spearman: Annotated[float, key("rank correlation of all similarities, or logits")]
    top1: Annotated[float, key("share of texts whose nearest stays")]
    top10: Annotated[float, key("mean share of the ten nearest that stay")]
    batch_cosine: Annotated[float, key("the smallest between a text alone and in a batch")]
    worst_text: Annotated[str, key("the text of the smallest cosine")]
    batch_text: Annotated[str, key("that of the smallest one in a batch")]


class ProofSection(TypedDict):
    """The comparison with the original, as `verify --json` prints it."""

    rule: Annotated[str, key("what every text is held to, in words")]
    method: Annotated[str, key("of the original, that was compared with")]
    wobble: Annotated[float, key("how far the original is from itself in another batch")]
    checks: Annotated[list[CheckSection], key("each comparison")]
    quality: NotRequired[Annotated[list[QualitySection], key("below float32, what it keeps")]]


class PlanSection(TypedDict):
    """The TensorRT plans of a folder."""

    tensorrt: Annotated[str, key("the version that built them")]
    gpu: Annotated[str, key("the GPU that they were built on")]
    parity: NotRequired[Annotated[ProofSection, key("their comparison with the graphs")]]


class VariantSection(TypedDict):
    """Another precision that a consumer may choose."""

    file: Annotated[Path, key("its file")]
    max_abs_diff: Annotated[float, key("the largest difference from the folder that it is of")]
    min_cosine: NotRequired[Annotated[float, key("with the original, as that folder's gate measured it")]]


class ConsumerSection(TypedDict):
    """The proof of other software."""

    reads: Annotated[str, key("its files and its output, in words")]
    texts: Annotated[Count, key("how many were compared")]
    max_abs_diff: Annotated[float, key("the largest difference")]
    over_limit: Annotated[bool, key("whether texts over the limit were among them")]
    min_cosine: NotRequired[Annotated[float, key("the smallest, where a quality gate was asked for")]]
    opens: NotRequired[Annotated[str, key("how it is opened, as a block of Markdown")]]
    precisions: NotRequired[Annotated[dict[str, VariantSection], key("precision -> its file, where there are more")]]


class Manifest(TypedDict):
    """The file `sbertconv.json` of a converted folder."""

    format_version: Annotated[Literal[1], key("changes when an older reader would misread the folder")]
    sbertconv: Annotated[str, key("the version that wrote it")]
    model_class: Annotated[Literal[tuple(MODEL_CLASSES)], key("the class of the model")]  # type: ignore[valid-type]
    backend: Annotated[Literal["onnx", "keras", "torch"], key("what converted it")]
    source: Annotated[Origin, key("the model")]
    architecture: Annotated[str | None, key("the model type of its Transformer")]
    chain: Annotated[list[str], key("the classes of its modules in order")]
    notes: Annotated[list[str], key("what its user should know")]
    pooling: NotRequired[Annotated[str, key("the pooling mode that was chosen for a bare checkpoint")]]
    max_seq_length: Annotated[Positive | None, key("the limit in tokens of the default route; null: none")]
    proven_length: NotRequired[
        Annotated[
            Forwarded | None, key("the number of tokens that texts are cut at, no longer ones having been compared")
        ]
    ]
    padding_side: Annotated[Side | None, key("of the default route; null: it takes no texts")]
    do_lower_case: Annotated[bool, key("of the default route")]
    prompts: Annotated[dict[str, Prompt], key("prompt name -> prompt", max_length=MOST_PROMPTS)]
    default_prompt_name: Annotated[str | None, key("the prompt where none is asked for")]
    embedding_dimension: NotRequired[Annotated[Dimension | str, key("the size of its vectors")]]
    truncate_dim: NotRequired[Annotated[Positive | None, key("the size that vectors are cut to")]]
    normalized: NotRequired[Annotated[bool, key("whether vectors are normalized after they are cut")]]
    unweighted_ids: NotRequired[
        Annotated[list[Count], key("the tokens that have no lexical weight", max_length=MOST_UNWEIGHTED)]
    ]
    max_active_dims: NotRequired[Annotated[Positive | None, key("of sparse vectors, the most values that are not 0")]]
    similarity_fn_name: NotRequired[
        Annotated[
            Literal["cosine", "dot", "euclidean", "manhattan", "maxsim", "meanmaxsim"], key("how vectors are compared")
        ]
    ]
    token_pooling: NotRequired[Annotated[list[TokenPooling], key("of late interaction, how token vectors are merged")]]
    num_labels: NotRequired[Annotated[Positive, key("of predictions, their number")]]
    labels: NotRequired[Annotated[list[str], key("their names")]]
    activation: NotRequired[Annotated[str, key(f"of logits: {', '.join(ACTIVATIONS)}, or a class in full")]]
    precision: Annotated[str, key(f"`{EXACT}`, or that of the weights", pattern="^[a-z0-9-]{1,30}$")]
    sees_padding: Annotated[bool, key("whether a vector depends on the padding of its batch")]
    engines: Annotated[
        dict[FormatName, Annotated[list[EngineName], msgspec.Meta(min_length=1)]],
        key("format -> the engines that it is proven on", min_length=1),
    ]
    proven_on: NotRequired[
        Annotated[
            dict[EngineName, str], key("engine -> its version and processor at the proof; all others are unproven")
        ]
    ]
    opset: NotRequired[Annotated[Positive, key("ONNX's")]]
    optimized: NotRequired[Annotated[bool, key("whether the graph was fused")]]
    text_input: NotRequired[Annotated[bool, key("whether the graphs take strings")]]
    not_converted: NotRequired[Annotated[list[Name], key("modalities that the model takes and no graph does")]]
    options: NotRequired[
        Annotated[dict[str, Any], key("options of the conversion that were not left out; of a user's texts the number")]
    ]
    target: NotRequired[Annotated[Literal["tensorrt"], key("what the graphs are prepared for")]]
    top_k: NotRequired[Annotated[Positive, key("of sparse vectors, the limit that was asked for")]]
    recipe: NotRequired[Annotated[str, internal("the way to a smaller precision that passed its gate")]]
    block_size: NotRequired[Annotated[Positive | None, internal("of block-wise quantization")]]
    gate: NotRequired[Annotated[GateSection, key("below float32, the quality that was asked for")]]
    plan: NotRequired[Annotated[PlanSection, key("the TensorRT version and GPU of a plan, and its proof")]]
    graphs: Annotated[list[GraphSection], key("its graphs, the default route first", min_length=1, max_length=100)]
    versions: Annotated[dict[str, str | None], key("package -> version, when it was written")]
    consumers: NotRequired[Annotated[dict[str, ConsumerSection], key("other software -> its proof")]]
    parity: NotRequired[Annotated[ProofSection, key("the proof, as `verify --json` prints it")]]
    torch_weights: NotRequired[
        Annotated[dict[str, WeightsOrigin], internal("inside a .keras file: layer -> the place of its weights")]
    ]
    files: Annotated[dict[Path, File], key("every file but this one")]


T = TypeVar("T")
IMAGE_STEPS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
CHANNELS = 3
CHAT_KEYS = ("templates", "restore_suffix")
# Modality -> the entries of a graph one of which says how its input is made, and what it takes
TAKEN = {
    "text": (("tokenizer",), "texts"),
    "image": (("image",), "images"),
    "audio": (("sound", "wave"), "sounds"),
}
MOST_SPECTRUM = 2**24  # numbers of a spectrum, 128 MiB as float64; Whisper's has 1.2 million
MOST_PARTS = 1000  # of a list or an object that is wrong, each of which is looked at by itself
IMAGE_SIZES = {"size": ({"shortest_edge"}, {"height", "width"}), "crop_size": ({"height", "width"},)}
SECTIONS = (Manifest, GraphSection, Tensor, TokenizerSection, QueryExpansion, Template, Slot, ImageSection,
            PatchSection, GridSection, SoundSection, MelSection, RowSection, WaveSection, Attention, ShapeRange,
            TokenPooling, WeightsOrigin, Origin, ProofSection, CheckSection, QualitySection, GateSection, PlanSection,
            ConsumerSection, VariantSection, File)  # fmt: skip
OPEN = (ProofSection, CheckSection, QualitySection, PlanSection)  # reports: they say more than is read again


def problems_of(content: Any, *, closed: bool = False) -> list[str]:
    """Every key of a manifest that is missing or has a value out of its range, in words.

    Args:
        content: the parsed JSON.
        closed: whether unknown keys are problems too, as they are in a manifest that is being written.
    """
    found = list(_problems(content, Manifest, "", closed))
    return found or list(_contradictions(content))


def problems_of_image(section: Any) -> list[str]:
    """The same of the `image` entry of a graph, before there is a manifest."""
    return list(_problems(section, ImageSection, "", True)) or list(_image_problems(section))


def problems_of_sound(section: Any) -> list[str]:
    """The same of the `sound` entry of a graph, before there is a manifest."""
    return list(_problems(section, SoundSection, "", True)) or list(_sound_problems(section))


def problems_of_wave(section: Any) -> list[str]:
    """The same of the `wave` entry of a graph, before there is a manifest."""
    return list(_problems(section, WaveSection, "", True))


def _problems(value: Any, kind: Any, where: str, closed: bool) -> Iterator[str]:
    """Part by part, since the validator stops at the first problem of a value."""
    plain = _bare(kind)
    section = next((option for option in _options(kind) if is_typeddict(option)), None)
    if section is not None and isinstance(value, dict):
        yield from _problems_of_keys(value, section, where, closed)
    elif not (error := _invalid(value, kind)):
        if closed and get_origin(plain) is list:  # of sections, whose unknown keys the validator passes over
            for index, item in enumerate(value):
                yield from _problems(item, get_args(plain)[0], f"{where}[{index}]", closed)
    elif get_origin(plain) is list and isinstance(value, list) and value:
        head = enumerate(value[:MOST_PARTS])
        parts = [_problems(item, get_args(plain)[0], f"{where}[{at}]", closed) for at, item in head]
        yield from _or_itself(parts, f"{where}: {error}")
    elif get_origin(plain) is dict and isinstance(value, dict) and value:
        names, values = get_args(plain)
        first = dict(islice(value.items(), MOST_PARTS))
        parts = [_problems(name, names, f"{where}, its key {name!r}", closed) for name in first]
        parts += [_problems(item, values, f"{where}.{name}", closed) for name, item in first.items()]
        yield from _or_itself(parts, f"{where}: {error}")
    else:
        yield f"{where or 'the file'}: {error}"


def _problems_of_keys(value: Mapping[str, Any], section: Any, where: str, closed: bool) -> Iterator[str]:
    prefix = f"{where}." if where else ""
    hints = get_type_hints(section, include_extras=True)
    for name, hint in hints.items():
        if name in value:
            yield from _problems(value[name], hint, f"{prefix}{name}", closed)
        elif get_origin(hint) is not NotRequired:
            yield f"{prefix}{name} is missing"
    if closed and section not in OPEN:
        yield from (f"{prefix}{name} is no key of a manifest" for name in value if name not in hints)


def _or_itself(parts: Sequence[Iterator[str]], whole: str) -> list[str]:
    """The problems of the parts, or of the whole where every part is right."""
    return [problem for part in parts for problem in part] or [whole]


def _bare(kind: Any) -> Any:
    """A type without the notes on it."""
    while get_origin(kind) in (Annotated, NotRequired):
        kind = get_args(kind)[0]
    return kind


def _invalid(value: Any, kind: Any) -> str:
    """Why a value is not of a type, or nothing."""
    try:
        msgspec.convert(value, get_args(kind)[0] if get_origin(kind) is NotRequired else kind)
    except UnicodeEncodeError:
        return f"{value!r:.60} is no text that can be written"
    except msgspec.ValidationError as error:
        choices = [choice for option in _options(kind) if get_origin(option) is Literal for choice in get_args(option)]
        if choices:
            return f"{value!r} (have: {', '.join(map(str, choices))})"
        text = str(error).partition(" - at ")[0].replace("`", "")
        known = next((what for pattern, what in PATTERNS.items() if text.endswith(f"matching regex {pattern!r}")), None)
        return f"{value!r} is no {known}" if known else f"{text[:1].lower()}{text[1:]}"
    return ""


def _options(kind: Any) -> list[Any]:
    """The types of a union, or the type itself, without the notes on them."""
    plain = _bare(kind)
    return [_bare(option) for option in get_args(plain)] if get_origin(plain) in (Union, UnionType) else [plain]


def _contradictions(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The keys that do not fit each other, of a manifest with the right types."""
    missing = [name for name in MODEL_CLASSES[manifest["model_class"]].keys if name not in manifest]
    yield from (f"{name} is missing" for name in missing)
    if "num_labels" in manifest and len(manifest.get("labels", ())) != manifest["num_labels"]:
        yield f"labels: {len(manifest.get('labels', ()))} names, and num_labels is {manifest['num_labels']}"
    graphs = manifest["graphs"]
    names = [graph["name"] for graph in graphs]
    if len(set(names)) < len(names):
        yield f"graphs: {', '.join(sorted({name for name in names if names.count(name) > 1}))} is there twice"
    default = manifest["default_prompt_name"]
    if default is not None and default not in manifest["prompts"]:
        yield f"default_prompt_name: {default!r} is none of the prompts ({', '.join(manifest['prompts']) or 'none'})"
    yield from _class_problems(manifest)
    for index, graph in enumerate(graphs):
        where = f"graphs[{index}]"
        if set(graph["formats"]) != set(manifest["engines"]):
            yield f"{where}.formats: {', '.join(graph['formats'])}, and engines has {', '.join(manifest['engines'])}"
        if graph["tokenizer"] and "input_ids" not in graph["tokenizer"]["tensors"]:
            yield f"{where}.tokenizer.tensors has no input_ids"
        yield from (f"{where}.tokenizer.{problem}" for problem in _chat_problems(graph["tokenizer"]))
        entries, what = TAKEN[graph["modality"]]
        if sum(graph.get(entry) is not None for entry in entries) != 1:
            yield f"{where}.{' or '.join(entries)} is missing or null, and the graph takes {what}"
        else:
            yield from (f"{where}.inputs{problem}" for problem in _input_problems(graph))
        if "profile" in graph:
            yield from (f"{where}.profile{problem}" for problem in _profile_problems(graph))
        elif manifest.get("target") == "tensorrt":
            yield f"{where}.profile is missing, and target is tensorrt"
        yield from (f"{where}.sound.{problem}" for problem in _sound_problems(graph.get("sound")))
        yield from (f"{where}.image.{problem}" for problem in _image_problems(graph["image"]))
        for tensors in ("inputs", "outputs"):
            given = [tensor["name"] for tensor in graph[tensors]]
            if len(set(given)) < len(given):
                yield f"{where}.{tensors}: a name is there twice"


def _input_problems(graph: Mapping[str, Any]) -> Iterator[str]:
    """The inputs of a graph whose names say something that it is not given."""
    names = [tensor["name"] for tensor in graph["inputs"]]
    given = given_inputs(graph, names)
    for index, name in enumerate(names):
        if name not in given:
            what = TAKEN[graph["modality"]][1]
            yield f"[{index}].name: {name!r}, and the graph takes {what} (have: {', '.join(given)})"


def _profile_problems(graph: Mapping[str, Any]) -> Iterator[str]:
    """The shapes of a graph's plan that its inputs do not have, or that are in no order."""
    axes = {tensor["name"]: len(tensor["shape"]) for tensor in graph["inputs"]}
    if graph["profile"].keys() != axes.keys():
        yield f": {', '.join(graph['profile']) or 'nothing'} (have: {', '.join(axes)})"
        return
    for name, count in axes.items():
        shapes = [graph["profile"][name][kind] for kind in ("min", "opt", "max")]
        if {len(shape) for shape in shapes} != {count}:
            yield f".{name}: {', '.join(map(str, shapes))}, and the input has {count} axes"
        elif any(not low <= usual <= high for low, usual, high in zip(*shapes, strict=True)):
            yield f".{name}: {', '.join(map(str, shapes))}, of which each is due to be as large as the one before"


def _class_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit its class of models: how vectors are compared, their size, outputs that go together."""
    kind = MODEL_CLASSES[manifest["model_class"]]
    similarity = manifest.get("similarity_fn_name")
    if kind.similarities and similarity is not None and similarity not in kind.similarities:
        yield f"similarity_fn_name: {similarity!r} (have: {', '.join(kind.similarities)})"
    due = set(kind.outputs if kind.whole else SPARSE_OUTPUTS)
    for index, graph in enumerate(manifest["graphs"]):
        given = {output["name"] for output in graph["outputs"]} & due
        if (given or kind.whole) and given != due:
            yield f"graphs[{index}].outputs has no {', '.join(sorted(due - given))}"
    if "embedding_dimension" in kind.keys and "embedding_dimension" in manifest:
        yield from _size_problems(manifest)


def _size_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """A size that the vectors of the default route do not have: memory is made, and columns are placed, by it."""
    size, outputs = manifest["embedding_dimension"], manifest["graphs"][0]["outputs"]
    output = next((one for one in outputs if one["name"] == "sentence_embedding"), outputs[0])
    axis = None if output["name"] in SPARSE_OUTPUTS or not output["shape"] else output["shape"][-1]
    if isinstance(axis, int) and axis != size:
        yield f"embedding_dimension: {size!r}, and {output['name']} of graphs[0] has {axis} numbers"
    elif isinstance(size, str) and size != axis:
        yield f"embedding_dimension: {size!r} is no axis of {output['name']} of graphs[0]"


def _chat_problems(tokenizer: Mapping[str, Any] | None) -> Iterator[str]:
    """What a tokenizer of the kind `chat` lacks."""
    if tokenizer is None or tokenizer["kind"] != "chat":
        return
    yield from (f"{name} is missing, and kind is chat" for name in CHAT_KEYS if name not in tokenizer)
    for index, template in enumerate(tokenizer.get("templates", ())):
        named = {piece["slot"] for piece in template["pieces"] if not isinstance(piece, str)}
        if strange := sorted(named - set(template["slots"])):
            yield f"templates[{index}].pieces: {', '.join(strange)} is none of its slots"


def _sound_problems(sound: SoundSection | None) -> Iterator[str]:
    """What is wrong with the parts of a `sound` entry of the right types."""
    if sound is None:
        return
    if sum(sound.get(size) is not None for size in ("samples", "frames", "rows")) != 1:
        yield "samples, frames and rows: one of them is due"
    if len(sound["tensors"]) != 1 + ("rows" in sound):
        yield f"tensors is {', '.join(sound['tensors'])} (have: one, and with rows their mask)"
    yield from _row_problems(sound)
    if sound["fft_length"] < sound["frame_length"]:
        yield f"fft_length is {sound['fft_length']}, and a frame has {sound['frame_length']} samples"
    frames = sound["frames"] or (sound["samples"] or 0) // sound["hop_length"] + 2
    if max(frames, sound["mel"]["filters"]) * sound["fft_length"] > MOST_SPECTRUM:
        yield f"{frames:,} frames and {sound['mel']['filters']} filters of {sound['fft_length']:,} samples are too many"
    if (sound["samples"] or sound["frame_length"]) < sound["frame_length"]:
        yield f"samples is {sound['samples']}, and a frame has {sound['frame_length']}"
    if sound["frames"] == 1 and sound["drop_last_frame"]:
        yield "frames is 1, and the last one is left out"
    if sorted(sound["layout"])[-2:] != ["filters", "frames"] or len(set(sound["layout"])) < len(sound["layout"]):
        yield f"layout is {', '.join(sound['layout'])} (have: frames and filters, each once, and channel)"
    if not sound["mel"]["lowest"] + 1 <= sound["mel"]["highest"] <= sound["sampling_rate"]:  # else filters of no width
        yield f"mel: from {sound['mel']['lowest']} to {sound['mel']['highest']} Hz"


def _row_problems(sound: SoundSection) -> Iterator[str]:
    """What is wrong with the rows of a `sound` entry, where it has any."""
    if "rows" not in sound:
        return
    rows, length, hop = sound["rows"], sound["frame_length"], sound["hop_length"]
    if sound["layout"] != ["frames", "filters"]:
        yield f"layout is {', '.join(sound['layout'])} (have: frames, filters, of which rows are made)"
    if rows["shortest"] < (least := length + hop * max(rows["frames"] - 1, rows["normalized"])):
        yield f"rows.shortest is {rows['shortest']}, and a row that counts has {least} samples"


def _image_problems(image: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with the parts of an `image` entry of the right types."""
    if image is None:
        return
    for step, settings in IMAGE_STEPS.items():
        left = [name for name in settings if image[step] and image[name] is None]
        left = [name for name in left if not (name == "size" and {"patches", "grid"} & image.keys())]
        yield from (f"{name} is null, and {step} is true" for name in left)
    if (patches := image.get("patches")) and patches["size"] ** 2 * patches["most"] > LARGEST_EDGE**2:
        yield f"patches have more than {LARGEST_EDGE**2:,} pixels together"
    for name, ways in IMAGE_SIZES.items():
        if image.get(name) is not None and not any(way <= image[name].keys() for way in ways):
            due = "; ".join(", ".join(sorted(way)) for way in ways)
            yield f"{name} has {', '.join(image[name]) or 'nothing'} (have: {due})"
    for name in ("image_mean", "image_std"):
        values = image.get(name)
        if isinstance(values, list) and len(values) not in (1, CHANNELS):
            yield f"{name} has {len(values)} numbers (have: {CHANNELS})"


def not_null(section: T | None) -> T:
    """A section that is null for graphs of another modality alone, as `problems_of` has seen to."""
    assert section is not None
    return section


def shortest_sound(graph: GraphSection) -> int | None:
    """The fewest samples of a sound, for a graph of sounds of any length; None for others."""
    section = graph.get("wave") or (graph["sound"].get("rows") if "sound" in graph else None)
    return None if section is None else section["shortest"]


def rate_of(graph: GraphSection) -> int:
    """The samples per second of a graph of sounds."""
    return (graph.get("wave") or graph["sound"])["sampling_rate"]


def limit_of(manifest: Mapping[str, Any]) -> int | None:
    """The most tokens of a text that a folder is proven for: the model's limit, or the end of the proof; None where
    neither is.
    """
    limits = (manifest.get("max_seq_length"), manifest.get("proven_length"))
    return min((limit for limit in limits if limit is not None), default=None)
