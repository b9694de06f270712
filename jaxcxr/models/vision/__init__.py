"""Image classifiers: ResNet, DenseNet, ViT."""
