"""P-Net, the first network of the MTCNN face detector."""

from torch import Tensor, nn


class PNet(nn.Module):
    """Logits [samples, 2] of no face and face for images [samples, 3, 12, 12]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)  # face or not
        self.conv4_2 = nn.Conv2d(32, 4, 1)  # corrections of the box, of which these data say nothing

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool1(self.prelu1(self.conv1(images)))
        hidden = self.prelu3(self.conv3(self.prelu2(self.conv2(hidden))))
        logits: Tensor = self.conv4_1(hidden)
        return logits.flatten(1)
