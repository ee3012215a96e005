"""The tie between a user and a host as a mergeable state, and its relatives for hosts, users and rooms."""
