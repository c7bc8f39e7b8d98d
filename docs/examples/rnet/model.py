"""R-Net, the second network of the MTCNN face detector."""

from torch import Tensor, nn


class RNet(nn.Module):
    """Logits [samples, 2] of no face and face for images [samples, 3, 24, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)  # face or not
        self.dense5_2 = nn.Linear(128, 4)  # corrections of the box, of which these data say nothing

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool1(self.prelu1(self.conv1(images)))
        hidden = self.pool2(self.prelu2(self.conv2(hidden)))
        hidden = self.prelu3(self.conv3(hidden))
        columns = hidden.transpose(1, 3).flatten(1)  # the weights were trained with the axes in this order
        logits: Tensor = self.dense5_1(self.prelu4(self.dense4(columns)))
        return logits
