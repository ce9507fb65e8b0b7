"""Networks over characters: `vdcnn` and `odevdcnn`."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from nodebench.data.dataset import Data
from nodebench.models.block import feature_stage
from nodebench.models.layers.factory import LayerFactory
from nodebench.spec import TrialSpec
from nodebench.spec.model import TextNetwork

EMBEDDING = 16
TOP = 4
HIDDEN_UNITS = 256


def text_network(spec: TrialSpec, data: Data) -> nn.Module:
    """Embedding, convolution, feature stage, the largest four values over time, three layers.

    Shapes: codes [batch, length] -> logits [batch, classes]. Source: Conneau et al. 2017 as in
    `saparina/neural-ode` (S1 of `docs/studies.md`), which has no pooling between blocks.
    """
    settings = spec.model
    assert isinstance(settings, TextNetwork)
    assert data.symbols is not None
    width, place = settings.width, LayerFactory(settings.norm.stem, "relu", space=1)
    stem = nn.Sequential(
        nn.Embedding(data.symbols, EMBEDDING),
        TimeLast(),
        place.conv(EMBEDDING, width, 3, padding=1),
    )
    head = nn.Sequential(
        place.norm(width),
        place.act(),
        TopOverTime(TOP),
        nn.Flatten(),
        nn.Linear(TOP * width, HIDDEN_UNITS),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(HIDDEN_UNITS, data.classes),
    )
    feature = feature_stage(spec, width, space=1, activation="relu")
    return nn.Sequential(OrderedDict[str, nn.Module](stem=stem, feature=feature, head=head))


class TimeLast(nn.Module):
    """[batch, length, channels] -> [batch, channels, length], as convolutions expect it."""

    def forward(self, x: Tensor) -> Tensor:
        """The transposed tensor."""
        return x.transpose(1, 2)


class TopOverTime(nn.Module):
    """The `count` largest values of every channel in descending order (k-max pooling).

    Shapes: [batch, channels, length] -> [batch, channels, count].
    """

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """The largest values."""
        return x.topk(self.count, dim=2).values
