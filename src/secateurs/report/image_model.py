"""The page of one fitted model of images: its facts, its layers, its training."""

from secateurs import __version__
from secateurs.image_classifier import ImageTicketClassifier
from secateurs.measures.weight_maps import first_layer_maps, logit_maps
from secateurs.report.image_maps import logit_map_grid
from secateurs.report.model import density_figure, printable, regime_line, training_blocks
from secateurs.report.page import Block, Facts, Figure, Section, Table, Text, render

__all__ = ["image_model_page"]

_FULLY_CONNECTED = ("mlp_vis", "lenet_300_100")
_MAPS = 20  # classes, or units, that are drawn at most


def image_model_page(
    model: ImageTicketClassifier,
    *,
    comparison: Table | None = None,
    command: str = "",
    size: int | None = None,
) -> str:
    """Return the page of a fitted model of images; the same model gives the same bytes.

    Args:
        model: fitted or loaded.
        comparison: what it is worth beside simpler models; see `secateurs.command.comparison`.
        command: that predicts with it; "" leaves its folder's name open.
        size: bytes of its folder; None tells those of its tensors.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> X = (digits.images * 255 / 16).astype("uint8")
    >>> clf = ImageTicketClassifier(
    ...     network="lenet_300_100", view="crop", search_epochs=1, finetune_epochs=3, random_state=0
    ... )
    >>> page = image_model_page(clf.fit(X, digits.target))
    >>> "Weight from pixels to classes" in page, "Density by layer" in page
    (True, True)
    """
    summary = model.summary_
    sections = [Section(title="Model", blocks=_facts(model, command, size))]
    if comparison is not None:
        intro = "The same settings, fitted on the other images and measured on images held out."
        sections.append(Section(title="Comparison", intro=intro, blocks=[comparison]))
    blocks: list[Block] = [density_figure(model)] if model.compression_ > 1 else []
    if model.network_.kind in _FULLY_CONNECTED:
        blocks += _maps(model)
    if blocks:
        sections.append(Section(title="Layers", blocks=blocks))
    if curves := training_blocks(model):
        sections.append(Section(title="Training", blocks=curves))
    kind = "ticket" if model.compression_ > 1 else "dense network"
    return render(
        printable(summary.get("data") or type(model).__name__),
        sections,
        subtitle=f"{kind}, {summary['network']}, r = {model.compression_:g}",
        footer=f"secateurs {__version__}",
    )


def _facts(model: ImageTicketClassifier, command: str, size: int | None) -> list[Block]:
    summary = model.summary_
    channels, height, width = model.image_shape_
    resized = summary.get("resized_to")
    items = {
        "task": f"classification, {len(model.classes_):,} classes",
        "images": f"{summary['rows']:,}",
        "size": f"{height} x {width}, {channels} channel{'s' * (channels != 1)}"
        + (", resized" if resized else ""),
        "network": f"{summary['network']}",
        "compression": f"{summary['compression']:g}; of all parameters "
        f"{summary['model_compression']:.3g}",
        "parameters kept": f"{summary['parameters_kept']:,} of {summary['parameters']:,}",
        "bytes": f"{summary['bytes'] if size is None else size:,}",
        "epochs": f"{summary['search_epochs']} search, {summary['finetune_epochs']} finetune",
        "view": f"{summary['view'] or 'none'}",
        "seconds": f"{summary['seconds']:.1f}",
    }
    blocks: list[Block] = [Facts(title="Facts", items=items)]
    if summary["weight_movement"] is not None:
        line = regime_line(summary)
        blocks.append(Text(title="Regime", paragraphs=f"{line[0].upper()}{line[1:]}."))
    predict = command or "secateurs predict MODEL NEW_IMAGES --out predictions.csv"
    return [*blocks, Text(title="To predict", paragraphs=predict)]


def _maps(model: ImageTicketClassifier) -> list[Block]:
    """Return the weight on paths from each pixel to each class, and the strongest first units."""
    network, shape = model.members_[0], model.image_shape_
    classes = [printable(label) for label in model.classes_.tolist()][:_MAPS]
    by_class = logit_maps(network, shape=shape)[: len(classes)]
    units, numbers = first_layer_maps(network, shape=shape, top=_MAPS // 2)
    more = len(model.classes_) - len(classes)
    return [
        Figure(
            title="Weight from pixels to classes",
            svg=logit_map_grid(by_class.numpy(), classes),
            alt=f"One image for each of {len(classes)} classes: the weight on all paths from each "
            "pixel to it.",
            caption="Products of |w| along all paths from a pixel to a class, summed: without "
            "signs, and not an importance."
            + (f" The first {len(classes)} classes; {more:,} more." if more else ""),
        ),
        Figure(
            title="First layer",
            svg=logit_map_grid(
                units.numpy(), [f"unit {i}" for i in numbers.tolist()], quantity="|w|"
            ),
            alt=f"The weights of the {len(units)} units of the first layer that keep the most.",
            caption="|w| of the units with the most kept weight; pruned weights are empty.",
        ),
    ]
