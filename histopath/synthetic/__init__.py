"""Draws the embedded samples: patches in the Kaggle layout, gastric slices, organs and a slide.

Nothing here is real tissue, and nothing here imports another folder of the package.
"""
