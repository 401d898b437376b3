"""Measurements with their command, machine and spread."""
