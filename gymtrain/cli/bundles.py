"""The commands that look at bundles: what one is, whether it is what it was, and what differs between two."""

from __future__ import annotations

from gymtrain.cli.arguments import AsJson, BundlePath, print_json


def inspect(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Show what a bundle is, without loading it."""
    from gymtrain.bundle import inspect as read_bundle

    content = read_bundle(bundle)
    if as_json:
        print_json(content)
    else:
        from gymtrain.cli.reports import print_bundle

        print_bundle(bundle, content)
