"""Stands in for the real configuration, which a save writes over it: the Hub runs a model's code from one folder."""

from transformer2017.configuration.configuration_transformer2017 import Transformer2017Config as Transformer2017Config
