"""Every setting, in one documented class, read from `LONGSHORE_*` variables and refused at start when wrong."""

from shared.settings.definitions import Settings, SettingsError, load_settings, settings, unknown_settings

__all__ = ["Settings", "SettingsError", "load_settings", "settings", "unknown_settings"]
