import copy

import pytest

TABLES = {
    "seed": 3,
    "model": {"name": "solver/diffnet", "steps": 2, "features": 4},
    "data": {"name": "photographs", "size": 64, "count": 3},
    "batches": {"size": 4, "crop": 24, "turns": True},
    "validation": {
        "every": 10,
        "count": 2,
        "data": {"name": "photographs", "size": 32, "names": ["coffee", "moon"]},
    },
    "operator": {"name": "gaussian-blur"},
    "noise": {"name": "gaussian", "sigma": 0.05},
    "objective": {"name": "reconstruction"},
    "optimiser": {"learning_rate": 5e-3, "average": 0.9},
    "budget": {"steps": 30},
}


@pytest.fixture
def tables():
    """A recipe that trains in a second or two."""
    return copy.deepcopy(TABLES)
