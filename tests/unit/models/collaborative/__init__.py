"""Collaborative models."""
