"""Recipes that build an approximate inverse M of an operator A."""
