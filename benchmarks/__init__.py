"""Measurements; each module is a program, see its docstring."""
