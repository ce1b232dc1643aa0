"""The real world for tests, benches and the demo: Debian packages, Docker, QEMU.

Everything in here makes or runs *real* things: package files from the
machine's own Debian archive, a dockerd of our own, a Linux kernel under QEMU.
Nothing here knows how layermelt works inside.
"""
