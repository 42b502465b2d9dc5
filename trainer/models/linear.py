"""The model without a hidden layer: softmax regression.

Its loss is the task's, as for all networks here. It is an nn.Sequential of its layers. Layer 1.
"""

from torch import nn


class Softmax(nn.Sequential):
    """Multinomial logistic regression that starts from zero: 7,850 parameters on 1x28x28.

    Its loss is convex, and nothing in it is random. If data and algorithm are not random either, a
    run can be compared exactly with published numbers.
    """

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        linear = nn.Linear(channels * height * width, classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        super().__init__(nn.Flatten(), linear)
