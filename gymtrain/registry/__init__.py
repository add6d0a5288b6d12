"""Names to classes: what a spec may say under `"type"`, and which arguments it may give beside it."""

from gymtrain.registry.arguments import arguments_model, foreign_arguments
from gymtrain.registry.libraries import LIBRARIES, ForeignClass, find_foreign, foreign_names
from gymtrain.registry.names import (
    BUILTIN,
    FUNCTION_SCHEDULE,
    KINDS,
    UnknownTypeError,
    find,
    known_names,
    locate,
    register,
    type_name,
)

__all__ = [
    "BUILTIN",
    "FUNCTION_SCHEDULE",
    "KINDS",
    "LIBRARIES",
    "ForeignClass",
    "UnknownTypeError",
    "arguments_model",
    "find",
    "find_foreign",
    "foreign_arguments",
    "foreign_names",
    "known_names",
    "locate",
    "register",
    "type_name",
]
