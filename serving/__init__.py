"""Online: candidate lookups against a published bundle. Never imports `training`."""
