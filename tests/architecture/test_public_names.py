"""The names `recsys` offers at the top are a promise; a change here is a change of the changelog."""

import recsys


def test_names_are_pinned() -> None:
    assert sorted(recsys.__all__) == [
        "BundleRefused",
        "ConfigError",
        "GateFailed",
        "InputRefused",
        "LaotieError",
        "__version__",
    ]
    assert all(hasattr(recsys, name) for name in recsys.__all__)
