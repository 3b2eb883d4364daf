"""The last of all: the tests have left nothing in the tree."""

import conftest


def test_tree_is_clean(request):
    assert conftest.untracked() - request.config.untracked == set()
