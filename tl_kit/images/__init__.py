"""From an image file to a tensor: decoding, colour, transforms, crops and augmentation."""
