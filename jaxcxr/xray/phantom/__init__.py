"""Procedural chest radiographs: who is ill with what, how it looks, and how film records it.

`population` draws patients and their visits, `anatomy`, `skeleton` and `vessels` draw the healthy
chest in millimetres, `findings` changes it, `film` turns attenuation into grey values, and
`radiograph` puts these together.
"""

from jaxcxr.xray.phantom.population import Visit, visit
from jaxcxr.xray.phantom.radiograph import render

__all__ = ["Visit", "render", "visit"]
