"""What verl's entry point loads: each module registers on import what it holds, what needs least first."""

from clipo_train.adapters.verl.selfcheck import warn_if_untested

warn_if_untested()

from clipo_train.adapters.verl import advantages, losses, engine, trainer  # noqa: E402 # isort: skip

__all__ = ["advantages", "engine", "losses", "trainer"]
