"""The last two steps as graphs without weights, for programs in other languages than Python: names and label map.

Both are the same for every model. They equal ``deop.labelling.classification`` and
``deop.labelling.assembly.semantic``, which Python uses.
"""

from typing import TYPE_CHECKING

from deop.export.tracing import OPSET, need_onnx

if TYPE_CHECKING:
    import onnx

CLASSIFY, LABEL = "classify", "label"
"""Names of the graphs."""

_HEAD = f'<ir_version: 10, opset_import: ["": {OPSET}], producer_name: "deop">\n'


_SOFTMAX = "probabilities = Softmax <axis = -1> (best)"
_SIGMOID = """bias = Constant <value = float {BIAS}> ()
            biased = Add (best, bias)
            opposite = Neg (biased)
            cost = Softplus (opposite)
            exponent = Neg (cost)
            probabilities = Exp (exponent)"""
"""As exp(-softplus(-x)), since ONNX Runtime's Sigmoid loses scores below 1e-6."""


def classify_graph(bias: float | None = None) -> "onnx.ModelProto":
    """Regions and names -> probabilities (docs/method.md §6).

    Args:
        bias: as in ``Settings.logit_bias``.

    Inputs:
        regions: (N, C) float32, L2-normalised.
        rows: (M, C) float32 of unit length, M >= 1: embeddings of all synonyms, background names and rivals. The "no
            object" vector, if the model has one, is one more row.
        owner: (M,) int64 in [0, K]: the name that a row belongs to; K: none of them.
        offset: (M,) float32, added to the logits of a row; 0 where there is none.
        temperature: float32, a number.
        names: int64, the number K of names.

    Outputs:
        probabilities: (N, K + 1) float32: the K names and, last, "none of these".
    """
    return _parse(
        _HEAD
        + """
        classify (float[N, C] regions, float[M, C] rows, int64[M] owner, float[M] offset, float temperature,
                  int64 names) => (float[N, K] probabilities)
        {
            scaled = Mul (regions, temperature)
            columns = Transpose <perm = [1, 0]> (rows)
            similarity = MatMul (scaled, columns)
            logits = Add (similarity, offset)
            one = Constant <value = int64 {1}> ()
            count = Add (names, one)
            regions_shape = Shape <start = 0, end = 1> (regions)
            axis = Constant <value = int64[1] {0}> ()
            counts = Unsqueeze (count, axis)
            result_shape = Concat <axis = 0> (regions_shape, counts)
            none = ConstantOfShape <value = float[1] {-inf}> (result_shape)
            logits_shape = Shape (logits)
            owners = Expand (owner, logits_shape)
            best = ScatterElements <axis = 1, reduction = "max"> (none, owners, logits)
        """
        + (_SOFTMAX if bias is None else _SIGMOID.replace("BIAS", str(float(bias))))
        + "}"
    )


def label_graph() -> "onnx.ModelProto":
    """Probabilities and masks -> the label map of a window of the photo (docs/method.md §6).

    Memory grows with the window, not with the photo. Names that cannot win any pixel of the window are left out.

    Inputs:
        probabilities: (N, K + 1) float32, N >= 1, from ``classify_graph``.
        masks: (N, h, w) float32, mask logits over the padded pixels.
        photo: (2,) int64, height and width of the photo.
        resized: (2,) int64, of the photo as resized for the networks.
        padded: (2,) int64, of the pixels.
        window: (4,) int64, top, left, bottom and right of the part of the photo to label; bottom and right exclusive.
        limits: (K,) float32, minimum score of each name.
        claim: float32, pixels whose mask probabilities add up to no more are -1.
        background: bool, whether "none of these" competes, as it does if there are background names.
        everything_else: int64, index of the name that pixels get which would be -1 otherwise, or -1.

    Outputs:
        labels: (bottom - top, right - left) int32, index of the name, or -1.
        scores: the same shape, float32 in [0, 1].
    """
    return _parse(
        _HEAD
        + """
        label (float[N, K1] probabilities, float[N, h, w] masks, int64[2] photo, int64[2] resized, int64[2] padded,
               int64[4] window, float[K] limits, float claim, bool background, int64 everything_else)
            => (int32[H, W] labels, float[H, W] scores)
        {
            zero = Constant <value = float {0}> ()
            half = Constant <value = float {0.5}> ()
            unit = Constant <value = float {1}> ()
            one = Constant <value = int64 {1}> ()
            first_axis = Constant <value = int64[1] {0}> ()
            last_axis = Constant <value = int64[1] {1}> ()
            map_axes = Constant <value = int64[2] {1, 2}> ()
            slack = Constant <value = float {-1e-5}> ()
            mask_shape = Shape (masks)
        """
        + _side("row", 0)
        + _side("column", 1)
        + """
            starts = Concat <axis = 0> (row_start, column_start)
            ends = Concat <axis = 0> (row_end, column_end)
            cells = Slice (masks, starts, ends, map_axes)
            across = Transpose <perm = [1, 0]> (column_inner)
            wide = MatMul (cells, across)
            logits = MatMul (row_inner, wide)
            at_input = Sigmoid (logits)

            cell_shares = Sigmoid (cells)
            low = ReduceMin <keepdims = 0> (cell_shares, map_axes)
            high = ReduceMax <keepdims = 0> (cell_shares, map_axes)
            classes = Transpose <perm = [1, 0]> (probabilities)
            class_shape = Shape <start = 0, end = 1> (classes)
            not_none = Sub (class_shape, one)
            competing = Where (background, class_shape, not_none)
            all_votes = Slice (classes, first_axis, competing, first_axis)
            least = MatMul (all_votes, low)
            leader = ArgMax <axis = 0, keepdims = 1> (least)
            leading = Gather <axis = 0> (all_votes, leader)
            leading_least = Gather <axis = 0> (least, leader)
            lead = Sub (all_votes, leading)
            ahead = Max (lead, zero)
            behind = Min (lead, zero)
            most_ahead = MatMul (ahead, high)
            most_behind = MatMul (behind, low)
            bound = Add (most_ahead, most_behind)
            size_of_sum = Add (leading_least, unit)
            tolerance = Mul (size_of_sum, slack)
            possible = GreaterOrEqual (bound, tolerance)
            kept = Compress <axis = 0> (all_votes, possible)
            numbers_shape = Squeeze (competing, first_axis)
            zero_number = Sub (one, one)
            numbers = Range (zero_number, numbers_shape, one)
            kept_numbers = Compress <axis = 0> (numbers, possible)

            middle_shape = Shape <start = 1, end = 3> (at_input)
            mask_count = Shape <start = 0, end = 1> (at_input)
            any_size = Constant <value = int64[1] {-1}> ()
            flat_shape = Concat <axis = 0> (mask_count, any_size)
            flat = Reshape (at_input, flat_shape)
            flat_votes = MatMul (kept, flat)
            votes_shape = Concat <axis = 0> (any_size, middle_shape)
            votes = Reshape (flat_votes, votes_shape)
            across_photo = Transpose <perm = [1, 0]> (column_outer)
            wide_votes = MatMul (votes, across_photo)
            photo_votes = MatMul (row_outer, wide_votes)
            best = ReduceMax <keepdims = 0> (photo_votes, first_axis)
            index = ArgMax <axis = 0, keepdims = 0> (photo_votes)
            winner = Gather <axis = 0> (kept_numbers, index)

            middle_coverage = ReduceSum <keepdims = 0> (at_input, first_axis)
            wide_coverage = MatMul (middle_coverage, across_photo)
            coverage = MatMul (row_outer, wide_coverage)
            total = Max (coverage, unit)
            share = Div (best, total)
            scores = Clip (share, zero, unit)
            no_limit = Constant <value = float[1] {0}> ()
            all_limits = Concat <axis = 0> (limits, no_limit)
            limit = Gather <axis = 0> (all_limits, winner)
            too_low = Less (share, limit)
            unclaimed = LessOrEqual (coverage, claim)
            unsure = Or (too_low, unclaimed)
            names_shape = Shape (limits)
            names = Squeeze (names_shape, first_axis)
            is_none = Equal (winner, names)
            minus_one = Neg (one)
            named = Where (is_none, minus_one, winner)
            chosen = Where (unsure, everything_else, named)
            labels = Cast <to = 6> (chosen)
        }"""
    )


def _side(name: str, index: int) -> str:
    """Statements for one side: the cells of the masks that the window needs, and the weights of both resizes.

    ``{name}_start`` and ``{name}_end`` are the cells, ``{name}_inner`` (m, cells) the weights from there to the size of
    the network input, and ``{name}_outer`` (p, m) those from there to the photo, as in ``deop.labelling.windows``.
    """

    def weights(kind: str, targets: str, source: str, target: str) -> str:
        """Weights of the source cells of some target cells: ``{kind}`` (targets, source cells), and their range."""
        return f"""
            {kind}_source = Cast <to = 11> ({source})
            {kind}_target = Cast <to = 11> ({target})
            {kind}_ratio = Div ({kind}_source, {kind}_target)
            {kind}_scale = Cast <to = 1> ({kind}_ratio)
            {kind}_targets = Cast <to = 1> ({targets})
            {kind}_centres = Add ({kind}_targets, half)
            {kind}_scaled = Mul ({kind}_centres, {kind}_scale)
            {kind}_shifted = Sub ({kind}_scaled, half)
            {kind}_last = Sub ({source}, one)
            {kind}_last_float = Cast <to = 1> ({kind}_last)
            {kind}_place = Clip ({kind}_shifted, zero, {kind}_last_float)
            {kind}_floor = Floor ({kind}_place)
            {kind}_whole = Cast <to = 7> ({kind}_floor)
            {kind}_from = ReduceMin <keepdims = 0> ({kind}_whole)
            {kind}_highest = ReduceMax <keepdims = 0> ({kind}_whole)
            {kind}_next = Add ({kind}_highest, one)
            {kind}_until = Min ({kind}_next, {kind}_last)
            {kind}_to = Add ({kind}_until, one)
            {kind}_cells = Range ({kind}_from, {kind}_to, one)
            {kind}_cell_places = Cast <to = 1> ({kind}_cells)
            {kind}_places = Unsqueeze ({kind}_place, last_axis)
            {kind}_distance = Sub ({kind}_places, {kind}_cell_places)
            {kind}_far = Abs ({kind}_distance)
            {kind}_near = Sub (unit, {kind}_far)
            {kind} = Max ({kind}_near, zero)
        """

    def item(target: str, array: str, place: int) -> str:
        return f"""
            {target}_index = Constant <value = int64 {{{place}}}> ()
            {target} = Gather <axis = 0> ({array}, {target}_index)
        """

    sizes = "".join(item(f"{name}_{array}", array, index) for array in ("photo", "resized", "padded"))
    sizes += item(f"{name}_count", "mask_shape", index + 1)
    sizes += item(f"{name}_first", "window", index) + item(f"{name}_stop", "window", index + 2)
    return f"""{sizes}
            {name}_pixels = Range ({name}_first, {name}_stop, one)
            {weights(f"{name}_outer", f"{name}_pixels", f"{name}_resized", f"{name}_photo")}
            {weights(f"{name}_inner", f"{name}_outer_cells", f"{name}_count", f"{name}_padded")}
            {name}_start = Unsqueeze ({name}_inner_from, first_axis)
            {name}_end = Unsqueeze ({name}_inner_to, first_axis)
        """


def _parse(text: str) -> "onnx.ModelProto":
    """A graph in ONNX's text format, checked.

    Raises:
        MissingDependencyError: ``onnx`` is not installed.
    """
    need_onnx()
    import onnx

    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model
