"""O-Net, the last network of the MTCNN face detector."""

from torch import Tensor, nn


class ONet(nn.Module):
    """Logits [samples, 2] of no face and face for images [samples, 3, 48, 48]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)  # face or not
        self.dense6_2 = nn.Linear(256, 4)  # corrections of the box, of which these data say nothing
        self.dense6_3 = nn.Linear(256, 10)  # five points of the face, of which they say nothing either

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool1(self.prelu1(self.conv1(images)))
        hidden = self.pool2(self.prelu2(self.conv2(hidden)))
        hidden = self.pool3(self.prelu3(self.conv3(hidden)))
        hidden = self.prelu4(self.conv4(hidden))
        columns = hidden.transpose(1, 3).flatten(1)  # the weights were trained with the axes in this order
        logits: Tensor = self.dense6_1(self.prelu5(self.dense5(columns)))
        return logits
