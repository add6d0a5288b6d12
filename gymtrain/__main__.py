"""`python -m gymtrain` is the command line."""

from __future__ import annotations

from gymtrain.cli import main

if __name__ == "__main__":
    main()
