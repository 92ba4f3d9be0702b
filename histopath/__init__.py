"""Histopathologic Cancer Detector: metastatic cancer in 96×96 H&E patches, from image files to a Kaggle submission."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notices; its errors still show

__version__ = "0.1.0"
