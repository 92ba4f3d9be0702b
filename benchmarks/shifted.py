"""Divides patches by their colors, so that a choice can be tried on stains that were not trained on, without other data.

    python benchmarks/shifted.py DATA OUT

Class folders in, class folders out: OUT/fit to train on, with its own val, and OUT/shifted, two of twelve clusters of
color, to score with `evaluate`. Colors say which laboratory stained a slide, and a little of what is on it.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from histopath.data.patches import open_patches

CLUSTERS, SHIFTED = 12, 2


def stain_colors(images: np.ndarray) -> np.ndarray:
    """Shares of red and green in the optical density of dark (nuclei) and of middling pixels: uint8 (N, H, W, 3) → (N, 4)."""
    density = -np.log((images.reshape(len(images), -1, 3).astype("float32") + 1) / 256)
    total = density.sum(axis=2, keepdims=True)
    shares, order = density / np.maximum(total, 1e-3), np.argsort(total, axis=1)
    count = order.shape[1]
    ranges = (slice(int(0.85 * count), int(0.98 * count)), slice(int(0.3 * count), int(0.6 * count)))
    return np.concatenate([np.take_along_axis(shares, order[:, part], axis=1).mean(axis=1)[:, :2] for part in ranges], axis=1)


def main() -> None:
    """Clusters the colors and copies every file to one of the two sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="class folders")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    patches = open_patches(arguments.data)
    starts = range(0, len(patches), 1000)
    colors = np.concatenate([stain_colors(patches.images[start : start + 1000]) for start in starts])
    cluster = KMeans(CLUSTERS, n_init=10, random_state=0).fit_predict(StandardScaler().fit_transform(colors))
    labels = patches.table["label"].to_numpy()
    # The clusters that are nearest to half tumor and not tiny: fat and empty glass cluster too, and have none.
    large = [one for one in range(CLUSTERS) if (cluster == one).mean() > 0.5 / CLUSTERS]
    chosen = sorted(large, key=lambda one: abs(labels[cluster == one].mean() - 0.5))[:SHIFTED]
    for side, rows in (("shifted", np.isin(cluster, chosen)), ("fit", ~np.isin(cluster, chosen))):
        for file in patches.table["file"][rows]:
            target = arguments.out / side / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(arguments.data / file, target)
        print(f"{side}: {rows.sum():,} patches, {labels[rows].mean():.2f} of them tumor, clusters {sorted(set(cluster[rows]))}")


if __name__ == "__main__":
    main()
