"""Converted folders inside of other libraries: one file each, over `sbertconv.load`, importing that library."""
