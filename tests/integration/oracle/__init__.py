"""The judge of the merge and of the images: what the kernel shows.

``layer`` makes layers with the real overlay marks, ``cases`` holds one chain
for each rule of the merge, ``mounts`` lets the kernel mount chains and images,
``dump`` reads a mounted tree entry by entry, ``compare`` says how two trees
differ, ``judge`` asks e2fsck and its kin about an image.
"""
